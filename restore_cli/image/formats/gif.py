"""GIF: the structure of a file, checked to its end (GIF89a Specification)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from restore_cli.image.formats.sniff import read_exactly
from restore_cli.image.reasons import UnreadableImage

__all__ = ["GifStructure", "scan_gif"]

EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, 0x3B
GRAPHIC_CONTROL = 0xF9
HAS_PALETTE = 0x80
HAS_TRANSPARENT_COLOUR = 0x01
MAX_LZW_RATIO = 4096
"""pixels per compressed byte, more than LZW with codes of 12 bits can reach"""


@dataclass
class GifStructure:
    """What the blocks of a GIF state."""

    width: int
    height: int
    frames: int = 0
    transparent: bool = False
    """whether any frame has a transparent colour"""
    compressed: int = 0
    """bytes of pixel data"""


def scan_gif(stream: IO[bytes]) -> GifStructure:
    """Read all blocks without decoding pixels. Raises UnreadableImage if the file is damaged or ends early."""
    stream.seek(0)
    head = read_exactly(stream, 13, "GIF")
    found = GifStructure(int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little"))
    skip_palette(stream, head[10])
    while (kind := read_exactly(stream, 1, "GIF")[0]) != TRAILER:
        if kind == EXTENSION:
            read_extension(stream, found)
        elif kind == IMAGE:
            read_image(stream, found)
        else:
            raise UnreadableImage(f"damaged GIF: a block of unknown kind {kind:#04x}")
    if not found.frames:
        raise UnreadableImage("damaged GIF: there is no pixel data")
    if found.width * found.height > found.compressed * MAX_LZW_RATIO:
        stated = f"{found.width}×{found.height} px of its header"
        raise UnreadableImage(f"damaged GIF: {found.compressed} bytes of pixel data cannot expand to the {stated}")
    return found


def read_extension(stream: IO[bytes], found: GifStructure) -> None:
    label = read_exactly(stream, 1, "GIF")[0]
    data = read_exactly(stream, read_exactly(stream, 1, "GIF")[0], "GIF")
    if label == GRAPHIC_CONTROL and data:
        found.transparent |= bool(data[0] & HAS_TRANSPARENT_COLOUR)
    if data:
        skip_blocks(stream)


def read_image(stream: IO[bytes], found: GifStructure) -> None:
    head = read_exactly(stream, 9, "GIF")
    left, top, width, height = (int.from_bytes(head[i : i + 2], "little") for i in range(0, 8, 2))
    if left + width > found.width or top + height > found.height:
        size = f"{found.width}×{found.height} px"
        raise UnreadableImage(f"damaged GIF: frame {found.frames + 1} reaches beyond the {size} of its header")
    skip_palette(stream, head[8])
    read_exactly(stream, 1, "GIF")  # the size of the first code
    found.compressed += skip_blocks(stream)
    found.frames += 1


def skip_palette(stream: IO[bytes], flags: int) -> None:
    if flags & HAS_PALETTE:
        read_exactly(stream, 3 << ((flags & 7) + 1), "GIF")


def skip_blocks(stream: IO[bytes]) -> int:
    """Skip data blocks and return their bytes."""
    total = 0
    while size := read_exactly(stream, 1, "GIF")[0]:
        total += len(read_exactly(stream, size, "GIF"))
    return total
