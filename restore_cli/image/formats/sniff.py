"""Format detection from the first bytes of a file, and the properties stored in AVIF and HEIC boxes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

from restore_cli.image.formats.capabilities import FORMAT_NAMES
from restore_cli.image.reasons import UnreadableImage, UnsupportedImage

__all__ = ["clear_premultiplied_flag", "detect_format", "read_avif_depth", "read_exactly", "read_nclx"]

_HEVC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis")
_SUPPORTED = "supported formats: " + ", ".join(FORMAT_NAMES.values())
_UNSUPPORTED = {
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\x76\x2f\x31\x01": "OpenEXR",
}


def detect_format(head: bytes) -> str:
    """Return the format of a file from its first 32 bytes: a key of FORMAT_NAMES.

    Raises UnsupportedImage for other known formats, UnreadableImage for everything else.
    """
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
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"\x00\x00\x00\x0cJXL ", b"\xff\x0a")):
        return "JXL"
    if head[4:8] == b"ftyp":
        brands = [head[at : at + 4] for at in (8, *range(16, 32, 4))]  # the major brand, then compatible ones
        generic = brands[0] in (b"mif1", b"msf1")
        if brands[0] in _HEVC_BRANDS or (generic and any(brand in _HEVC_BRANDS for brand in brands)):
            return "HEIC"
        if generic or brands[0] in (b"avif", b"avis"):
            return "AVIF"
    for signature, name in _UNSUPPORTED.items():
        if head.startswith(signature):
            raise UnsupportedImage(f"{name} files cannot be read; {_SUPPORTED}", "kind")
    raise UnreadableImage(f"not an image in a known format; {_SUPPORTED}")


def read_exactly(stream: IO[bytes], count: int, format: str) -> bytes:
    """Read `count` bytes of a file of `format`. Raises UnreadableImage if the file ends before."""
    data = stream.read(count)
    if len(data) < count:
        raise UnreadableImage(f"damaged {FORMAT_NAMES[format]}: truncated, the end of the file is missing")
    return data


def read_avif_depth(data: bytes) -> int:
    """Return the largest bit depth in an AVIF file: 8, 10 or 12.

    In the third byte of an av1C box, bit 6 means more than 8 bits; bit 5 then distinguishes 12 from 10.
    """
    depths = [8]
    for _, record in _find_boxes(data, (b"meta", b"iprp", b"ipco", b"av1C"), 0, len(data)):
        flags = record[2] if len(record) > 2 else 0
        depths.append((12 if flags & 0x20 else 10) if flags & 0x40 else 8)
    return max(depths)


def read_nclx(data: bytes) -> bytes | None:
    """Return the colour codes (nclx) of an AVIF or HEIC file in the layout of a PNG's cICP chunk, or None."""
    for _, record in _find_boxes(data, (b"meta", b"iprp", b"ipco", b"colr"), 0, len(data)):
        if record[:4] == b"nclx" and len(record) >= 8:
            return bytes([record[5], record[7], 0, 1])
    return None


def clear_premultiplied_flag(data: bytes) -> bytes:
    """Return an AVIF file whose colours are no longer marked as premultiplied. The pixels stay the same."""
    plain = bytearray(data)
    for start, _ in _find_boxes(data, (b"meta", b"iref", b"prem"), 0, len(data)):
        plain[start - 4 : start] = b"skip"
    return bytes(plain)


def _find_boxes(data: bytes, path: tuple[bytes, ...], start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, contents) of each box at `path` (ISO 14496-12, section 4.2). Stop at the first invalid size."""
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
            yield body, data[body:stop]
        elif kind == path[0]:
            version_bytes = 4 if kind in (b"meta", b"iref") else 0
            yield from _find_boxes(data, path[1:], body + version_bytes, stop)
        start = stop
