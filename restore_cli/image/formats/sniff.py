"""What a file claims about itself, read before any pixel is."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from restore_cli.image.formats.capabilities import FORMAT_NAMES
from restore_cli.image.reasons import UnreadableImage, UnsupportedImage

__all__ = ["clear_premultiplied_flag", "detect_format", "read_avif_depth", "read_nclx"]

_HEVC = (b"heic", b"heix", b"hevc", b"heim", b"heis")
_KNOWN = ", ".join(FORMAT_NAMES.values()) + " are supported"
_UNSUPPORTED = {
    b"GIF8": "a GIF",
    b"8BPS": "a Photoshop",
    b"%PDF": "a PDF",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000",
    b"\x76\x2f\x31\x01": "an OpenEXR",
}


def detect_format(head: bytes) -> str:
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
    if head[4:8] == b"ftyp":
        brands = [head[at : at + 4] for at in (8, *range(16, 32, 4))]  # the main one, then others
        if brands[0] in _HEVC or (brands[0] in (b"mif1", b"msf1") and any(brand in _HEVC for brand in brands)):
            return "HEIC"
        if brands[0] in (b"avif", b"avis", b"mif1", b"msf1"):
            return "AVIF"
    for signature, title in _UNSUPPORTED.items():
        if head.startswith(signature):
            raise UnsupportedImage(f"{title} image; {_KNOWN}", "kind")
    raise UnreadableImage(f"not an image by its content; {_KNOWN}")


def read_avif_depth(data: bytes) -> int:
    """The deepest coding in the file: bit 6 of the third byte of av1C means over 8, bit 5 then means 12."""
    depths = [8]
    for _, record in _find_boxes(data, (b"meta", b"iprp", b"ipco", b"av1C"), 0, len(data)):
        flags = record[2] if len(record) > 2 else 0
        depths.append((12 if flags & 0x20 else 10) if flags & 0x40 else 8)
    return max(depths)


def read_nclx(data: bytes) -> bytes | None:
    """What an AVIF or HEIC says of its colours by number (nclx), as a PNG's cICP does."""
    for _, record in _find_boxes(data, (b"meta", b"iprp", b"ipco", b"colr"), 0, len(data)):
        if record[:4] == b"nclx" and len(record) >= 8:
            return bytes([record[5], record[7], 0, 1])
    return None


def clear_premultiplied_flag(data: bytes) -> bytes:
    """An AVIF file that does not say that its colours are multiplied by its transparency; the same where none does."""
    plain = bytearray(data)
    for start, _ in _find_boxes(data, (b"meta", b"iref", b"prem"), 0, len(data)):
        plain[start - 4 : start] = b"skip"
    return bytes(plain)


def _find_boxes(data: bytes, path: tuple[bytes, ...], start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Offset and contents of each box at `path` (ISO 14496-12, section 4.2); stops at the first impossible size."""
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
            versioned = kind in (b"meta", b"iref")
            yield from _find_boxes(data, path[1:], body + (4 if versioned else 0), stop)
        start = stop
