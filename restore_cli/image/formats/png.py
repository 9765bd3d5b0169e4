"""PNG: its chunks read and checked, its rows written as they come (PNG Specification, third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from restore_cli.image.metadata.collect import IPTC_KEYWORD, XMP_KEYWORD, build_metadata, encode_raw_profile
from restore_cli.image.picture import Metadata, Samples
from restore_cli.image.reasons import UnreadableImage
from restore_cli.image.stream import PixelStream

__all__ = ["PngChunks", "scan_png", "write_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"cICP", b"sRGB", b"mDCV", b"cLLI")
MAX_INFLATED_BYTES = 1 << 24  # bytes of one decompressed text or profile: more is a bomb
MAX_CHUNK_BYTES = 1 << 26  # bytes of a chunk that is read whole
MAX_DEFLATE_RATIO = 1032
"""bytes that one byte of deflate can stand for (zlib's technical details)"""
SAMPLES_PER_PIXEL = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""per px, of each colour type"""
IDAT_BYTES = 1 << 20
DEFLATE_LEVEL = 3  # on photographs a third of the time of level 6 and hardly larger
METRES_PER_INCH = 0.0254


@dataclass
class PngChunks:
    """What the chunks say, pixels apart."""

    width: int
    height: int
    bits: int
    colour: int
    frames: int = 1
    transparent: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: dict[str, str] = field(default_factory=dict)
    colours: dict[bytes, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """1 or 3, without alpha."""
        return 1 if self.colour in (0, 4) else 3

    @property
    def alpha(self) -> bool:
        """As a channel, in the palette or as one clear colour."""
        return self.colour in (4, 6) or self.transparent

    def metadata(self) -> tuple[int, Metadata]:
        """The orientation that is still to be applied, and what will be true after, without the colour chunks."""
        return build_metadata(self.icc, self.exif, None, self.dpi, self.text, None, self.left_out)


class ChunkLeftOut(Exception):
    """What a chunk holds is not kept; the message says what, and why."""


def scan_png(stream: IO[bytes]) -> PngChunks:
    """Every chunk up to the end, each with its checksum verified. Raises Unreadable."""
    stream.seek(0)
    head = stream.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise UnreadableImage("damaged PNG: it ends in its header")
    facts = PngChunks(*struct.unpack(">IIBB", head[16:26]))
    if not facts.width or not facts.height:
        raise UnreadableImage(f"damaged PNG: it claims {facts.width}×{facts.height} px")
    if zlib.crc32(head[12:29]) != int.from_bytes(head[29:], "big"):
        raise UnreadableImage("damaged PNG: the checksum of its header is wrong")
    packed = 0
    for kind, length, data in read_chunks(stream):
        packed += length if kind == b"IDAT" else 0
        if length > MAX_CHUNK_BYTES and kind in CHUNK_NAMES:
            facts.left_out.append(f"{CHUNK_NAMES[kind]} is larger than {MAX_CHUNK_BYTES >> 20} MiB and left out")
        elif reader := CHUNK_READERS.get(kind):
            try:
                reader(facts, data)
            except ChunkLeftOut as error:
                facts.left_out.append(str(error))
        elif kind in COLOUR_CHUNKS:
            facts.colours[kind] = data
    if not packed:
        raise UnreadableImage("damaged PNG: it has no pixels")
    if (
        facts.width * facts.height * facts.bits * SAMPLES_PER_PIXEL.get(facts.colour, 1) // 8
        > packed * MAX_DEFLATE_RATIO
    ):
        raise UnreadableImage(
            f"damaged PNG: {packed} bytes cannot hold the {facts.width}×{facts.height} px that it claims"
        )
    return facts


def read_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    """(kind, length, data) of each chunk behind the header; pixel data is checked and passed over."""
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise UnreadableImage("damaged PNG: Truncated, its end is missing")
        length, kind = struct.unpack(">I4s", head)
        keep = kind not in (b"IDAT", b"fdAT") and length <= MAX_CHUNK_BYTES
        parts, crc, left = [], zlib.crc32(kind), length
        while left:
            part = stream.read(min(left, IDAT_BYTES))
            if not part:
                raise UnreadableImage("damaged PNG: Truncated, its end is missing")
            crc, left = zlib.crc32(part, crc), left - len(part)
            parts += [part] if keep else []
        end = stream.read(4)
        if len(end) < 4:
            raise UnreadableImage("damaged PNG: Truncated, its end is missing")
        if int.from_bytes(end, "big") != crc:
            raise UnreadableImage(f"damaged PNG: the checksum of a part ({kind.decode('latin-1')!r}) is wrong")
        if kind == b"IEND":
            return
        yield kind, length, b"".join(parts)


def inflate(data: bytes, what: str) -> bytes:
    """Decompressed. Raises LeftOut where that fails or grows beyond all measure."""
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(data, MAX_INFLATED_BYTES + 1)
    except zlib.error:
        found = b""
    if len(found) > MAX_INFLATED_BYTES:
        raise ChunkLeftOut(f"{what} unpacks to more than {MAX_INFLATED_BYTES >> 20} MiB and is left out")
    if not engine.eof:
        raise ChunkLeftOut(f"{what} is damaged and left out")
    return found


def read_actl(facts: PngChunks, data: bytes) -> None:
    if len(data) == 8:
        facts.frames = max(1, int.from_bytes(data[:4], "big"))


def read_trns(facts: PngChunks, data: bytes) -> None:
    facts.transparent = True


def read_iccp(facts: PngChunks, data: bytes) -> None:
    _, _, rest = data.partition(b"\0")
    facts.icc = inflate(rest[1:], CHUNK_NAMES[b"iCCP"])


def read_exif_chunk(facts: PngChunks, data: bytes) -> None:
    facts.exif = b"Exif\0\0" + data.removeprefix(b"Exif\0\0")


def read_phys(facts: PngChunks, data: bytes) -> None:
    if len(data) == 9 and data[8] == 1:  # per metre
        across, down = struct.unpack(">II", data[:8])
        facts.dpi = (
            round(across * METRES_PER_INCH, 2),
            round(down * METRES_PER_INCH, 2),
        )  # 300 dpi were 11811 px, as 299.9994 are


def read_text(facts: PngChunks, data: bytes) -> None:
    key, value = split_keyword(data)
    add_text(facts, key, value.decode("latin-1"))


def read_ztxt(facts: PngChunks, data: bytes) -> None:
    key, value = split_keyword(data)
    add_text(facts, key, inflate(value[1:], quote_keyword(key)).decode("latin-1"))


def read_itxt(facts: PngChunks, data: bytes) -> None:
    key, rest = split_keyword(data)
    _, translated = split_keyword(rest[2:])
    _, value = split_keyword(translated)
    text = inflate(value, quote_keyword(key)) if rest[:1] == b"\1" else value
    add_text(facts, key, text.decode("utf-8", "replace"))


def split_keyword(data: bytes) -> tuple[str, bytes]:
    """A word, and what stands behind the zero that ends it. Raises LeftOut where there is none."""
    word, found, rest = data.partition(b"\0")
    if not found:
        raise ChunkLeftOut("a text is damaged and left out")
    return word.decode("latin-1"), rest


def add_text(facts: PngChunks, key: str, value: str) -> None:
    """The last text of a keyword is the one that is kept."""
    if facts.text.get(key, value) != value:
        facts.left_out.append(f"{quote_keyword(key)} stands there several times, the last one is kept")
    facts.text[key] = value


def quote_keyword(key: str) -> str:
    """The name of a text in a message: the keyword may hold anything."""
    return f"its text {key[:40]!a}"


CHUNK_NAMES = {
    b"iCCP": "its colour profile",
    b"eXIf": "its EXIF",
    b"tEXt": "a text",
    b"zTXt": "a text",
    b"iTXt": "a text",
}

CHUNK_READERS: dict[bytes, Callable[[PngChunks, bytes], None]] = {
    b"acTL": read_actl,
    b"tRNS": read_trns,
    b"iCCP": read_iccp,
    b"eXIf": read_exif_chunk,
    b"pHYs": read_phys,
    b"tEXt": read_text,
    b"zTXt": read_ztxt,
    b"iTXt": read_itxt,
}


def write_png(stream: PixelStream, sink: IO[bytes]) -> None:
    """8 or 16 bits, gray or RGB, with or without alpha; holds a block of rows at a time."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[stream.channels]
    bits = 8 * stream.dtype.itemsize
    sink.write(SIGNATURE)
    write_chunk(sink, b"IHDR", struct.pack(">IIBBBBB", stream.width, stream.height, bits, colour, 0, 0, 0))
    write_metadata(sink, stream.metadata)
    engine = zlib.compressobj(DEFLATE_LEVEL)
    above = np.zeros((1, stream.width * stream.channels * stream.dtype.itemsize), np.uint8)
    waiting = bytearray()
    for block in stream.blocks:
        rows = to_big_endian(block)
        waiting += engine.compress(filter_rows(rows, above, stream.channels * stream.dtype.itemsize))
        above = rows[-1:]
        while len(waiting) >= IDAT_BYTES:
            write_chunk(sink, b"IDAT", bytes(waiting[:IDAT_BYTES]))
            del waiting[:IDAT_BYTES]
    waiting += engine.flush()
    write_chunk(sink, b"IDAT", bytes(waiting))
    write_chunk(sink, b"IEND", b"")


def to_big_endian(block: Samples) -> Samples:
    """(n, w, c) -> (n, bytes of a row), most significant byte first."""
    ordered = np.ascontiguousarray(block, block.dtype.newbyteorder(">"))
    return ordered.view(np.uint8).reshape(block.shape[0], -1)


def filter_rows(rows: Samples, above: Samples, step: int) -> bytes:
    """Rows with their filter byte: for each the better of sub, up and Paeth, by the least sum of differences."""
    n, length = rows.shape
    upper = np.concatenate([above, rows[:-1]])
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], upper[:, :-step]
    best = rows - left
    cost = measure_cost(best)
    kinds = np.ones(n, np.uint8)
    for kind, guess in ((2, upper), (4, predict_paeth(left, upper, corner))):
        difference = rows - guess
        found = measure_cost(difference)
        better = found < cost
        best[better], kinds[better] = difference[better], kind
        cost = np.minimum(cost, found)
    out = np.empty((n, length + 1), np.uint8)
    out[:, 0], out[:, 1:] = kinds, best
    return out.tobytes()


def measure_cost(difference: Samples) -> Samples:
    """(n,) sums of the magnitudes of differences that are taken for signed bytes."""
    magnitude: Samples = np.minimum(difference, np.negative(difference)).sum(1, dtype=np.int64)
    return magnitude


def predict_paeth(left: Samples, upper: Samples, corner: Samples) -> Samples:
    """The nearest of the three neighbours to left + upper - corner (section 9.4)."""
    a, b, c = left.astype(np.int16), upper.astype(np.int16), corner.astype(np.int16)
    to_left, to_upper, to_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    lower = np.where(to_upper <= to_corner, upper, corner)
    return np.where((to_left <= to_upper) & (to_left <= to_corner), left, lower)


def write_chunk(sink: IO[bytes], kind: bytes, data: bytes) -> None:
    """One chunk."""
    sink.write(struct.pack(">I", len(data)) + kind)
    sink.write(data)
    sink.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def write_metadata(sink: IO[bytes], metadata: Metadata) -> None:
    """Everything beside the pixels."""
    for kind, data in metadata.png.items():
        write_chunk(sink, kind, data)
    if metadata.icc:
        write_chunk(sink, b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc))
    if metadata.dpi:
        write_chunk(sink, b"pHYs", struct.pack(">IIB", *(round(value / METRES_PER_INCH) for value in metadata.dpi), 1))
    if metadata.exif:
        write_chunk(sink, b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    if metadata.xmp:
        write_chunk(sink, b"iTXt", XMP_KEYWORD.encode() + bytes(5) + metadata.xmp)
    if metadata.iptc:
        write_chunk(
            sink, b"zTXt", IPTC_KEYWORD.encode() + b"\0\0" + zlib.compress(encode_raw_profile("iptc", metadata.iptc))
        )
    for key, value in metadata.text.items():
        write_text(sink, key, value)


def write_text(sink: IO[bytes], key: str, value: str) -> None:
    """A keyword; Latin-1 where that holds it."""
    name = key.encode("latin-1", "replace")[:79].strip()
    if not name:
        return
    try:
        write_chunk(sink, b"tEXt", name + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        write_chunk(sink, b"iTXt", name + bytes(5) + value.encode())
