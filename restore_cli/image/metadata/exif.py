"""EXIF blocks (EXIF 2.32, section 4.5), patched and not written anew: makers' notes hold absolute offsets."""

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
"""Stands for a block that could not be read."""
BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8}
RATIONAL_TYPES = (5, 10)
"""Bytes of a number of each kind, and the kinds that are two numbers (TIFF 6.0, section 2)."""
THUMBNAIL, THUMBNAIL_BYTES = 0x201, 0x202
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
INCH, CENTIMETRE = 2, 3
RESOLUTION_TAGS = (ExifTags.Base.XResolution, ExifTags.Base.YResolution)


@dataclass
class ExifBlock:
    """The bytes behind the prefix. Reading beyond their end is a struct.error."""

    data: bytearray
    order: str

    def number(self, kind: int, place: int) -> int:
        """A short or a long."""
        value: int = struct.unpack_from(self.order + ("H" if kind == SHORT else "I"), self.data, place)[0]
        return value

    def put(self, kind: int, place: int, value: int) -> None:
        """The same, written."""
        struct.pack_into(self.order + ("H" if kind == SHORT else "I"), self.data, place, value)

    def folder(self, start: int) -> tuple[dict[int, int], int]:
        """Where the entry of each tag stands, and where the offset of the next folder does."""
        count = self.number(SHORT, start)
        places = range(start + 2, start + 2 + 12 * count, 12)
        return {self.number(SHORT, place): place for place in places}, start + 2 + 12 * count

    def value(self, entries: dict[int, int], tag: int) -> int | None:
        """A tag of one whole number."""
        kind = self.number(SHORT, entries[tag] + 2) if tag in entries else None
        return self.number(kind, entries[tag] + 8) if kind in (SHORT, LONG) else None

    def replace(self, entries: dict[int, int], tag: int, kind: int, value: int) -> None:
        """The whole number of a tag, where there is one."""
        if self.value(entries, tag) is not None:
            self.put(SHORT, entries[tag] + 2, kind)
            self.put(kind, entries[tag] + 8, value)


def open_block(exif: bytes | None) -> ExifBlock | None:
    """The block, or None for what is none."""
    data = bytearray((exif or b"").removeprefix(EXIF_PREFIX))
    order = ORDERS.get(bytes(data[:4]))
    return ExifBlock(data, order) if order else None


def list_tags(exif: bytes | None) -> set[int]:
    """The tags of the first folder; none of a block that cannot be read."""
    block = open_block(exif)
    try:
        return set(block.folder(block.number(LONG, 4))[0]) if block else set()
    except struct.error:
        return set()


def reset_orientation(exif: bytes | None) -> tuple[int, bytes | None]:
    """The orientation that a block states, and the block with that tag at 1 and without its thumbnail.

    A block whose first folder cannot be read is worth nothing: (1, None).
    """
    block = open_block(exif)
    if block is None:
        return 1, None
    try:
        entries, link = block.folder(block.number(LONG, 4))
        stated = block.value(entries, ExifTags.Base.Orientation) or 1
        block.replace(entries, ExifTags.Base.Orientation, SHORT, 1)
    except struct.error:
        return 1, None
    remove_thumbnail(block, link)
    return stated if 1 <= stated <= 8 else 1, EXIF_PREFIX + bytes(block.data)


def remove_thumbnail(block: ExifBlock, link: int) -> None:
    """Its folder, the second one, is unlinked, and its picture cut off or blanked."""
    if len(block.data) < link + 4:
        return
    second = block.number(LONG, link)
    block.put(LONG, link, 0)
    try:
        entries, _ = block.folder(second)
        start, size = block.value(entries, THUMBNAIL), block.value(entries, THUMBNAIL_BYTES)
    except struct.error:
        return
    if start and size and block.data[start : start + 2] == b"\xff\xd8":  # else it is not where the folder says
        end = min(start + size, len(block.data))
        block.data[start:end] = bytes(end - start) if end + 1 < len(block.data) else b""


def set_size(exif: bytes | None, width: int, height: int) -> bytes | None:
    """The block with the picture's size, where it states one."""
    block = open_block(exif)
    if block is None or exif is None:
        return exif
    try:
        entries, _ = block.folder(block.number(LONG, 4))
        inner = block.value(entries, ExifTags.IFD.Exif)
        folders = [entries] if inner is None else [entries, block.folder(inner)[0]]
        for tags in folders:
            for tag, value in (
                (ExifTags.Base.ImageWidth, width),
                (ExifTags.Base.ImageLength, height),
                (ExifTags.Base.ExifImageWidth, width),
                (ExifTags.Base.ExifImageHeight, height),
            ):
                block.replace(tags, tag, LONG, value)
    except struct.error:
        return exif
    return EXIF_PREFIX + bytes(block.data)


def read_resolution(exif: bytes | None) -> tuple[float, float] | None:
    """Px per inch, across and down."""
    block = open_block(exif)
    if block is None:
        return None
    try:
        entries, _ = block.folder(block.number(LONG, 4))
        unit = {INCH: 1.0, CENTIMETRE: 2.54}[block.value(entries, ExifTags.Base.ResolutionUnit) or INCH]
        places = [
            block.number(LONG, entries[tag] + 8) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution)
        ]
        across, down = (block.number(LONG, place) / block.number(LONG, place + 4) for place in places)
    except (KeyError, ZeroDivisionError, struct.error):
        return None
    return across * unit, down * unit


def add_resolution(exif: bytes | None, dpi: tuple[float, float] | None) -> bytes | None:
    """The block with a resolution where it has none; for formats that have no other place for it.

    Its first folder is written anew behind everything else, so that nothing moves.
    """
    if dpi is None or read_resolution(exif) is not None:
        return exif
    block = open_block(exif) or ExifBlock(bytearray(b"II*\0\x08\0\0\0" + bytes(6)), "<")
    try:
        entries, _ = block.folder(block.number(LONG, 4))
    except struct.error:
        return exif
    kept = {tag: bytes(block.data[place : place + 12]) for tag, place in entries.items()}
    block.data += bytes(len(block.data) % 2)
    for tag, value in zip(RESOLUTION_TAGS, dpi, strict=True):
        kept[tag] = struct.pack(block.order + "HHII", tag, RATIONAL, 1, len(block.data))
        block.data += struct.pack(block.order + "II", round(value * 10_000), 10_000)
    unit = ExifTags.Base.ResolutionUnit
    kept[unit] = struct.pack(block.order + "HHIHH", unit, SHORT, 1, INCH, 0)
    block.put(LONG, 4, len(block.data))
    block.data += struct.pack(block.order + "H", len(kept)) + b"".join(kept[tag] for tag in sorted(kept)) + bytes(4)
    return EXIF_PREFIX + bytes(block.data)


def restore_undefined_types(exif: bytes) -> bytes:
    """A block that Pillow wrote, whose raw bytes are of kind "byte": the photo's folder knows "undefined" instead."""
    block = open_block(exif)
    if block is None:
        return exif
    try:
        entries, _ = block.folder(block.number(LONG, 4))
        inner = block.value(entries, ExifTags.IFD.Exif)
        for entry in block.folder(inner)[0].values() if inner else ():
            if block.number(SHORT, entry + 2) == BYTE:
                block.put(SHORT, entry + 2, UNDEFINED)
    except struct.error:
        return exif
    return EXIF_PREFIX + bytes(block.data)


def relocate_directory(exif: bytes | None, tag: int, start: int, big: bool) -> bytes:
    """A sub-folder of the block as a little-endian one that begins at `start` of a TIFF; empty where there is none.

    Kinds stay as they are, which they would not if Pillow wrote it; the folder inside a folder is left out.
    """
    block, kept = open_block(exif), []
    if block is None:
        return b""
    try:
        entries, _ = block.folder(block.number(LONG, 4))
        place = block.value(entries, tag)
        inner = block.folder(place)[0] if place else {}
        for name, entry in sorted(inner.items()):
            kind, count = block.number(SHORT, entry + 2), block.number(LONG, entry + 4)
            size = TYPE_BYTES.get(kind, 0) * count * (2 if kind in RATIONAL_TYPES else 1)
            where = entry + 8 if size <= 4 else block.number(LONG, entry + 8)
            data = bytes(block.data[where : where + size])
            if size and len(data) == size and name != ExifTags.IFD.Interop:
                kept.append((name, kind, count, data if block.order == "<" else swap_bytes(data, TYPE_BYTES[kind])))
    except struct.error:
        return b""
    return build_tiff_directory(kept, start, big) if kept else b""


def swap_bytes(data: bytes, width: int) -> bytes:
    """Numbers of that many bytes, each turned around."""
    return b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))


def build_tiff_directory(entries: list[tuple[int, int, int, bytes]], start: int, big: bool) -> bytes:
    """Tag, kind, count and data of each entry -> a little-endian folder that begins at `start`."""
    count, number = ("<Q", "Q") if big else ("<H", "I")
    room = struct.calcsize(number)
    behind = start + struct.calcsize(count) + len(entries) * (4 + 2 * room) + room
    head, data = struct.pack(count, len(entries)), b""
    for tag, kind, length, value in entries:
        inside = len(value) <= room
        stored = value.ljust(room, b"\0") if inside else struct.pack("<" + number, behind + len(data))
        head += struct.pack("<HH" + number, tag, kind, length) + stored
        data += b"" if inside else value + bytes(len(value) % 2)
    return head + bytes(room) + data
