"""A TIFF writer for row streams of any depth: deflate-compressed strips, BigTIFF above 4 GiB.

Pillow writes compressed TIFF through libtiff, which needs the whole picture and cannot write EXIF and GPS directories.
Here the pixels are written first, and Pillow only encodes the directory after them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from zlib_ng import zlib_ng

from restore_cli.image.formats.strips import cut_strips, map_in_order
from restore_cli.image.formats.tiff_reader import ICC, IPTC, PREDICTOR, XMP
from restore_cli.image.metadata.collect import SUB_DIRECTORIES, select_descriptive_tags
from restore_cli.image.metadata.exif import relocate_directory
from restore_cli.image.picture import Metadata, Samples
from restore_cli.image.stream import PixelStream

__all__ = ["can_write_exif", "write_tiff"]

_STRIP_BYTES = 1 << 18  # of pixels per strip: large enough to compress well, small enough for partial reading
_BIGTIFF_BYTES = 2**32 - 2**25  # pixels above this need 64-bit offsets; leaves room for what deflate may add


def write_tiff(pages: Iterator[PixelStream], sink: IO[bytes], size: int) -> None:
    """Write pages, little-endian. `size` is the number of bytes of all samples; large files become BigTIFF."""
    big = size > _BIGTIFF_BYTES
    sink.write(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4))
    link = 8 if big else 4  # position of the next directory's offset
    for page in pages:
        rows = min(page.height, max(1, _STRIP_BYTES // (page.width * page.channels * page.dtype.itemsize)))
        starts, counts = write_strips(page, sink, rows)
        pointers = write_exif_directories(page.metadata.exif, sink, big)
        at = align_to_even(sink)
        data = collect_tags(page, rows, counts, big, pointers).tobytes(at)
        directory = fill_strip_offsets(data, starts, at, big)
        link = link_directory(sink, link, at, directory, big)


def align_to_even(sink: IO[bytes]) -> int:
    """Pad the file to an even length and return it. Directories must begin at even offsets."""
    sink.write(bytes(sink.tell() % 2))
    return sink.tell()


def write_exif_directories(exif: bytes | None, sink: IO[bytes], big: bool) -> dict[int, int]:
    """Write the EXIF and GPS directories and return the offset of each by its tag."""
    pointers = {}
    for tag in SUB_DIRECTORIES:
        at = align_to_even(sink)
        if data := relocate_directory(exif, tag, at, big):
            sink.write(data)
            pointers[int(tag)] = at
    return pointers


def write_strips(page: PixelStream, sink: IO[bytes], rows: int) -> tuple[list[int], list[int]]:
    """Write the pixels in strips of `rows` rows and return the strips' offsets and lengths."""
    starts: list[int] = []
    counts: list[int] = []
    for data in map_in_order(compress_strip, cut_strips(page, rows)):
        starts.append(sink.tell())
        counts.append(len(data))
        sink.write(data)
    return starts, counts


def compress_strip(strip: Samples) -> bytes:
    """Return a strip (n, w, c) as a zlib stream."""
    return zlib_ng.compress(apply_predictor(strip), 6 if strip.dtype == np.uint8 else 4)


def apply_predictor(rows: Samples) -> bytes:
    """Return differences to the left neighbour: of integer samples (predictor 2), or of float byte planes (3)."""
    if rows.dtype != np.float32:
        difference = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).copy()
        difference[:, 1:] -= rows[:, :-1]
        return difference.tobytes()
    n, width, channels = rows.shape
    planes = np.ascontiguousarray(rows, ">f4").view(np.uint8).reshape(n, width * channels, 4).transpose(0, 2, 1)
    flat = planes.reshape(n, -1)  # most significant bytes of a row first (Adobe Photoshop TIFF Technical Note 3)
    difference = flat.copy()
    difference[:, channels:] -= flat[:, :-channels]
    return difference.tobytes()


def can_write_exif(exif: bytes) -> bool:
    """Whether the tags of an EXIF block can be written to a TIFF directory. Damaged tags cannot."""
    directory = ImageFileDirectory_v2()
    try:
        add_metadata_tags(directory, Metadata(exif=exif))
        directory.tobytes()
    except Exception:  # unexpected values can make Pillow raise anything
        return False
    return True


def fill_strip_offsets(data: bytes, starts: list[int], at: int, big: bool) -> bytes:
    """Return the directory with its strip offsets filled in. Pillow itself would shift them."""
    out = bytearray(data)
    head, entry, value, word = ("<Q", 20, 12, "Q") if big else ("<H", 12, 8, "I")
    (entries,) = struct.unpack_from(head, out)
    first = struct.calcsize(head)
    for where in range(first, first + entries * entry, entry):
        if struct.unpack_from("<H", out, where)[0] == TiffImagePlugin.STRIPOFFSETS:
            place = where + value
            if len(starts) > 1:
                place = struct.unpack_from("<" + word, out, place)[0] - at
            struct.pack_into(f"<{len(starts)}{word}", out, place, *starts)
    return bytes(out)


def collect_tags(
    page: PixelStream, rows: int, counts: list[int], big: bool, pointers: dict[int, int]
) -> ImageFileDirectory_v2:
    """Return the tags of a page. Strip offsets are still zero."""
    directory = ImageFileDirectory_v2(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4))
    real = page.dtype == np.float32
    directory[TiffImagePlugin.IMAGEWIDTH], directory[TiffImagePlugin.IMAGELENGTH] = page.width, page.height
    directory[TiffImagePlugin.BITSPERSAMPLE] = (8 * page.dtype.itemsize,) * page.channels
    directory[TiffImagePlugin.SAMPLEFORMAT] = (3 if real else 1,) * page.channels
    directory[TiffImagePlugin.SAMPLESPERPIXEL] = page.channels
    directory[TiffImagePlugin.COMPRESSION] = 8  # deflate
    directory[PREDICTOR] = 3 if real else 2
    directory[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1 if page.channels < 3 else 2  # black is zero, RGB
    directory[TiffImagePlugin.PLANAR_CONFIGURATION] = 1
    if page.has_alpha:
        directory[TiffImagePlugin.EXTRASAMPLES] = 2  # alpha, not premultiplied
    directory[TiffImagePlugin.ROWSPERSTRIP] = rows
    add_metadata_tags(directory, page.metadata)
    strips = {TiffImagePlugin.STRIPBYTECOUNTS: tuple(counts), TiffImagePlugin.STRIPOFFSETS: (0,) * len(counts)}
    for tag, value in (strips | pointers).items():
        directory.tagtype[tag] = 16 if big else 4  # 64 or 32 bits
        directory[tag] = value
    return directory


def add_metadata_tags(directory: ImageFileDirectory_v2, metadata: Metadata) -> None:
    if metadata.dpi:
        directory[TiffImagePlugin.X_RESOLUTION], directory[TiffImagePlugin.Y_RESOLUTION] = metadata.dpi
        directory[TiffImagePlugin.RESOLUTION_UNIT] = 2  # inch
    for tag, value in ((ICC, metadata.icc), (XMP, metadata.xmp), (IPTC, metadata.iptc)):
        if value:
            directory.tagtype[tag] = 7 if tag == ICC else 1  # undefined, bytes
            directory[tag] = value
    if metadata.exif:
        tags: Image.Exif = select_descriptive_tags(metadata.exif)
        for tag in tags:
            if tag not in SUB_DIRECTORIES:
                directory[tag] = tags[tag]


def link_directory(sink: IO[bytes], link: int, at: int, directory: bytes, big: bool) -> int:
    """Append a directory, store its offset at `link`, and return the position of its own link."""
    sink.write(directory)
    end = sink.tell()
    sink.seek(link)
    sink.write(struct.pack("<Q" if big else "<I", at))
    sink.seek(end)
    entries: int = struct.unpack_from("<Q" if big else "<H", directory)[0]
    return at + (8 + 20 * entries if big else 2 + 12 * entries)
