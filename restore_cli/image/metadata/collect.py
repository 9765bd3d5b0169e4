"""Metadata of a file as Pillow found it, made fit for another file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from PIL import ExifTags, Image

from restore_cli.image.metadata.exif import EXIF_PREFIX, read_resolution, reset_orientation, set_size
from restore_cli.image.picture import Metadata

__all__ = [
    "DESCRIPTIVE_TAGS",
    "IPTC_KEYWORD",
    "SUB_DIRECTORIES",
    "XMP_KEYWORD",
    "build_metadata",
    "can_rewrite_exif",
    "decode_raw_profile",
    "encode_raw_profile",
    "fit_profile",
    "read_orientation",
    "read_pillow_metadata",
    "select_descriptive_tags",
    "update_size",
]

XMP_KEYWORD = "XML:com.adobe.xmp"
_RAW = "Raw profile type "
_PROFILES = ("exif", "APP1", "xmp", "iptc", "8bim")
IPTC_KEYWORD = f"{_RAW}iptc"
_IPTC_RESOURCE = 0x0404  # of a Photoshop block
SUB_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# EXIF shares its first folder with TIFF's layout tags (sizes, strips, compression), which belong to the old file.
DESCRIPTIVE_TAGS = (
    ExifTags.Base.DocumentName,
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.HostComputer,
    ExifTags.Base.Copyright,
    ExifTags.Base.PageName,
    ExifTags.Base.Rating,
    ExifTags.Base.RatingPercent,
    ExifTags.Base.XPTitle,
    ExifTags.Base.XPComment,
    ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords,
    ExifTags.Base.XPSubject,
)
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))[2-8]""")
_XMP_WIDTH = re.compile(rb"""((?:exif:PixelXDimension|tiff:ImageWidth)(?:\s*=\s*["']|>))\d+""")
_XMP_HEIGHT = re.compile(rb"""((?:exif:PixelYDimension|tiff:ImageLength)(?:\s*=\s*["']|>))\d+""")


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1-8, that is still to be applied to the opened file's pixels."""
    return reset_orientation(_read_exif(image))[0]


def read_pillow_metadata(image: Image.Image) -> Metadata:
    """What the opened file says beside its pixels, as it will be true of the upright picture."""
    info = image.info
    comment = info.get("comment")
    text = {"Comment": comment.decode("utf-8", "replace")} if isinstance(comment, bytes) and comment else {}
    resources = info.get("photoshop")
    iptc = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    icc = info["icc_profile"] or b"" if "icc_profile" in info else None  # None there: its parts do not fit together
    return build_metadata(icc, _read_exif(image), info.get("xmp"), info.get("dpi"), text, iptc)[1]


def build_metadata(
    icc: object,
    exif: bytes | None,
    xmp: object,
    dpi: object,
    text: dict[str, str],
    iptc: object,
    left_out: Iterable[str] = (),
) -> tuple[int, Metadata]:
    """The orientation that is still to be applied, and the metadata as they will be true after.

    `left_out` is what the reader of the file could not keep; what cannot be kept here is added.
    """
    stated = exif or find_raw_profile(text, "exif", "APP1") or b""
    turned, exif = reset_orientation(stated)
    profile = _check_profile(icc)
    block = (
        xmp if isinstance(xmp, bytes) else text.get(XMP_KEYWORD, "").encode() or find_raw_profile(text, "xmp") or b""
    )
    if turned != 1:
        block = _XMP_ORIENTATION.sub(rb"\g<1>1", block)
    iptc = iptc if isinstance(iptc, bytes) else extract_iptc(find_raw_profile(text, "iptc", "8bim"))
    kept = {key: value for key, value in text.items() if key != XMP_KEYWORD and not key.startswith(_RAW)}
    dpi = _check_resolution(dpi) or _check_resolution(read_resolution(exif))
    lost = [*left_out, *(f"its text {key!a} is {why} and left out" for key, why in find_unusable_profiles(text))]
    if icc is not None and profile is None:
        lost.append("its colour profile is damaged and left out")
    if stated.removeprefix(EXIF_PREFIX) and exif is None:
        lost.append("its EXIF is damaged and left out")
    return turned, Metadata(profile, exif, block or None, dpi, kept, iptc or None, left_out=tuple(dict.fromkeys(lost)))


def find_unusable_profiles(text: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Keywords of blocks that a PNG keeps as text and that cannot be used, and why."""
    for key, value in text.items():
        if key.startswith(_RAW) and not decode_raw_profile(value):
            yield key[:40], "damaged"
        elif key.startswith(_RAW) and key.removeprefix(_RAW) not in _PROFILES:
            yield key[:40], "of an unknown kind"


def update_size(metadata: Metadata, width: int, height: int) -> Metadata:
    """The same of a picture of another size: where EXIF and XMP state one, it is this."""
    xmp = metadata.xmp and _XMP_WIDTH.sub(rb"\g<1>%d" % width, metadata.xmp)
    xmp = xmp and _XMP_HEIGHT.sub(rb"\g<1>%d" % height, xmp)
    return replace(metadata, exif=set_size(metadata.exif, width, height), xmp=xmp)


def find_raw_profile(text: Mapping[str, str], *names: str) -> bytes | None:
    """The first of the blocks of these names that a PNG keeps as text."""
    found = (decode_raw_profile(text.get(_RAW + name)) for name in names)
    return next((block for block in found if block), None)


def extract_iptc(block: bytes | None) -> bytes | None:
    """IPTC records, taken out of the Photoshop resources that they may be wrapped into."""
    while block and block.startswith(b"8BIM"):
        kind, name = int.from_bytes(block[4:6], "big"), block[6:7]
        start = 7 + (name[0] | 1 if name else 0)  # the name with its length is of even size
        size = int.from_bytes(block[start : start + 4], "big")
        data, block = block[start + 4 : start + 4 + size], block[start + 4 + size + size % 2 :]
        if kind == _IPTC_RESOURCE:
            return data
    return None if block == b"" else block


def encode_raw_profile(name: str, data: bytes) -> bytes:
    """A block as ImageMagick and ExifTool keep it in the text of a PNG: three lines, then hexadecimal."""
    digits = data.hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return "\n".join(["", name, f"{len(data):8d}", *lines, ""]).encode()


def decode_raw_profile(text: str | None) -> bytes | None:
    """The block that such a text holds."""
    try:
        found = bytes.fromhex("".join(text.split("\n")[3:])) if text else b""
    except ValueError:
        return None
    return found or None


def select_descriptive_tags(exif: bytes | Image.Exif) -> Image.Exif:
    """The tags that describe a photograph, without those that describe the layout of the file it was in."""
    source, kept = Image.Exif(), Image.Exif()
    if isinstance(exif, bytes):
        source.load(exif)
    else:
        source = exif
    for tag in DESCRIPTIVE_TAGS:
        if tag in source:
            kept[tag] = source[tag]
    for folder in SUB_DIRECTORIES:
        if inside := source.get_ifd(folder):
            kept[folder] = dict(inside)
    return kept


def can_rewrite_exif(exif: bytes) -> bool:
    """True where Pillow can write the block anew, as it does for AVIF, whose orientation stands outside of EXIF."""
    block = Image.Exif()
    try:
        block.load(exif)
        block.tobytes()
    except Exception:  # its tags may hold anything
        return False
    return True


def fit_profile(icc: bytes | None, channels: int) -> bytes | None:
    """The colour profile, unless it is one for gray and the file will hold three channels."""
    return None if icc is not None and icc[16:20] == b"GRAY" and channels >= 3 else icc


def _check_profile(icc: object) -> bytes | None:
    """A profile whose header is whole. A broken one would spread to every file made from this one."""
    if not isinstance(icc, bytes) or len(icc) < 128 or icc[36:40] != b"acsp":
        return None
    return icc if int.from_bytes(icc[:4], "big") <= len(icc) else None


def _read_exif(image: Image.Image) -> bytes | None:
    block = image.info.get("exif")
    return block if isinstance(block, bytes) else None


def _check_resolution(dpi: object) -> tuple[float, float] | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    across, down = float(dpi[0]), float(dpi[1])
    sound = all(math.isfinite(value) and 0 < value < 2**31 * 0.0254 for value in (across, down))  # what a PNG holds
    return (across, down) if sound else None
