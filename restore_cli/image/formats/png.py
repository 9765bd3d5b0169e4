"""PNG: a reader that checks all chunks, and a writer of row streams (PNG Specification, third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from zlib_ng import zlib_ng

from restore_cli.image.formats.sniff import read_exactly
from restore_cli.image.formats.strips import cut_strips, map_in_order
from restore_cli.image.metadata.collect import IPTC_KEYWORD, XMP_KEYWORD, build_metadata, encode_raw_profile
from restore_cli.image.metadata.exif import EXIF_PREFIX
from restore_cli.image.picture import Metadata, Samples
from restore_cli.image.reasons import UnreadableImage
from restore_cli.image.stream import PixelStream

__all__ = ["PngChunks", "scan_png", "write_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"cICP", b"sRGB", b"mDCV", b"cLLI")
MAX_INFLATED_BYTES = 1 << 24  # of one text or profile; larger ones may be decompression bombs
MAX_CHUNK_BYTES = 1 << 26  # larger chunks are checked but not kept
MAX_DEFLATE_RATIO = 1032
"""One compressed byte expands to at most this many bytes (zlib Technical Details)."""
SAMPLES_PER_PIXEL = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""for each PNG colour type"""
BLOCK_SIZE = 1 << 20
"""bytes read at a time"""
STRIP_BYTES = 1 << 19
"""Pixels compressed at a time. Smaller strips make larger files: half as many bytes cost 0.2 %."""
DEFLATE_LEVEL = 3  # of zlib-ng: half the time of level 5, and files are 4 % larger
ZLIB_HEADER = b"\x78\x5e"  # deflate with a window of 32 KiB at a fast level (RFC 1950, section 2.2)
ADLER_BASE = 65521
METRES_PER_INCH = 0.0254
CHUNK_NAMES = {b"iCCP": "its colour profile", b"eXIf": "its EXIF"} | dict.fromkeys(TEXT_CHUNKS, "a text")


@dataclass
class PngChunks:
    """The contents of all chunks except the pixel data."""

    width: int
    height: int
    bits: int
    colour_type: int
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
        """1 (gray) or 3 (RGB), without alpha."""
        return 1 if self.colour_type in (0, 4) else 3

    @property
    def has_alpha(self) -> bool:
        """Whether there is alpha: as a channel, in the palette, or as one transparent colour."""
        return self.colour_type in (4, 6) or self.transparent

    @property
    def pixel_bytes(self) -> int:
        """The size of the pixels, uncompressed."""
        return self.width * self.height * self.bits * SAMPLES_PER_PIXEL.get(self.colour_type, 1) // 8

    def build_metadata(self) -> tuple[int, Metadata]:
        """Return the EXIF orientation, and the metadata of the upright picture without the colour chunks."""
        return build_metadata(self.icc, self.exif, None, self.dpi, self.text, None, self.left_out)


class ChunkLeftOut(Exception):
    """The content of a chunk cannot be kept. The message says what is left out and why."""


def scan_png(stream: IO[bytes], check_size: Callable[[int, int], None] = lambda width, height: None) -> PngChunks:
    """Read all chunks and verify their checksums. Raises UnreadableImage, and what `check_size` raises.

    `check_size` gets width and height before the chunks are read.
    """
    stream.seek(0)
    head = stream.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise UnreadableImage("damaged PNG: the file ends inside its header")
    chunks = PngChunks(*struct.unpack(">IIBB", head[16:26]))
    if not chunks.width or not chunks.height:
        raise UnreadableImage(f"damaged PNG: its header states {chunks.width}×{chunks.height} px")
    check_size(chunks.width, chunks.height)
    if zlib.crc32(head[12:29]) != int.from_bytes(head[29:], "big"):
        raise UnreadableImage("damaged PNG: the checksum of its header is wrong")
    compressed = 0
    for kind, length, data in read_chunks(stream):
        compressed += length if kind == b"IDAT" else 0
        if length > MAX_CHUNK_BYTES and kind in CHUNK_NAMES:
            chunks.left_out.append(f"{CHUNK_NAMES[kind]} is larger than {MAX_CHUNK_BYTES >> 20} MiB and left out")
            continue
        try:
            read_chunk(chunks, kind, data)
        except ChunkLeftOut as error:
            chunks.left_out.append(str(error))
    if not compressed:
        raise UnreadableImage("damaged PNG: there is no pixel data")
    if chunks.pixel_bytes > compressed * MAX_DEFLATE_RATIO:
        stated = f"{chunks.width}×{chunks.height} px of its header"
        raise UnreadableImage(f"damaged PNG: {compressed} bytes of pixel data cannot expand to the {stated}")
    return chunks


def read_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (kind, length, data) of each chunk after the header; data of pixels is empty. Raises UnreadableImage."""
    while True:
        length, kind = struct.unpack(">I4s", read_exactly(stream, 8, "PNG"))
        keep = kind not in (b"IDAT", b"fdAT") and length <= MAX_CHUNK_BYTES
        parts, crc, left = [], zlib.crc32(kind), length
        while left:
            part = read_exactly(stream, min(left, BLOCK_SIZE), "PNG")
            crc, left = zlib.crc32(part, crc), left - len(part)
            parts += [part] if keep else []
        if int.from_bytes(read_exactly(stream, 4, "PNG"), "big") != crc:
            raise UnreadableImage(f"damaged PNG: the checksum of chunk {kind.decode('latin-1')!r} is wrong")
        if kind == b"IEND":
            return
        yield kind, length, b"".join(parts)


def inflate(data: bytes, what: str) -> bytes:
    """Decompress data that messages call `what`. Raises ChunkLeftOut if it is damaged or too large."""
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


def read_chunk(chunks: PngChunks, kind: bytes, data: bytes) -> None:
    """Take over the content of a chunk. Raises ChunkLeftOut."""
    match kind:
        case b"acTL" if len(data) == 8:
            chunks.frames = max(1, int.from_bytes(data[:4], "big"))
        case b"tRNS":
            chunks.transparent = True
        case b"iCCP":
            chunks.icc = inflate(data.partition(b"\0")[2][1:], CHUNK_NAMES[kind])
        case b"eXIf":
            chunks.exif = EXIF_PREFIX + data.removeprefix(EXIF_PREFIX)
        case b"pHYs" if len(data) == 9 and data[8] == 1:  # px per metre
            across, down = struct.unpack(">II", data[:8])
            # 11811 px per metre are 300 dpi, not 299.9994
            chunks.dpi = round(across * METRES_PER_INCH, 2), round(down * METRES_PER_INCH, 2)
        case _ if kind in TEXT_CHUNKS:
            read_text(chunks, kind, data)
        case _ if kind in COLOUR_CHUNKS:
            chunks.colours[kind] = data


def read_text(chunks: PngChunks, kind: bytes, data: bytes) -> None:
    """Keep a text, and of several texts with the same keyword the last one. Raises ChunkLeftOut."""
    key, value = split_keyword(data)
    name = f"its text {key[:40]!a}"  # the keyword may contain any character
    if kind == b"tEXt":
        text = value.decode("latin-1")
    elif kind == b"zTXt":
        text = inflate(value[1:], name).decode("latin-1")
    else:
        _, translated = split_keyword(value[2:])
        _, content = split_keyword(translated)
        text = (inflate(content, name) if value[:1] == b"\1" else content).decode("utf-8", "replace")
    if chunks.text.get(key, text) != text:
        chunks.left_out.append(f"{name} occurs several times, the last one is kept")
    chunks.text[key] = text


def split_keyword(data: bytes) -> tuple[str, bytes]:
    """Split a chunk at its first zero byte into keyword and rest. Raises ChunkLeftOut if there is none."""
    keyword, found, rest = data.partition(b"\0")
    if not found:
        raise ChunkLeftOut("a text is damaged and left out")
    return keyword.decode("latin-1"), rest


def write_png(stream: PixelStream, sink: IO[bytes]) -> None:
    """Write 8 or 16 bits, gray or RGB, with or without alpha. A few strips of rows are held at a time."""
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[stream.channels]
    sample_bytes = stream.dtype.itemsize
    header = struct.pack(">IIBBBBB", stream.width, stream.height, 8 * sample_bytes, colour_type, 0, 0, 0)
    sink.write(SIGNATURE)
    write_chunk(sink, b"IHDR", header)
    write_metadata(sink, stream.metadata)
    for data in deflate_rows(stream):
        write_chunk(sink, b"IDAT", data)
    write_chunk(sink, b"IEND", b"")


def deflate_rows(stream: PixelStream) -> Iterator[bytes]:
    """Yield the parts of one zlib stream (RFC 1950) with all filtered rows. Several threads make the parts."""
    step = stream.channels * stream.dtype.itemsize
    length = stream.width * step
    checksum = 1

    def pair_strips() -> Iterator[tuple[Samples, Samples]]:
        above = np.zeros((1, length), np.uint8)
        for strip in cut_strips(stream, max(1, STRIP_BYTES // length)):
            rows = to_big_endian(strip)
            yield rows, above
            above = rows[-1:]

    def deflate(strip: tuple[Samples, Samples]) -> tuple[bytes, int, int]:
        return deflate_strip(filter_rows(*strip, step))

    yield ZLIB_HEADER
    for data, found, size in map_in_order(deflate, pair_strips()):
        checksum = combine_checksums(checksum, found, size)
        yield data
    yield b"\x03\0" + checksum.to_bytes(4, "big")  # an empty last block, and the checksum


def deflate_strip(data: bytes) -> tuple[bytes, int, int]:
    """Return deflate blocks (RFC 1951) that end at a byte, and the Adler-32 checksum and size of the data."""
    engine = zlib_ng.compressobj(DEFLATE_LEVEL, wbits=-zlib_ng.MAX_WBITS)
    return engine.compress(data) + engine.flush(zlib_ng.Z_SYNC_FLUSH), zlib_ng.adler32(data), len(data)


def combine_checksums(first: int, second: int, size: int) -> int:
    """Return the Adler-32 checksum (RFC 1950, section 8) of joined data; `size` is the size of the second part."""
    low = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % ADLER_BASE
    high = ((first >> 16) + (second >> 16) + size * ((first & 0xFFFF) - 1)) % ADLER_BASE
    return high << 16 | low


def to_big_endian(block: Samples) -> Samples:
    """Convert (n, w, c) to bytes (n, row), most significant byte first."""
    ordered = np.ascontiguousarray(block, block.dtype.newbyteorder(">"))
    return ordered.view(np.uint8).reshape(block.shape[0], -1)


def filter_rows(rows: Samples, above: Samples, step: int) -> bytes:
    """Filter rows (n, row) with Sub, Up or Paeth, whichever gives the least sum of absolute differences.

    `above` is the row before the first one, `step` the bytes per px. Each returned row begins with its filter type.
    """
    n, length = rows.shape
    upper = np.concatenate([above, rows[:-1]])
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], upper[:, :-step]
    best = rows - left
    cost = measure_cost(best)
    kinds = np.ones(n, np.uint8)  # 1 Sub, 2 Up, 4 Paeth
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
    """Return the sum of absolute values of each row, read as signed bytes: (n,)."""
    magnitude: Samples = np.minimum(difference, np.negative(difference)).sum(1, dtype=np.int64)
    return magnitude


def predict_paeth(left: Samples, upper: Samples, corner: Samples) -> Samples:
    """Return the neighbour nearest to left + upper - corner (section 9.4)."""
    a, b, c = left.astype(np.int16), upper.astype(np.int16), corner.astype(np.int16)
    to_left, to_upper, to_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    lower = np.where(to_upper <= to_corner, upper, corner)
    return np.where((to_left <= to_upper) & (to_left <= to_corner), left, lower)


def write_chunk(sink: IO[bytes], kind: bytes, data: bytes) -> None:
    sink.write(struct.pack(">I", len(data)) + kind)
    sink.write(data)
    sink.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def write_metadata(sink: IO[bytes], metadata: Metadata) -> None:
    for kind, data in metadata.png.items():
        write_chunk(sink, kind, data)
    if metadata.icc:
        write_chunk(sink, b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc))
    if metadata.dpi:
        write_chunk(sink, b"pHYs", struct.pack(">IIB", *(round(value / METRES_PER_INCH) for value in metadata.dpi), 1))
    if metadata.exif:
        write_chunk(sink, b"eXIf", metadata.exif.removeprefix(EXIF_PREFIX))
    if metadata.xmp:
        write_chunk(sink, b"iTXt", XMP_KEYWORD.encode() + bytes(5) + metadata.xmp)
    if metadata.iptc:
        profile = zlib.compress(encode_raw_profile("iptc", metadata.iptc))
        write_chunk(sink, b"zTXt", IPTC_KEYWORD.encode() + b"\0\0" + profile)
    for key, value in metadata.text.items():
        write_text(sink, key, value)


def write_text(sink: IO[bytes], key: str, value: str) -> None:
    """Write a text as Latin-1 (tEXt) if possible, else as UTF-8 (iTXt)."""
    name = key.encode("latin-1", "replace")[:79].strip()
    if not name:
        return
    try:
        write_chunk(sink, b"tEXt", name + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        write_chunk(sink, b"iTXt", name + bytes(5) + value.encode())
