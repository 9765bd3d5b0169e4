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
from restore_cli.image.formats.samples import from_ycbcr, unmultiplied
from restore_cli.image.formats.sniff import Unreadable, Unsupported
from restore_cli.image.metadata.collect import DESCRIPTIVE, SUB_FOLDERS, assembled, descriptive
from restore_cli.image.metadata.exif import DAMAGED, tags_of, with_kinds
from restore_cli.image.picture import Metadata, Samples

__all__ = ["Page", "metadata_of", "read_pages", "separate_alpha"]

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
MOST_PAGES = 10_000
TITLES = {
    ICC: "its colour profile",
    XMP: "its XMP",
    IPTC: "its IPTC",
    **dict.fromkeys(SUB_FOLDERS, "its EXIF"),
    **{int(tag): f"its tag {tag.name}" for tag in DESCRIPTIVE},
}
"""What is kept of a page beside its pixels."""
COLOURS = {0: 1, 1: 1, 2: 3, 3: 3, 5: 4, 6: 3, 8: 3}
"""Photometric interpretations and their channels once read: gray, gray, RGB, palette, CMYK, YCbCr, Lab."""


@dataclass(frozen=True)
class Page:
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
            raise Unreadable(f"damaged TIFF: tag {tag} is {str(value)[:20]!r}")
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
            return partial(from_ycbcr, luma=self.luma, levels=self.levels)
        if self.alpha != "associated":
            return None
        return partial(unmultiplied, white_is_zero=self.number(PHOTOMETRIC, 0) == 0 and self.depth < 32)

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
            raise Unreadable(f"damaged TIFF: tag {tag} is {str(self.tags.get(tag))[:20]!r}")
        return values

    def block(self, tag: int) -> bytes | None:
        """The bytes of a tag, whatever type it states: IPTC is often called long integers."""
        return self.tags._tagdata.get(tag)


def read_pages(stream: IO[bytes], most: int = MOST_PAGES) -> list[Page]:
    """Every page in order, the first `most` of them, without thumbnails. Raises Unreadable, Unsupported."""
    stream.seek(0)
    head = stream.read(8)
    big = b"+" in head[2:4]
    head += stream.read(8) if big else b""
    pages: list[Page] = []
    seen: set[int] = set()
    try:
        tags = directory(head, big)
        while tags.next and tags.next not in seen and len(pages) < most:
            offset = tags.next
            seen.add(offset)
            tags = directory(head, big)
            stream.seek(offset)
            tags.load(stream)
            pages.append(Page(len(pages), tags, exif_at(stream, offset, head, big), offset))
    except Exception as error:  # the parser raises whatever the bytes lead it to
        raise Unreadable(f"damaged TIFF: {error}") from error
    if not pages:
        raise Unreadable("damaged TIFF: its list of tags is not whole")
    pages = [page for page in pages if not page.number(SUBFILE, 0) & REDUCED] or pages
    for page in pages:
        check_page(page, stream)
    return pages


def directory(head: bytes, big: bool) -> ImageFileDirectory_v2:
    """A list of tags that is not yet read; `next` is the offset of the first one in the file."""
    known = b"II+\0" + head[4:] if big else head  # Pillow does not find the version of a big-endian BigTIFF
    return ImageFileDirectory_v2(known, prefix=head[:2])


def separate_alpha(page: Page, stream: IO[bytes]) -> Patch | None:
    """What lets libvips read colours as they are stored: transparency that is multiplied into them stated as separate.

    libvips divides such colours in some versions only; it truncates the quotient, and takes 255 for the peak of floats.
    """
    if page.alpha != "associated":
        return None
    order, _, entry = formats(page)
    place = places(page, stream, page.offset).get(EXTRA)
    return None if place is None else Patch(place, struct.pack(order + entry, EXTRA, SHORT, 1, 2))


def formats(page: Page) -> tuple[str, str, str]:
    """The byte order of a file, how it counts the entries of a list, and an entry that holds a short number."""
    order = "<" if page.tags.prefix == b"II" else ">"
    return (order, "Q", "HHQH6x") if page.tags._bigtiff else (order, "H", "HHIH2x")


def places(page: Page, stream: IO[bytes], offset: int) -> dict[int, int]:
    """Where in the file each entry of the list at `offset` stands, also of tags that could not be read.

    Raises struct.error where the list is not whole.
    """
    order, count, entry = formats(page)
    stream.seek(offset)
    (entries,) = struct.unpack(order + count, stream.read(struct.calcsize(order + count)))
    first, size = stream.tell(), struct.calcsize(order + entry)
    tags = (struct.unpack_from(order + "H", stream.read(size))[0] for _ in range(entries))
    return {tag: first + i * size for i, tag in enumerate(tags)}


def lost_tags(page: Page, stream: IO[bytes]) -> list[str]:
    """What the page states and Pillow's reader passed over, because its bytes are not all there."""
    stated = (tag for tag in places(page, stream, page.offset) if tag in TITLES)
    return [f"{TITLES[tag]} is damaged and left out" for tag in stated if is_lost(page, stream, tag)]


def is_lost(page: Page, stream: IO[bytes], tag: int) -> bool:
    """Whether a tag that is kept beside the pixels could not be read. A folder without any tag is not lost."""
    if tag not in SUB_FOLDERS:
        return tag not in page.tags
    if tag in tags_of(page.exif):
        return False
    try:
        return bool(places(page, stream, page.number(tag, 0)))
    except (struct.error, Unreadable):
        return True


def metadata_of(page: Page, stream: IO[bytes]) -> tuple[int, Metadata]:
    """The orientation that is still to be applied, and what stands beside the pixels of the upright page."""
    icc, xmp, iptc = (page.block(tag) for tag in (ICC, XMP, IPTC))
    turn, metadata = assembled(icc, page.exif, xmp, page.dpi, {}, iptc, lost_tags(page, stream))
    spent = page.number(PHOTOMETRIC, 0) in (CMYK, LAB)  # a profile on the way to sRGB
    return turn, replace(metadata, icc=None) if spent else metadata


def exif_at(stream: IO[bytes], offset: int, head: bytes, big: bool) -> bytes | None:
    """The descriptive tags of a page as an EXIF block."""
    exif = Image.Exif()
    exif.bigtiff, exif.endian = big, "<" if head[:2] == b"II" else ">"
    try:
        exif.load_from_fp(stream, offset)
        kept = descriptive(exif)
        turned = exif.get(ORIENTATION, 1)
        if isinstance(turned, int) and 1 < turned <= 8:
            kept[ORIENTATION] = turned
        return with_kinds(kept.tobytes()) if len(kept) else None
    except Exception:  # EXIF may hold anything; the picture is worth more
        return DAMAGED


def check_page(page: Page, stream: IO[bytes]) -> None:
    """Raises for what would come out as something else (signed as unsigned, extra channels as none)."""
    if WIDTH not in page.tags or HEIGHT not in page.tags:
        raise Unreadable("damaged TIFF: its list of tags is not whole")
    kinds, bits = set(page.numbers(SAMPLE_FORMAT, 1)), set(page.numbers(BITS, 1))
    if len(bits) > 1 or len(kinds) > 1:
        raise Unsupported("channels of different depths", "kind")
    depth = bits.pop()
    if kinds == {FLOATING} and depth != 32:
        raise Unsupported(f"{depth}-bit floating-point samples, 32-bit ones are supported", "depth")
    if kinds <= {1, 4} and depth not in (1, 2, 4, 8, 16):
        raise Unsupported(f"{depth} bits per channel, 8, 16 and 32-bit floating point are supported", "depth")
    signed = {2} if page.number(PHOTOMETRIC, 0) == LAB else set()  # a and b of Lab are
    if not kinds <= {1, FLOATING, 4} | signed:  # 1: unsigned, 4: not stated
        raise Unsupported("signed samples, unsigned ones are supported", "depth")
    check_colour(page)
    check_planes(page)
    check_ends(page, stream)


def check_colour(page: Page) -> None:
    """Gray, RGB, palette, CMYK, YCbCr, Lab, with at most one channel more, which says that it is transparency."""
    photometric = page.number(PHOTOMETRIC, 0)
    if photometric not in COLOURS:
        raise Unsupported(f"colours of kind {photometric}; gray, RGB, CMYK, YCbCr and Lab are supported", "colour")
    stored = 1 if photometric == 3 else COLOURS[photometric]
    extra = page.number(SAMPLES, 1) - stored
    stated = page.numbers(EXTRA, 2)
    if extra < 0:
        raise Unreadable(f"damaged TIFF: it states {extra + stored} channels, its colours have {stored}")
    if extra > 1 or (extra and (EXTRA not in page.tags or stated[0] not in (1, 2))) or len(stated) > 1:
        raise Unsupported("extra channels that are not stated to be transparency", "kind")
    if extra and photometric in (3, 5, 6, 8):
        raise Unsupported("transparency beside a palette, CMYK, YCbCr or Lab", "colour")
    if (photometric == CMYK and page.depth == 32) or (photometric == YCBCR and page.depth > 8):
        raise Unsupported("CMYK, YCbCr or Lab of that depth", "colour")
    if photometric == YCBCR and not (
        page.luma[1] and all(a != b for a, b in zip(page.levels[::2], page.levels[1::2], strict=True))
    ):
        raise Unreadable("damaged TIFF: what it states of its luma and chroma cannot be")


def check_planes(page: Page) -> None:
    """Channels one behind the other: libvips reads strips of RGB and CMYK, and mixes up the px of gray and of Lab."""
    if page.number(PLANES, 1) != SEPARATE or page.number(SAMPLES, 1) == 1:
        return
    photometric = page.number(PHOTOMETRIC, 0)
    floating = page.number(SAMPLE_FORMAT, 1) == FLOATING
    if photometric not in (RGB, CMYK) and not (photometric == LAB and floating):
        raise Unsupported("gray with transparency, YCbCr or Lab in separate planes; RGB and CMYK are supported")
    if TILES in page.tags:
        raise Unsupported("tiles in separate planes; strips are supported", "kind")


def check_ends(page: Page, stream: IO[bytes]) -> None:
    """libtiff says on standard error what it thinks of a short file: find out before it does."""
    size = stream.seek(0, 2)
    for starts, counts in ((STRIPS, STRIP_BYTES), (TILES, TILE_BYTES)):
        spans = zip(page.numbers(starts, 0), page.numbers(counts, 0), strict=False)
        if any(start + count > size for start, count in spans):
            raise Unreadable("damaged TIFF: it ends before its pixels do")
