"""The header of a JPEG XL file (ISO/IEC 18181-1, annexes C and D): what its pixels are, before they are decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from restore_cli.image.reasons import UnreadableImage, UnsupportedImage

__all__ = ["JxlHeader", "read_header"]

HEADER_BYTES = 1 << 16
"""bytes of the codestream that are searched; only names of extra channels can make a header this long"""
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
SIZES = ((9, 1), (13, 1), (18, 1), (30, 1))
ALPHA = 0
"""type of an extra channel"""
Choice = tuple[int, int]
"""number of bits, and what is added to their value"""


@dataclass(frozen=True)
class JxlHeader:
    """What the header of a still image states. Sizes are in px, after the orientation."""

    width: int
    height: int
    depth: int
    """8 or 16 for integers, 32 for floating point"""
    alpha: bool
    premultiplied: bool


class Bits:
    """Reads numbers from bytes, lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next `count` bits. Raises UnreadableImage."""
        if count > self.left:
            raise UnreadableImage("damaged JPEG XL: truncated, the end of its header is missing")
        found = self.value & (1 << count) - 1
        self.value >>= count
        self.left -= count
        return found

    def choose(self, *choices: Choice) -> int:
        """Return a number in one of four ranges, which two bits select: U32 of the standard."""
        bits, base = choices[self.read(2)]
        return base + self.read(bits)


def read_header(data: bytes) -> JxlHeader:
    """Read the header of a file. Raises UnreadableImage, UnsupportedImage for what the library would drop."""
    bits = Bits(find_codestream(data)[2:HEADER_BYTES])
    width, height = read_size(bits)
    if bits.read(1):  # all fields have their default values
        return JxlHeader(width, height, 8, False, False)
    if bits.read(1):
        if bits.read(3) >= 4:  # turned by 90°
            width, height = height, width
        if bits.read(1):  # the size at which it is shown
            read_size(bits)
        if bits.read(1):
            read_preview_size(bits)
        if bits.read(1):
            raise UnsupportedImage("animated JPEG XL files cannot be read", "kind")
    depth = read_depth(bits)
    bits.read(1)  # whether 16-bit buffers suffice
    alphas = [read_extra_channel(bits) for _ in range(bits.choose((0, 0), (0, 1), (4, 2), (12, 1)))]
    if len(alphas) > 1:
        raise UnsupportedImage("has more than one transparency channel", "kind")
    return JxlHeader(width, height, depth, bool(alphas), any(alphas))


def find_codestream(data: bytes) -> bytes:
    """Return at least the beginning of the codestream, which may be cut into boxes. Raises UnreadableImage."""
    if data.startswith(b"\xff\x0a"):
        return data[:HEADER_BYTES]
    found, start = b"", 0
    while start + 8 <= len(data) and len(found) < HEADER_BYTES:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and body + 8 <= len(data):
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = start + size if size else len(data)
        if stop <= start:
            break
        if kind in (b"jxlc", b"jxlp"):
            found += data[body + 4 * (kind == b"jxlp") : min(stop, body + HEADER_BYTES)]
        start = stop
    if not found.startswith(b"\xff\x0a"):
        raise UnreadableImage("damaged JPEG XL: it contains no image")
    return found


def read_size(bits: Bits) -> tuple[int, int]:
    """Return (width, height)."""
    small = bits.read(1)
    height = 8 * (1 + bits.read(5)) if small else bits.choose(*SIZES)
    if ratio := bits.read(3):
        above, below = RATIOS[ratio - 1]
        return height * above // below, height
    return 8 * (1 + bits.read(5)) if small else bits.choose(*SIZES), height


def read_preview_size(bits: Bits) -> None:
    """Skip the size of a preview."""
    sides = ((0, 16), (0, 32), (5, 1), (9, 33)) if bits.read(1) else ((6, 1), (8, 65), (10, 321), (12, 1345))
    bits.choose(*sides)
    if not bits.read(3):
        bits.choose(*sides)


def read_depth(bits: Bits) -> int:
    """Return 8, 16 or 32. Raises UnsupportedImage for integers of more than 16 bits."""
    if bits.read(1):
        bits.choose((0, 32), (0, 16), (0, 24), (6, 1))
        bits.read(4)
        return 32
    depth = bits.choose((0, 8), (0, 10), (0, 12), (6, 1))
    if depth > 16:
        raise UnsupportedImage(f"integers of {depth} bits cannot be read", "depth")
    return 8 if depth <= 8 else 16


def read_extra_channel(bits: Bits) -> bool:
    """Read the properties of a transparency channel. Return whether colours are multiplied by it.

    Raises UnsupportedImage for channels of other types.
    """
    if bits.read(1):  # all fields have their default values
        return False
    kind = bits.choose((0, 0), (0, 1), (4, 2), (6, 18))
    if kind != ALPHA:
        raise UnsupportedImage("has extra channels that are not transparency", "kind")
    read_depth(bits)
    bits.choose((0, 0), (0, 3), (0, 4), (3, 1))  # its resolution
    bits.read(8 * bits.choose((0, 0), (4, 0), (5, 16), (10, 48)))  # its name
    return bool(bits.read(1))
