"""EXIF blocks (EXIF 2.32, section 4.5), edited in place: rewriting would break the absolute offsets in maker notes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from PIL import ExifTags

__all__ = [
    "EXIF_PREFIX",
    "UNREADABLE_EXIF",
    "add_resolution",
    "list_tags",
    "read_resolution",
    "relocate_directory",
    "reset_orientation",
    "restore_undefined_types",
    "set_size",
]

EXIF_PREFIX = b"Exif\0\0"
UNREADABLE_EXIF = EXIF_PREFIX + b"?"
"""The value for a block that could not be read."""
BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8}
RATIONAL_TYPES = (5, 10)
"""Bytes per number of each type, and the types that consist of two numbers (TIFF 6.0, section 2)."""
THUMBNAIL, THUMBNAIL_BYTES = 0x201, 0x202
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
INCH, CENTIMETRE = 2, 3
RESOLUTION_TAGS = (ExifTags.Base.XResolution, ExifTags.Base.YResolution)


@dataclass
class ExifBlock:
    """The bytes after the prefix. Reading beyond their end raises struct.error."""

    data: bytearray
    order: str

    def read_number(self, kind: int, offset: int) -> int:
        """Read a SHORT or LONG."""
        value: int = struct.unpack_from(self.order + ("H" if kind == SHORT else "I"), self.data, offset)[0]
        return value

    def write_number(self, kind: int, offset: int, value: int) -> None:
        struct.pack_into(self.order + ("H" if kind == SHORT else "I"), self.data, offset, value)

    def read_directory(self, start: int) -> tuple[dict[int, int], int]:
        """Return the offset of each tag's entry, and the position of the link to the next directory."""
        count = self.read_number(SHORT, start)
        offsets = range(start + 2, start + 2 + 12 * count, 12)
        return {self.read_number(SHORT, offset): offset for offset in offsets}, start + 2 + 12 * count

    def read_first_directory(self) -> tuple[dict[int, int], int]:
        return self.read_directory(self.read_number(LONG, 4))

    def read_value(self, entries: dict[int, int], tag: int) -> int | None:
        """Return the value of a tag if it is one integer."""
        kind = self.read_number(SHORT, entries[tag] + 2) if tag in entries else None
        return self.read_number(kind, entries[tag] + 8) if kind in (SHORT, LONG) else None

    def replace_value(self, entries: dict[int, int], tag: int, kind: int, value: int) -> None:
        """Replace the value of a tag if it is one integer."""
        if self.read_value(entries, tag) is not None:
            self.write_number(SHORT, entries[tag] + 2, kind)
            self.write_number(kind, entries[tag] + 8, value)


def open_block(exif: bytes | None) -> ExifBlock | None:
    """Return the block, or None if there is none or its header is invalid."""
    data = bytearray((exif or b"").removeprefix(EXIF_PREFIX))
    order = ORDERS.get(bytes(data[:4]))
    return ExifBlock(data, order) if order else None


def list_tags(exif: bytes | None) -> set[int]:
    """Return the tags of the first directory, or none if it is damaged."""
    block = open_block(exif)
    try:
        return set(block.read_first_directory()[0]) if block else set()
    except struct.error:
        return set()


def reset_orientation(exif: bytes | None) -> tuple[int, bytes | None]:
    """Return the orientation of a block, 1-8, and the block with orientation 1 and without a thumbnail.

    Returns (1, None) if there is no block or its first directory is damaged.
    """
    block = open_block(exif)
    if block is None:
        return 1, None
    try:
        entries, link = block.read_first_directory()
        stated = block.read_value(entries, ExifTags.Base.Orientation) or 1
        block.replace_value(entries, ExifTags.Base.Orientation, SHORT, 1)
    except struct.error:
        return 1, None
    remove_thumbnail(block, link)
    return stated if 1 <= stated <= 8 else 1, EXIF_PREFIX + bytes(block.data)


def remove_thumbnail(block: ExifBlock, link: int) -> None:
    """Unlink the second directory, and erase the thumbnail: cut it off at the end, overwrite it elsewhere."""
    if len(block.data) < link + 4:
        return
    second = block.read_number(LONG, link)
    block.write_number(LONG, link, 0)
    try:
        entries, _ = block.read_directory(second)
        start, size = block.read_value(entries, THUMBNAIL), block.read_value(entries, THUMBNAIL_BYTES)
    except struct.error:
        return
    if start and size and block.data[start : start + 2] == b"\xff\xd8":  # not a JPEG: the offset is wrong
        end = min(start + size, len(block.data))
        block.data[start:end] = bytes(end - start) if end + 1 < len(block.data) else b""


def set_size(exif: bytes | None, width: int, height: int) -> bytes | None:
    """Return the block with a new image size, in px, in every tag that states one."""
    block = open_block(exif)
    if block is None or exif is None:
        return exif
    try:
        entries, _ = block.read_first_directory()
        inner = block.read_value(entries, ExifTags.IFD.Exif)
        directories = [entries] if inner is None else [entries, block.read_directory(inner)[0]]
        for tags in directories:
            for tag, value in (
                (ExifTags.Base.ImageWidth, width),
                (ExifTags.Base.ImageLength, height),
                (ExifTags.Base.ExifImageWidth, width),
                (ExifTags.Base.ExifImageHeight, height),
            ):
                block.replace_value(tags, tag, LONG, value)
    except struct.error:
        return exif
    return EXIF_PREFIX + bytes(block.data)


def read_resolution(exif: bytes | None) -> tuple[float, float] | None:
    """Return horizontal and vertical px per inch, or None if the block does not state them."""
    block = open_block(exif)
    if block is None:
        return None
    try:
        entries, _ = block.read_first_directory()
        unit = {INCH: 1.0, CENTIMETRE: 2.54}[block.read_value(entries, ExifTags.Base.ResolutionUnit) or INCH]
        offsets = [block.read_number(LONG, entries[tag] + 8) for tag in RESOLUTION_TAGS]
        across, down = (block.read_number(LONG, offset) / block.read_number(LONG, offset + 4) for offset in offsets)
    except (KeyError, ZeroDivisionError, struct.error):
        return None
    return across * unit, down * unit


def add_resolution(exif: bytes | None, dpi: tuple[float, float] | None) -> bytes | None:
    """Return the block with a resolution in px per inch, unless it states one. WebP and AVIF store it nowhere else.

    The first directory is rewritten at the end of the block, so that no other data moves.
    """
    if dpi is None or read_resolution(exif) is not None:
        return exif
    block = open_block(exif) or ExifBlock(bytearray(b"II*\0\x08\0\0\0" + bytes(6)), "<")
    try:
        entries, _ = block.read_first_directory()
    except struct.error:
        return exif
    kept = {tag: bytes(block.data[offset : offset + 12]) for tag, offset in entries.items()}
    block.data += bytes(len(block.data) % 2)
    for tag, value in zip(RESOLUTION_TAGS, dpi, strict=True):
        kept[tag] = struct.pack(block.order + "HHII", tag, RATIONAL, 1, len(block.data))
        block.data += struct.pack(block.order + "II", round(value * 10_000), 10_000)
    unit = ExifTags.Base.ResolutionUnit
    kept[unit] = struct.pack(block.order + "HHIHH", unit, SHORT, 1, INCH, 0)
    block.write_number(LONG, 4, len(block.data))
    block.data += struct.pack(block.order + "H", len(kept)) + b"".join(kept[tag] for tag in sorted(kept)) + bytes(4)
    return EXIF_PREFIX + bytes(block.data)


def restore_undefined_types(exif: bytes) -> bytes:
    """Return a block with BYTE values of the EXIF directory as UNDEFINED, the correct type, which Pillow changes."""
    block = open_block(exif)
    if block is None:
        return exif
    try:
        entries, _ = block.read_first_directory()
        inner = block.read_value(entries, ExifTags.IFD.Exif)
        for entry in block.read_directory(inner)[0].values() if inner else ():
            if block.read_number(SHORT, entry + 2) == BYTE:
                block.write_number(SHORT, entry + 2, UNDEFINED)
    except struct.error:
        return exif
    return EXIF_PREFIX + bytes(block.data)


def relocate_directory(exif: bytes | None, tag: int, start: int, big: bool) -> bytes:
    """Return the sub-directory end `tag` as a little-endian directory at offset `start` of a TIFF; b"" if none.

    Value types are kept, which Pillow would change. The nested Interoperability directory is left out.
    """
    block, kept = open_block(exif), []
    if block is None:
        return b""
    try:
        entries, _ = block.read_first_directory()
        offset = block.read_value(entries, tag)
        inner = block.read_directory(offset)[0] if offset else {}
        for name, entry in sorted(inner.items()):
            kind, count = block.read_number(SHORT, entry + 2), block.read_number(LONG, entry + 4)
            size = TYPE_BYTES.get(kind, 0) * count * (2 if kind in RATIONAL_TYPES else 1)
            where = entry + 8 if size <= 4 else block.read_number(LONG, entry + 8)
            data = bytes(block.data[where : where + size])
            if size and len(data) == size and name != ExifTags.IFD.Interop:
                kept.append((name, kind, count, data if block.order == "<" else swap_bytes(data, TYPE_BYTES[kind])))
    except struct.error:
        return b""
    return build_tiff_directory(kept, start, big) if kept else b""


def swap_bytes(data: bytes, width: int) -> bytes:
    """Reverse the byte order of numbers of `width` bytes."""
    return b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))


def build_tiff_directory(entries: list[tuple[int, int, int, bytes]], start: int, big: bool) -> bytes:
    """Return entries (tag, type, count, data) as a little-endian directory at offset `start` of a TIFF."""
    count, number = ("<Q", "Q") if big else ("<H", "I")
    room = struct.calcsize(number)
    end = start + struct.calcsize(count) + len(entries) * (4 + 2 * room) + room
    head, data = struct.pack(count, len(entries)), b""
    for tag, kind, length, value in entries:
        inside = len(value) <= room
        stored = value.ljust(room, b"\0") if inside else struct.pack("<" + number, end + len(data))
        head += struct.pack("<HH" + number, tag, kind, length) + stored
        data += b"" if inside else value + bytes(len(value) % 2)
    return head + bytes(room) + data
