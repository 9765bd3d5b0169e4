"""PNG: its chunks read and checked, its rows written as they come (PNG Specification, third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from restore_cli.image.formats.sniff import Unreadable
from restore_cli.image.metadata.collect import IPTC_KEY, assembled, packed_profile
from restore_cli.image.picture import Metadata, Samples
from restore_cli.image.stream import Stream

__all__ = ["XMP_KEY", "PngFacts", "scan_png", "write_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEY = "XML:com.adobe.xmp"
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"cICP", b"sRGB", b"mDCV", b"cLLI")
MOST_TEXT = 1 << 24  # bytes of one decompressed text or profile: more is a bomb
MOST_CHUNK = 1 << 26  # bytes of a chunk that is read whole
DENSEST = 1032
"""bytes that one byte of deflate can stand for (zlib's technical details)"""
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""per px, of each colour type"""
BLOCK = 1 << 20
LEVEL = 3  # on photographs a third of the time of level 6 and hardly larger
INCH = 0.0254


@dataclass
class PngFacts:
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
        return assembled(self.icc, self.exif, None, self.dpi, self.text, None, self.left_out)


class LeftOut(Exception):
    """What a chunk holds is not kept; the message says what, and why."""


def scan_png(stream: IO[bytes]) -> PngFacts:
    """Every chunk up to the end, each with its checksum verified. Raises Unreadable."""
    stream.seek(0)
    head = stream.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise Unreadable("damaged PNG: it ends in its header")
    facts = PngFacts(*struct.unpack(">IIBB", head[16:26]))
    if not facts.width or not facts.height:
        raise Unreadable(f"damaged PNG: it claims {facts.width}×{facts.height} px")
    if zlib.crc32(head[12:29]) != int.from_bytes(head[29:], "big"):
        raise Unreadable("damaged PNG: the checksum of its header is wrong")
    packed = 0
    for kind, length, data in chunks(stream):
        packed += length if kind == b"IDAT" else 0
        if length > MOST_CHUNK and kind in TITLES:
            facts.left_out.append(f"{TITLES[kind]} is larger than {MOST_CHUNK >> 20} MiB and left out")
        elif reader := READERS.get(kind):
            try:
                reader(facts, data)
            except LeftOut as error:
                facts.left_out.append(str(error))
        elif kind in COLOUR_CHUNKS:
            facts.colours[kind] = data
    if not packed:
        raise Unreadable("damaged PNG: it has no pixels")
    if facts.width * facts.height * facts.bits * SAMPLES.get(facts.colour, 1) // 8 > packed * DENSEST:
        raise Unreadable(f"damaged PNG: {packed} bytes cannot hold the {facts.width}×{facts.height} px that it claims")
    return facts


def chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    """(kind, length, data) of each chunk behind the header; pixel data is checked and passed over."""
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise Unreadable("damaged PNG: Truncated, its end is missing")
        length, kind = struct.unpack(">I4s", head)
        keep = kind not in (b"IDAT", b"fdAT") and length <= MOST_CHUNK
        parts, crc, left = [], zlib.crc32(kind), length
        while left:
            part = stream.read(min(left, BLOCK))
            if not part:
                raise Unreadable("damaged PNG: Truncated, its end is missing")
            crc, left = zlib.crc32(part, crc), left - len(part)
            parts += [part] if keep else []
        end = stream.read(4)
        if len(end) < 4:
            raise Unreadable("damaged PNG: Truncated, its end is missing")
        if int.from_bytes(end, "big") != crc:
            raise Unreadable(f"damaged PNG: the checksum of a part ({kind.decode('latin-1')!r}) is wrong")
        if kind == b"IEND":
            return
        yield kind, length, b"".join(parts)


def inflated(data: bytes, what: str) -> bytes:
    """Decompressed. Raises LeftOut where that fails or grows beyond all measure."""
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(data, MOST_TEXT + 1)
    except zlib.error:
        found = b""
    if len(found) > MOST_TEXT:
        raise LeftOut(f"{what} unpacks to more than {MOST_TEXT >> 20} MiB and is left out")
    if not engine.eof:
        raise LeftOut(f"{what} is damaged and left out")
    return found


def read_animation(facts: PngFacts, data: bytes) -> None:
    if len(data) == 8:
        facts.frames = max(1, int.from_bytes(data[:4], "big"))


def read_transparency(facts: PngFacts, data: bytes) -> None:
    facts.transparent = True


def read_profile(facts: PngFacts, data: bytes) -> None:
    _, _, rest = data.partition(b"\0")
    facts.icc = inflated(rest[1:], TITLES[b"iCCP"])


def read_exif(facts: PngFacts, data: bytes) -> None:
    facts.exif = b"Exif\0\0" + data.removeprefix(b"Exif\0\0")


def read_resolution(facts: PngFacts, data: bytes) -> None:
    if len(data) == 9 and data[8] == 1:  # per metre
        across, down = struct.unpack(">II", data[:8])
        facts.dpi = round(across * INCH, 2), round(down * INCH, 2)  # 300 dpi were 11811 px, as 299.9994 are


def read_latin(facts: PngFacts, data: bytes) -> None:
    key, value = parted(data)
    add_text(facts, key, value.decode("latin-1"))


def read_compressed(facts: PngFacts, data: bytes) -> None:
    key, value = parted(data)
    add_text(facts, key, inflated(value[1:], titled(key)).decode("latin-1"))


def read_international(facts: PngFacts, data: bytes) -> None:
    key, rest = parted(data)
    _, translated = parted(rest[2:])
    _, value = parted(translated)
    text = inflated(value, titled(key)) if rest[:1] == b"\1" else value
    add_text(facts, key, text.decode("utf-8", "replace"))


def parted(data: bytes) -> tuple[str, bytes]:
    """A word, and what stands behind the zero that ends it. Raises LeftOut where there is none."""
    word, found, rest = data.partition(b"\0")
    if not found:
        raise LeftOut("a text is damaged and left out")
    return word.decode("latin-1"), rest


def add_text(facts: PngFacts, key: str, value: str) -> None:
    """The last text of a keyword is the one that is kept."""
    if facts.text.get(key, value) != value:
        facts.left_out.append(f"{titled(key)} stands there several times, the last one is kept")
    facts.text[key] = value


def titled(key: str) -> str:
    """The name of a text in a message: the keyword may hold anything."""
    return f"its text {key[:40]!a}"


TITLES = {b"iCCP": "its colour profile", b"eXIf": "its EXIF", b"tEXt": "a text", b"zTXt": "a text", b"iTXt": "a text"}

READERS: dict[bytes, Callable[[PngFacts, bytes], None]] = {
    b"acTL": read_animation,
    b"tRNS": read_transparency,
    b"iCCP": read_profile,
    b"eXIf": read_exif,
    b"pHYs": read_resolution,
    b"tEXt": read_latin,
    b"zTXt": read_compressed,
    b"iTXt": read_international,
}


def write_png(stream: Stream, sink: IO[bytes]) -> None:
    """8 or 16 bits, gray or RGB, with or without alpha; holds a block of rows at a time."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[stream.channels]
    bits = 8 * stream.dtype.itemsize
    sink.write(SIGNATURE)
    put(sink, b"IHDR", struct.pack(">IIBBBBB", stream.width, stream.height, bits, colour, 0, 0, 0))
    write_chunks(sink, stream.metadata)
    engine = zlib.compressobj(LEVEL)
    above = np.zeros((1, stream.width * stream.channels * stream.dtype.itemsize), np.uint8)
    waiting = bytearray()
    for block in stream.blocks:
        rows = as_bytes(block)
        waiting += engine.compress(filtered(rows, above, stream.channels * stream.dtype.itemsize))
        above = rows[-1:]
        while len(waiting) >= BLOCK:
            put(sink, b"IDAT", bytes(waiting[:BLOCK]))
            del waiting[:BLOCK]
    waiting += engine.flush()
    put(sink, b"IDAT", bytes(waiting))
    put(sink, b"IEND", b"")


def as_bytes(block: Samples) -> Samples:
    """(n, w, c) -> (n, bytes of a row), most significant byte first."""
    ordered = np.ascontiguousarray(block, block.dtype.newbyteorder(">"))
    return ordered.view(np.uint8).reshape(block.shape[0], -1)


def filtered(rows: Samples, above: Samples, step: int) -> bytes:
    """Rows with their filter byte: for each the better of sub, up and Paeth, by the least sum of differences."""
    n, length = rows.shape
    upper = np.concatenate([above, rows[:-1]])
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], upper[:, :-step]
    best = rows - left
    cost = costs(best)
    kinds = np.ones(n, np.uint8)
    for kind, guess in ((2, upper), (4, paeth(left, upper, corner))):
        difference = rows - guess
        found = costs(difference)
        better = found < cost
        best[better], kinds[better] = difference[better], kind
        cost = np.minimum(cost, found)
    out = np.empty((n, length + 1), np.uint8)
    out[:, 0], out[:, 1:] = kinds, best
    return out.tobytes()


def costs(difference: Samples) -> Samples:
    """(n,) sums of the magnitudes of differences that are taken for signed bytes."""
    magnitude: Samples = np.minimum(difference, np.negative(difference)).sum(1, dtype=np.int64)
    return magnitude


def paeth(left: Samples, upper: Samples, corner: Samples) -> Samples:
    """The nearest of the three neighbours to left + upper - corner (section 9.4)."""
    a, b, c = left.astype(np.int16), upper.astype(np.int16), corner.astype(np.int16)
    to_left, to_upper, to_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    lower = np.where(to_upper <= to_corner, upper, corner)
    return np.where((to_left <= to_upper) & (to_left <= to_corner), left, lower)


def put(sink: IO[bytes], kind: bytes, data: bytes) -> None:
    """One chunk."""
    sink.write(struct.pack(">I", len(data)) + kind)
    sink.write(data)
    sink.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def write_chunks(sink: IO[bytes], metadata: Metadata) -> None:
    """Everything beside the pixels."""
    for kind, data in metadata.png.items():
        put(sink, kind, data)
    if metadata.icc:
        put(sink, b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc))
    if metadata.dpi:
        put(sink, b"pHYs", struct.pack(">IIB", *(round(value / INCH) for value in metadata.dpi), 1))
    if metadata.exif:
        put(sink, b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    if metadata.xmp:
        put(sink, b"iTXt", XMP_KEY.encode() + bytes(5) + metadata.xmp)
    if metadata.iptc:
        put(sink, b"zTXt", IPTC_KEY.encode() + b"\0\0" + zlib.compress(packed_profile("iptc", metadata.iptc)))
    for key, value in metadata.text.items():
        write_text(sink, key, value)


def write_text(sink: IO[bytes], key: str, value: str) -> None:
    """A keyword; Latin-1 where that holds it."""
    name = key.encode("latin-1", "replace")[:79].strip()
    if not name:
        return
    try:
        put(sink, b"tEXt", name + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        put(sink, b"iTXt", name + bytes(5) + value.encode())
