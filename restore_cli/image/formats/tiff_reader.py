"""TIFF directories (TIFF 6.0 and BigTIFF): the properties of each page, checked before libtiff reads its pixels."""

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
"""The tags that are kept as metadata, and their names in messages."""
CHANNELS = {0: 1, 1: 1, 2: 3, 3: 3, 5: 4, 6: 3, 8: 3}
"""Channels of the photometric interpretations gray, gray, RGB, palette (decoded), CMYK, YCbCr and Lab."""


@dataclass(frozen=True)
class TiffPage:
    """One picture of a TIFF file."""

    index: int
    """in the file, counted from 0, thumbnails included"""
    tags: ImageFileDirectory_v2
    exif: bytes | None
    offset: int
    """of its directory in the file"""

    def read_ints(self, tag: int, default: int) -> tuple[int, ...]:
        """Return the integers of a tag. Raises UnreadableImage if its values are not integers."""
        value = self.tags.get(tag, default)
        values = value if isinstance(value, tuple) else (value,)
        if not values or not all(isinstance(item, int) for item in values):
            raise UnreadableImage(f"damaged TIFF: tag {tag} is {str(value)[:20]!r}, expected integers")
        return values

    def read_int(self, tag: int, default: int) -> int:
        """Return the first integer of a tag. Raises UnreadableImage."""
        return self.read_ints(tag, default)[0]

    @property
    def depth(self) -> int:
        """Bits per sample once read: 8, 16 or 32 (floating point). Floating-point Lab becomes 16-bit sRGB."""
        bits = max(self.read_ints(BITS, 1))
        return 8 if bits <= 8 else min(bits, 16) if self.read_int(PHOTOMETRIC, 0) == LAB else bits

    @property
    def channels(self) -> int:
        """1 (gray) or 3 (colour), without alpha."""
        return 1 if self.read_int(PHOTOMETRIC, 0) < 2 else 3

    @property
    def alpha(self) -> str | None:
        """How alpha is stored: "associated" (colours are premultiplied), "unassociated", or None without alpha."""
        if EXTRA not in self.tags:
            return None
        return "associated" if self.read_int(EXTRA, 2) == 1 else "unassociated"

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Horizontal and vertical px per inch, or None."""
        unit = {2: 1.0, 3: 2.54}.get(self.read_int(UNIT, 2))
        try:
            across, down = float(self.tags[ACROSS]), float(self.tags[DOWN])
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        return (across * unit, down * unit) if unit else None

    def get_conversion(self) -> Callable[[Samples], Samples] | None:
        """Return the function that converts stored rows to RGB or gray, not premultiplied; None if they are already.

        libtiff itself converts YCbCr that is JPEG-compressed or subsampled.
        """
        photometric = self.read_int(PHOTOMETRIC, 0)
        plain = self.read_int(COMPRESSION, 1) not in (6, 7) and self.read_ints(SUBSAMPLING, 2) == (1, 1)
        if photometric == YCBCR and plain:
            return partial(ycbcr_to_rgb, luma=self.luma, levels=self.levels)
        if self.alpha != "associated":
            return None
        return partial(unpremultiply, white_is_zero=photometric == 0 and self.depth < 32)

    @property
    def luma(self) -> tuple[float, ...]:
        """YCbCrCoefficients: the shares of red, green and blue in luma (TIFF 6.0, section 21)."""
        return self.read_floats(LUMA, (0.299, 0.587, 0.114))

    @property
    def levels(self) -> tuple[float, ...]:
        """ReferenceBlackWhite: black and white of luma, zero and maximum of each chroma channel."""
        return self.read_floats(LEVELS, (0, 255, 128, 255, 128, 255))

    def read_floats(self, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
        """Return the numbers of a tag, as many as in `default`. Raises UnreadableImage."""
        try:
            values = tuple(float(value) for value in self.tags.get(tag, default))
        except (TypeError, ValueError, ZeroDivisionError):
            values = ()
        if len(values) != len(default):
            found = str(self.tags.get(tag))[:20]
            raise UnreadableImage(f"damaged TIFF: tag {tag} is {found!r}, expected {len(default)} numbers")
        return values

    def read_bytes(self, tag: int) -> bytes | None:
        """Return the bytes of a tag of any type. Many files declare IPTC as LONG."""
        return self.tags._tagdata.get(tag)


def read_pages(stream: IO[bytes], most: int = MAX_PAGES) -> list[TiffPage]:
    """Return the pages in order, without thumbnails, from the first `most` directories.

    Raises UnreadableImage, UnsupportedImage.
    """
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
    except Exception as error:  # damaged bytes can make the parser raise anything
        raise UnreadableImage(f"damaged TIFF: {error}") from error
    if not pages:
        raise UnreadableImage("damaged TIFF: its directory is incomplete")
    pages = [page for page in pages if not page.read_int(SUBFILE, 0) & REDUCED] or pages
    for page in pages:
        check_page(page, stream)
    return pages


def start_directory(head: bytes, big: bool) -> ImageFileDirectory_v2:
    """Return an empty directory, ready to load. Its `next` is the offset of the file's first directory."""
    known = b"II+\0" + head[4:] if big else head  # Pillow misreads the version of a big-endian BigTIFF
    return ImageFileDirectory_v2(known, prefix=head[:2])


def make_alpha_patch(page: TiffPage, stream: IO[bytes]) -> Patch | None:
    """Return a patch that declares premultiplied alpha as unassociated, so that libvips does not change the colours.

    Some versions of libvips divide by alpha, truncate the quotient, and take 255 for the peak of floats.
    """
    if page.alpha != "associated":
        return None
    order, _, entry = describe_layout(page)
    offset = locate_tags(page, stream, page.offset).get(EXTRA)
    return None if offset is None else Patch(offset, struct.pack(order + entry, EXTRA, SHORT, 1, 2))


def describe_layout(page: TiffPage) -> tuple[str, str, str]:
    """Return struct formats: the byte order, the count of a directory, and an entry with one SHORT value."""
    order = "<" if page.tags.prefix == b"II" else ">"
    return (order, "Q", "HHQH6x") if page.tags._bigtiff else (order, "H", "HHIH2x")


def locate_tags(page: TiffPage, stream: IO[bytes], offset: int) -> dict[int, int]:
    """Return the file offset of each tag's entry in the directory at `offset`, unreadable tags included.

    Raises struct.error if the directory is incomplete.
    """
    order, count, entry = describe_layout(page)
    stream.seek(offset)
    (entries,) = struct.unpack(order + count, stream.read(struct.calcsize(order + count)))
    first, size = stream.tell(), struct.calcsize(order + entry)
    tags = (struct.unpack_from(order + "H", stream.read(size))[0] for _ in range(entries))
    return {tag: first + i * size for i, tag in enumerate(tags)}


def list_damaged_tags(page: TiffPage, stream: IO[bytes]) -> list[str]:
    """Return a message for each metadata tag that Pillow's parser skipped because its data is missing."""
    stated = (tag for tag in locate_tags(page, stream, page.offset) if tag in TAG_NAMES)
    return [f"{TAG_NAMES[tag]} is damaged and left out" for tag in stated if is_damaged(page, stream, tag)]


def is_damaged(page: TiffPage, stream: IO[bytes], tag: int) -> bool:
    """Whether a metadata tag could not be read. An empty sub-directory is not damaged."""
    if tag not in SUB_DIRECTORIES:
        return tag not in page.tags
    if tag in list_tags(page.exif):
        return False
    try:
        return bool(locate_tags(page, stream, page.read_int(tag, 0)))
    except (struct.error, UnreadableImage):
        return True


def read_page_metadata(page: TiffPage, stream: IO[bytes]) -> tuple[int, Metadata]:
    """Return the EXIF orientation to apply, 1-8, and the metadata of the upright page."""
    icc, xmp, iptc = (page.read_bytes(tag) for tag in (ICC, XMP, IPTC))
    orientation, metadata = build_metadata(icc, page.exif, xmp, page.dpi, {}, iptc, list_damaged_tags(page, stream))
    converted = page.read_int(PHOTOMETRIC, 0) in (CMYK, LAB)  # to sRGB, through the profile
    return orientation, replace(metadata, icc=None) if converted else metadata


def read_page_exif(stream: IO[bytes], offset: int, head: bytes, big: bool) -> bytes | None:
    """Return the descriptive tags of a page as an EXIF block, or None if there are none."""
    exif = Image.Exif()
    exif.bigtiff, exif.endian = big, "<" if head[:2] == b"II" else ">"
    try:
        exif.load_from_fp(stream, offset)
        kept = select_descriptive_tags(exif)
        orientation = exif.get(ORIENTATION, 1)
        if isinstance(orientation, int) and 1 < orientation <= 8:
            kept[ORIENTATION] = orientation
        return restore_undefined_types(kept.tobytes()) if len(kept) else None
    except Exception:  # damaged EXIF can raise anything; the picture is still readable
        return UNREADABLE_EXIF


def check_page(page: TiffPage, stream: IO[bytes]) -> None:
    """Refuse pages that libvips would decode wrongly. Raises UnreadableImage, UnsupportedImage."""
    if WIDTH not in page.tags or HEIGHT not in page.tags:
        raise UnreadableImage("damaged TIFF: its directory is incomplete")
    kinds, bits = set(page.read_ints(SAMPLE_FORMAT, 1)), set(page.read_ints(BITS, 1))
    if len(bits) > 1 or len(kinds) > 1:
        raise UnsupportedImage("channels have different depths; equal depths are supported", "kind")
    depth = bits.pop()
    if kinds == {FLOATING} and depth != 32:
        raise UnsupportedImage(f"{depth}-bit floating-point samples; 32-bit floating point is supported", "depth")
    if kinds <= {1, 4} and depth not in (1, 2, 4, 8, 16):
        raise UnsupportedImage(f"{depth} bits per channel; 8, 16 and 32-bit floating point are supported", "depth")
    signed = {2} if page.read_int(PHOTOMETRIC, 0) == LAB else set()  # a and b of Lab are signed
    if not kinds <= {1, FLOATING, 4} | signed:  # 1: unsigned, 4: undefined
        raise UnsupportedImage("signed samples; unsigned samples are supported", "depth")
    check_colour(page)
    check_planes(page)
    check_length(page, stream)


def check_colour(page: TiffPage) -> None:
    """Accept gray, RGB, palette, CMYK, YCbCr and Lab, with at most one extra channel that is declared as alpha."""
    photometric = page.read_int(PHOTOMETRIC, 0)
    if photometric not in CHANNELS:
        found = f"photometric interpretation {photometric}"
        raise UnsupportedImage(f"{found}; gray, RGB, CMYK, YCbCr and Lab are supported", "colour")
    stored = 1 if photometric == 3 else CHANNELS[photometric]
    extra = page.read_int(SAMPLES, 1) - stored
    kinds = page.read_ints(EXTRA, 2)
    if extra < 0:
        raise UnreadableImage(f"damaged TIFF: it has {extra + stored} channels, its colours need {stored}")
    if extra > 1 or (extra and (EXTRA not in page.tags or kinds[0] not in (1, 2))) or len(kinds) > 1:
        raise UnsupportedImage("extra channels that are not declared as alpha; one alpha channel is supported", "kind")
    if extra and photometric in (3, 5, 6, 8):
        raise UnsupportedImage("transparency with a palette, CMYK, YCbCr or Lab; gray and RGB are supported", "colour")
    if (photometric == CMYK and page.depth == 32) or (photometric == YCBCR and page.depth > 8):
        found = f"CMYK or YCbCr in {page.depth} bits"
        raise UnsupportedImage(f"{found}; CMYK in 8 or 16 and YCbCr in 8 bits are supported", "colour")
    ranges = zip(page.levels[::2], page.levels[1::2], strict=True) if photometric == YCBCR else ()
    if photometric == YCBCR and (not page.luma[1] or any(black == white for black, white in ranges)):
        raise UnreadableImage("damaged TIFF: its YCbCr coefficients or reference levels are invalid")


def check_planes(page: TiffPage) -> None:
    """Refuse separate planes that libvips decodes wrongly: it reads strips of RGB, CMYK and floating-point Lab."""
    if page.read_int(PLANES, 1) != SEPARATE or page.read_int(SAMPLES, 1) == 1:
        return
    photometric = page.read_int(PHOTOMETRIC, 0)
    floating = page.read_int(SAMPLE_FORMAT, 1) == FLOATING
    if photometric not in (RGB, CMYK) and not (photometric == LAB and floating):
        raise UnsupportedImage("gray with transparency, YCbCr or Lab in separate planes; RGB and CMYK are supported")
    if TILES in page.tags:
        raise UnsupportedImage("tiles in separate planes; strips are supported", "kind")


def check_length(page: TiffPage, stream: IO[bytes]) -> None:
    """Refuse a truncated file, about which libtiff would print messages to standard error."""
    size = stream.seek(0, 2)
    for starts, counts in ((STRIPS, STRIP_BYTES), (TILES, TILE_BYTES)):
        spans = zip(page.read_ints(starts, 0), page.read_ints(counts, 0), strict=False)
        if any(start + count > size for start, count in spans):
            raise UnreadableImage("damaged TIFF: truncated, the end of its pixel data is missing")
