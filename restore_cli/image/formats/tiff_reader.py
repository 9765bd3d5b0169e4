"""TIFF directories: what each page says of itself (TIFF 6.0 and BigTIFF), checked before libtiff sees it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import IO

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from restore_cli.image.formats.patched import Patch
from restore_cli.image.formats.samples import unpremultiply, ycbcr_to_rgb
from restore_cli.image.metadata.collect import (
    DESCRIPTIVE_TAGS,
    SUB_DIRECTORIES,
    build_metadata,
    select_descriptive_tags,
)
from restore_cli.image.metadata.exif import UNREADABLE_EXIF, list_tags, restore_undefined_types
from restore_cli.image.picture import Metadata, Samples
from restore_cli.image.reasons import UnreadableImage, UnsupportedImage

__all__ = ["TiffPage", "make_alpha_patch", "read_page_metadata", "read_pages"]

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, STRIP_BYTES, TILES, TILE_BYTES = 273, 279, 324, 325
ORIENTATION, SAMPLES, ACROSS, DOWN, UNIT, EXTRA, SAMPLE_FORMAT = 274, 277, 282, 283, 296, 338, 339
XMP, IPTC, ICC, PREDICTOR = 700, 33723, 34675, 317
SUBFILE, REDUCED = 254, 1
PLANES, SEPARATE = 284, 2
SHORT = 3
LUMA, SUBSAMPLING, LEVELS = 529, 530, 532
RGB, CMYK, YCBCR, LAB = 2, 5, 6, 8
FLOATING = 3
MAX_PAGES = 10_000
TAG_NAMES = {
    ICC: "its colour profile",
    XMP: "its XMP",
    IPTC: "its IPTC",
    **dict.fromkeys(SUB_DIRECTORIES, "its EXIF"),
    **{int(tag): f"its tag {tag.name}" for tag in DESCRIPTIVE_TAGS},
}
"""What is kept of a page beside its pixels."""
CHANNELS = {0: 1, 1: 1, 2: 3, 3: 3, 5: 4, 6: 3, 8: 3}
"""Photometric interpretations and their channels once read: gray, gray, RGB, palette, CMYK, YCbCr, Lab."""


@dataclass(frozen=True)
class TiffPage:
    """One picture of the file."""

    index: int
    """in the file, where thumbnails count"""
    tags: ImageFileDirectory_v2
    exif: bytes | None
    offset: int
    """of its list of tags in the file"""

    def numbers(self, tag: int, default: int) -> tuple[int, ...]:
        """The whole numbers of a tag. Raises Unreadable."""
        value = self.tags.get(tag, default)
        values = value if isinstance(value, tuple) else (value,)
        if not values or not all(isinstance(item, int) for item in values):
            raise UnreadableImage(f"damaged TIFF: tag {tag} is {str(value)[:20]!r}")
        return values

    def number(self, tag: int, default: int) -> int:
        """The first of them."""
        return self.numbers(tag, default)[0]

    @property
    def depth(self) -> int:
        """8, 16 or 32 (floating point); 16 of Lab in floating point, which becomes sRGB."""
        bits = max(self.numbers(BITS, 1))
        return 8 if bits <= 8 else min(bits, 16) if self.number(PHOTOMETRIC, 0) == LAB else bits

    @property
    def channels(self) -> int:
        """1 gray, 3 colour; alpha apart."""
        return 1 if self.number(PHOTOMETRIC, 0) < 2 else 3

    @property
    def alpha(self) -> str | None:
        """How transparency is kept: "associated" (multiplied into the colours), "free", or None for none."""
        if EXTRA not in self.tags:
            return None
        return "associated" if self.number(EXTRA, 2) == 1 else "free"

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Across and down."""
        unit = {2: 1.0, 3: 2.54}.get(self.number(UNIT, 2))
        try:
            across, down = float(self.tags[ACROSS]), float(self.tags[DOWN])
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        return (across * unit, down * unit) if unit else None

    @property
    def raw_ycbcr(self) -> bool:
        """Whether libtiff gives luma and chroma as they are: not where it unpacks JPEG or few chroma samples."""
        plain = self.number(COMPRESSION, 1) not in (6, 7) and self.numbers(SUBSAMPLING, 2) == (1, 1)
        return self.number(PHOTOMETRIC, 0) == YCBCR and plain

    @property
    def finish(self) -> Callable[[Samples], Samples] | None:
        """What turns its rows into RGB or gray with alpha apart; None where they are."""
        if self.raw_ycbcr:
            return partial(ycbcr_to_rgb, luma=self.luma, levels=self.levels)
        if self.alpha != "associated":
            return None
        return partial(unpremultiply, white_is_zero=self.number(PHOTOMETRIC, 0) == 0 and self.depth < 32)

    @property
    def luma(self) -> tuple[float, ...]:
        """The parts of red, green and blue in it (TIFF 6.0, section 21)."""
        return self.reals(LUMA, (0.299, 0.587, 0.114))

    @property
    def levels(self) -> tuple[float, ...]:
        """Black and white of luma, zero and full of each chroma."""
        return self.reals(LEVELS, (0, 255, 128, 255, 128, 255))

    def reals(self, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
        """As many numbers as the default has. Raises Unreadable."""
        try:
            values = tuple(float(value) for value in self.tags.get(tag, default))
        except (TypeError, ValueError, ZeroDivisionError):
            values = ()
        if len(values) != len(default):
            raise UnreadableImage(f"damaged TIFF: tag {tag} is {str(self.tags.get(tag))[:20]!r}")
        return values

    def block(self, tag: int) -> bytes | None:
        """The bytes of a tag, whatever type it states: IPTC is often called long integers."""
        return self.tags._tagdata.get(tag)


def read_pages(stream: IO[bytes], most: int = MAX_PAGES) -> list[TiffPage]:
    """Every page in order, the first `most` of them, without thumbnails. Raises Unreadable, Unsupported."""
    stream.seek(0)
    head = stream.read(8)
    big = b"+" in head[2:4]
    head += stream.read(8) if big else b""
    pages: list[TiffPage] = []
    seen: set[int] = set()
    try:
        tags = start_directory(head, big)
        while tags.next and tags.next not in seen and len(pages) < most:
            offset = tags.next
            seen.add(offset)
            tags = start_directory(head, big)
            stream.seek(offset)
            tags.load(stream)
            pages.append(TiffPage(len(pages), tags, read_page_exif(stream, offset, head, big), offset))
    except Exception as error:  # the parser raises whatever the bytes lead it to
        raise UnreadableImage(f"damaged TIFF: {error}") from error
    if not pages:
        raise UnreadableImage("damaged TIFF: its list of tags is not whole")
    pages = [page for page in pages if not page.number(SUBFILE, 0) & REDUCED] or pages
    for page in pages:
        check_page(page, stream)
    return pages


def start_directory(head: bytes, big: bool) -> ImageFileDirectory_v2:
    """A list of tags that is not yet read; `next` is the offset of the first one in the file."""
    known = b"II+\0" + head[4:] if big else head  # Pillow does not find the version of a big-endian BigTIFF
    return ImageFileDirectory_v2(known, prefix=head[:2])


def make_alpha_patch(page: TiffPage, stream: IO[bytes]) -> Patch | None:
    """What lets libvips read colours as they are stored: transparency that is multiplied into them stated as separate.

    libvips divides such colours in some versions only; it truncates the quotient, and takes 255 for the peak of floats.
    """
    if page.alpha != "associated":
        return None
    order, _, entry = describe_layout(page)
    place = locate_tags(page, stream, page.offset).get(EXTRA)
    return None if place is None else Patch(place, struct.pack(order + entry, EXTRA, SHORT, 1, 2))


def describe_layout(page: TiffPage) -> tuple[str, str, str]:
    """The byte order of a file, how it counts the entries of a list, and an entry that holds a short number."""
    order = "<" if page.tags.prefix == b"II" else ">"
    return (order, "Q", "HHQH6x") if page.tags._bigtiff else (order, "H", "HHIH2x")


def locate_tags(page: TiffPage, stream: IO[bytes], offset: int) -> dict[int, int]:
    """Where in the file each entry of the list at `offset` stands, also of tags that could not be read.

    Raises struct.error where the list is not whole.
    """
    order, count, entry = describe_layout(page)
    stream.seek(offset)
    (entries,) = struct.unpack(order + count, stream.read(struct.calcsize(order + count)))
    first, size = stream.tell(), struct.calcsize(order + entry)
    tags = (struct.unpack_from(order + "H", stream.read(size))[0] for _ in range(entries))
    return {tag: first + i * size for i, tag in enumerate(tags)}


def list_damaged_tags(page: TiffPage, stream: IO[bytes]) -> list[str]:
    """What the page states and Pillow's reader passed over, because its bytes are not all there."""
    stated = (tag for tag in locate_tags(page, stream, page.offset) if tag in TAG_NAMES)
    return [f"{TAG_NAMES[tag]} is damaged and left out" for tag in stated if is_damaged(page, stream, tag)]


def is_damaged(page: TiffPage, stream: IO[bytes], tag: int) -> bool:
    """Whether a tag that is kept beside the pixels could not be read. A folder without any tag is not lost."""
    if tag not in SUB_DIRECTORIES:
        return tag not in page.tags
    if tag in list_tags(page.exif):
        return False
    try:
        return bool(locate_tags(page, stream, page.number(tag, 0)))
    except (struct.error, UnreadableImage):
        return True


def read_page_metadata(page: TiffPage, stream: IO[bytes]) -> tuple[int, Metadata]:
    """The orientation that is still to be applied, and what stands beside the pixels of the upright page."""
    icc, xmp, iptc = (page.block(tag) for tag in (ICC, XMP, IPTC))
    turn, metadata = build_metadata(icc, page.exif, xmp, page.dpi, {}, iptc, list_damaged_tags(page, stream))
    spent = page.number(PHOTOMETRIC, 0) in (CMYK, LAB)  # a profile on the way to sRGB
    return turn, replace(metadata, icc=None) if spent else metadata


def read_page_exif(stream: IO[bytes], offset: int, head: bytes, big: bool) -> bytes | None:
    """The descriptive tags of a page as an EXIF block."""
    exif = Image.Exif()
    exif.bigtiff, exif.endian = big, "<" if head[:2] == b"II" else ">"
    try:
        exif.load_from_fp(stream, offset)
        kept = select_descriptive_tags(exif)
        turned = exif.get(ORIENTATION, 1)
        if isinstance(turned, int) and 1 < turned <= 8:
            kept[ORIENTATION] = turned
        return restore_undefined_types(kept.tobytes()) if len(kept) else None
    except Exception:  # EXIF may hold anything; the picture is worth more
        return UNREADABLE_EXIF


def check_page(page: TiffPage, stream: IO[bytes]) -> None:
    """Raises for what would come out as something else (signed as unsigned, extra channels as none)."""
    if WIDTH not in page.tags or HEIGHT not in page.tags:
        raise UnreadableImage("damaged TIFF: its list of tags is not whole")
    kinds, bits = set(page.numbers(SAMPLE_FORMAT, 1)), set(page.numbers(BITS, 1))
    if len(bits) > 1 or len(kinds) > 1:
        raise UnsupportedImage("channels of different depths", "kind")
    depth = bits.pop()
    if kinds == {FLOATING} and depth != 32:
        raise UnsupportedImage(f"{depth}-bit floating-point samples, 32-bit ones are supported", "depth")
    if kinds <= {1, 4} and depth not in (1, 2, 4, 8, 16):
        raise UnsupportedImage(f"{depth} bits per channel, 8, 16 and 32-bit floating point are supported", "depth")
    signed = {2} if page.number(PHOTOMETRIC, 0) == LAB else set()  # a and b of Lab are
    if not kinds <= {1, FLOATING, 4} | signed:  # 1: unsigned, 4: not stated
        raise UnsupportedImage("signed samples, unsigned ones are supported", "depth")
    check_colour(page)
    check_planes(page)
    check_length(page, stream)


def check_colour(page: TiffPage) -> None:
    """Gray, RGB, palette, CMYK, YCbCr, Lab, with at most one channel more, which says that it is transparency."""
    photometric = page.number(PHOTOMETRIC, 0)
    if photometric not in CHANNELS:
        raise UnsupportedImage(f"colours of kind {photometric}; gray, RGB, CMYK, YCbCr and Lab are supported", "colour")
    stored = 1 if photometric == 3 else CHANNELS[photometric]
    extra = page.number(SAMPLES, 1) - stored
    stated = page.numbers(EXTRA, 2)
    if extra < 0:
        raise UnreadableImage(f"damaged TIFF: it states {extra + stored} channels, its colours have {stored}")
    if extra > 1 or (extra and (EXTRA not in page.tags or stated[0] not in (1, 2))) or len(stated) > 1:
        raise UnsupportedImage("extra channels that are not stated to be transparency", "kind")
    if extra and photometric in (3, 5, 6, 8):
        raise UnsupportedImage("transparency beside a palette, CMYK, YCbCr or Lab", "colour")
    if (photometric == CMYK and page.depth == 32) or (photometric == YCBCR and page.depth > 8):
        raise UnsupportedImage("CMYK, YCbCr or Lab of that depth", "colour")
    if photometric == YCBCR and not (
        page.luma[1] and all(a != b for a, b in zip(page.levels[::2], page.levels[1::2], strict=True))
    ):
        raise UnreadableImage("damaged TIFF: what it states of its luma and chroma cannot be")


def check_planes(page: TiffPage) -> None:
    """Channels one behind the other: libvips reads strips of RGB and CMYK, and mixes up the px of gray and of Lab."""
    if page.number(PLANES, 1) != SEPARATE or page.number(SAMPLES, 1) == 1:
        return
    photometric = page.number(PHOTOMETRIC, 0)
    floating = page.number(SAMPLE_FORMAT, 1) == FLOATING
    if photometric not in (RGB, CMYK) and not (photometric == LAB and floating):
        raise UnsupportedImage("gray with transparency, YCbCr or Lab in separate planes; RGB and CMYK are supported")
    if TILES in page.tags:
        raise UnsupportedImage("tiles in separate planes; strips are supported", "kind")


def check_length(page: TiffPage, stream: IO[bytes]) -> None:
    """libtiff says on standard error what it thinks of a short file: find out before it does."""
    size = stream.seek(0, 2)
    for starts, counts in ((STRIPS, STRIP_BYTES), (TILES, TILE_BYTES)):
        spans = zip(page.numbers(starts, 0), page.numbers(counts, 0), strict=False)
        if any(start + count > size for start, count in spans):
            raise UnreadableImage("damaged TIFF: it ends before its pixels do")
