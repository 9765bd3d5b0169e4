"""What a file claims about itself, and whether that can be held in 8 bits: read before any pixel is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from PIL import TiffImagePlugin

__all__ = ["TITLES", "Header", "Unreadable", "Unsupported", "check", "sniff"]

TITLES = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "TIFF": "TIFF", "BMP": "BMP", "AVIF": "AVIF"}
_KNOWN = ", ".join(TITLES.values()) + " are supported"
_FOREIGN = {
    b"GIF8": "a GIF",
    b"8BPS": "a Photoshop",
    b"%PDF": "a PDF",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000",
    b"\x76\x2f\x31\x01": "an OpenEXR",
}


@dataclass(frozen=True)
class Header:
    """A file as `decode` would give it, known without decoding. px, after EXIF orientation."""

    format: str
    width: int
    height: int
    channels: int  # 1 or 3
    alpha: bool
    jpeg_quality: int | None = None
    subsampling: str | None = None


class Unsupported(Exception):
    """A sound file of a kind that 8-bit gray and RGB would damage. `step` names the command that converts it."""

    def __init__(self, what: str, step: str = "") -> None:
        super().__init__(what)
        self.what, self.step = what, step


class Unreadable(Exception):
    """A damaged file."""


def sniff(head: bytes) -> str:
    """The format that the first 32 bytes belong to, whatever the file is called. Raises Unsupported."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1", b"msf1"):
        return "AVIF"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis"):
        raise Unsupported(f"a HEIC image; {_KNOWN}", "kind")
    for signature, title in _FOREIGN.items():
        if head.startswith(signature):
            raise Unsupported(f"{title} image; {_KNOWN}", "kind")
    raise Unreadable(f"not an image by its content; {_KNOWN}")


def check(stream: IO[bytes], format: str) -> None:
    """Returns if Pillow reads this file without a loss that it keeps quiet about; else raises what is wrong."""
    stream.seek(0)
    if format == "PNG":
        _check_png(stream.read(33))
    elif format == "TIFF":
        _check_tiff(stream)
    elif format == "AVIF":
        _check_depth(_avif_bits(stream.read()))
    stream.seek(0)


def _check_depth(bits: int) -> None:
    if bits > 8:
        raise Unsupported(f"{bits} bits per channel, 8 are supported so far", "depth")


def _check_png(head: bytes) -> None:
    """Pillow opens 16-bit RGB as 8-bit, so the depth is read here."""
    if len(head) < 26 or head[12:16] != b"IHDR":
        raise Unreadable("damaged PNG: it ends in its header")
    width, height, bits = struct.unpack(">IIB", head[16:25])
    if not width or not height:
        raise Unreadable(f"damaged PNG: it claims {width}×{height} px")
    _check_depth(bits)


def _check_tiff(stream: IO[bytes]) -> None:
    """TIFF holds anything; Pillow reads some of it as something else (signed as unsigned, extra channels as none)."""
    tags = _tiff_tags(stream)
    formats, bits = _numbers(tags, TiffImagePlugin.SAMPLEFORMAT, 1), _numbers(tags, TiffImagePlugin.BITSPERSAMPLE, 1)
    if 3 in formats:
        raise Unsupported(f"{max(bits)}-bit floating-point samples, 8-bit integers are supported so far", "depth")
    _check_depth(max(bits))
    if set(formats) - {1, 4}:  # 1: unsigned, 4: not stated
        raise Unsupported("signed samples, unsigned ones are supported so far", "depth")
    _check_tiff_colour(tags)
    _check_tiff_ends(tags, stream)


def _check_tiff_colour(tags: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    (photometric,) = _numbers(tags, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)[:1]
    (compression,) = _numbers(tags, TiffImagePlugin.COMPRESSION, 1)[:1]
    extra = _numbers(tags, TiffImagePlugin.EXTRASAMPLES, 2)
    if photometric == 6 and compression != 7:  # inside JPEG compression libtiff turns YCbCr into RGB
        raise Unsupported("YCbCr colours, gray and RGB are supported so far", "colour")
    if photometric in (5, 8, 9, 10):
        name = "CMYK" if photometric == 5 else "Lab"
        raise Unsupported(f"{name} colours, gray and RGB are supported so far", "colour")
    if len(extra) > 1 or extra[0] == 0:
        raise Unsupported("extra channels that are not stated to be transparency", "kind")


def _check_tiff_ends(tags: TiffImagePlugin.ImageFileDirectory_v2, stream: IO[bytes]) -> None:
    """libtiff says on standard error what it thinks of a short file: find out before it does."""
    size = stream.seek(0, 2)
    for starts, counts in (
        (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS),
        (TiffImagePlugin.TILEOFFSETS, TiffImagePlugin.TILEBYTECOUNTS),
    ):
        spans = zip(_numbers(tags, starts, 0), _numbers(tags, counts, 0), strict=False)
        if any(start + count > size for start, count in spans):
            raise Unreadable("damaged TIFF: it ends before its pixels do")


def _tiff_tags(stream: IO[bytes]) -> TiffImagePlugin.ImageFileDirectory_v2:
    head = stream.read(8)
    try:
        if b"+" in head[2:4]:  # BigTIFF
            head += stream.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        stream.seek(tags.next)
        tags.load(stream)
    except Exception as error:  # the parser raises whatever the bytes lead it to
        raise Unreadable(f"damaged TIFF: {error}") from error
    if TiffImagePlugin.IMAGEWIDTH not in tags or TiffImagePlugin.IMAGELENGTH not in tags:
        raise Unreadable("damaged TIFF: its list of tags is not whole")
    return tags


def _numbers(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> tuple[int, ...]:
    value = tags.get(tag, default)
    values = value if isinstance(value, tuple) else (value,)
    if not values or not all(isinstance(item, int) for item in values):
        raise Unreadable(f"damaged TIFF: tag {tag} is {str(value)[:20]!r}")
    return values


def _avif_bits(data: bytes) -> int:
    """The deepest coding in the file: bit 6 of the third byte of av1C means over 8, bit 5 then means 12."""
    depths = [8]
    for record in _find_boxes(data, (b"meta", b"iprp", b"ipco", b"av1C"), 0, len(data)):
        flags = record[2] if len(record) > 2 else 0
        depths.append((12 if flags & 0x20 else 10) if flags & 0x40 else 8)
    return max(depths)


def _find_boxes(data: bytes, path: tuple[bytes, ...], start: int, end: int) -> Iterator[bytes]:
    """Contents of each box at `path` (ISO 14496-12, section 4.2); stops at the first size that cannot be."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and body + 8 <= end:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = start + size if size else end
        if not body <= stop <= end:
            return
        if kind == path[0] and len(path) == 1:
            yield data[body:stop]
        elif kind == path[0]:
            yield from _find_boxes(data, path[1:], body + (4 if kind == b"meta" else 0), stop)  # meta has a version
        start = stop
