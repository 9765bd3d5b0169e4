"""Metadata as read from a file, checked and converted to the form that any other format can store."""

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
_IPTC_RESOURCE = 0x0404  # among Photoshop image resources
SUB_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# Tags that describe the photograph. EXIF's first directory also has TIFF's layout tags (sizes, strips, compression),
# which are true only of the source file.
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
    """Return the EXIF orientation, 1-8, that must be applied to the pixels of an opened file."""
    return reset_orientation(_read_exif(image))[0]


def read_pillow_metadata(image: Image.Image) -> Metadata:
    """Return the metadata of an opened file, as valid for the upright picture."""
    info = image.info
    comment = info.get("comment")
    text = {"Comment": comment.decode("utf-8", "replace")} if isinstance(comment, bytes) and comment else {}
    resources = info.get("photoshop")
    iptc = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    icc = info["icc_profile"] or b"" if "icc_profile" in info else None  # None: parts of it are missing
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
    """Return the EXIF orientation to apply, 1-8, and the metadata of the upright picture.

    Values of unexpected types are ignored. `left_out` has the messages of the file's reader; messages about damaged
    EXIF, profiles and texts are added.
    """
    original_exif = exif or find_raw_profile(text, "exif", "APP1") or b""
    orientation, exif = reset_orientation(original_exif)
    profile = _check_profile(icc)
    packet = text.get(XMP_KEYWORD, "").encode() or find_raw_profile(text, "xmp") or b""
    packet = xmp if isinstance(xmp, bytes) else packet
    if orientation != 1:
        packet = _XMP_ORIENTATION.sub(rb"\g<1>1", packet)
    iptc = iptc if isinstance(iptc, bytes) else extract_iptc(find_raw_profile(text, "iptc", "8bim"))
    kept = {key: value for key, value in text.items() if key != XMP_KEYWORD and not key.startswith(_RAW)}
    dpi = _check_resolution(dpi) or _check_resolution(read_resolution(exif))
    lost = [*left_out, *find_unusable_profiles(text)]
    if icc is not None and profile is None:
        lost.append("its colour profile is damaged and left out")
    if original_exif.removeprefix(EXIF_PREFIX) and exif is None:
        lost.append("its EXIF is damaged and left out")
    left_out = tuple(dict.fromkeys(lost))
    return orientation, Metadata(profile, exif, packet or None, dpi, kept, iptc or None, left_out=left_out)


def find_unusable_profiles(text: Mapping[str, str]) -> Iterator[str]:
    """Yield a message for each raw profile text of a PNG that cannot be used."""
    for key, value in text.items():
        if key.startswith(_RAW) and not decode_raw_profile(value):
            yield f"its text {key[:40]!a} is damaged and left out"
        elif key.startswith(_RAW) and key.removeprefix(_RAW) not in _PROFILES:
            yield f"its text {key[:40]!a} has an unknown type and is left out"


def update_size(metadata: Metadata, width: int, height: int) -> Metadata:
    """Return the metadata with a new size, in px, wherever EXIF and XMP state one."""
    xmp = metadata.xmp and _XMP_WIDTH.sub(rb"\g<1>%d" % width, metadata.xmp)
    xmp = xmp and _XMP_HEIGHT.sub(rb"\g<1>%d" % height, xmp)
    return replace(metadata, exif=set_size(metadata.exif, width, height), xmp=xmp)


def find_raw_profile(text: Mapping[str, str], *names: str) -> bytes | None:
    """Return the first valid raw profile of these names among the texts of a PNG."""
    found = (decode_raw_profile(text.get(_RAW + name)) for name in names)
    return next((block for block in found if block), None)


def extract_iptc(block: bytes | None) -> bytes | None:
    """Return IPTC records, unwrapped if they are inside Photoshop image resources."""
    while block and block.startswith(b"8BIM"):
        kind, name = int.from_bytes(block[4:6], "big"), block[6:7]
        start = 7 + (name[0] | 1 if name else 0)  # name and length byte are padded to an even size
        size = int.from_bytes(block[start : start + 4], "big")
        data, block = block[start + 4 : start + 4 + size], block[start + 4 + size + size % 2 :]
        if kind == _IPTC_RESOURCE:
            return data
    return None if block == b"" else block


def encode_raw_profile(name: str, data: bytes) -> bytes:
    """Encode a block as text of a PNG, like ImageMagick and ExifTool: three lines, then hexadecimal."""
    digits = data.hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return "\n".join(["", name, f"{len(data):8d}", *lines, ""]).encode()


def decode_raw_profile(text: str | None) -> bytes | None:
    """Decode a block from the text of a PNG, or return None if it is damaged or empty."""
    try:
        found = bytes.fromhex("".join(text.split("\n")[3:])) if text else b""
    except ValueError:
        return None
    return found or None


def select_descriptive_tags(exif: bytes | Image.Exif) -> Image.Exif:
    """Return the tags that describe the photograph, without those for the layout of the source file."""
    source, kept = exif if isinstance(exif, Image.Exif) else Image.Exif(), Image.Exif()
    if isinstance(exif, bytes):
        source.load(exif)
    for tag in DESCRIPTIVE_TAGS:
        if tag in source:
            kept[tag] = source[tag]
    for folder in SUB_DIRECTORIES:
        if inside := source.get_ifd(folder):
            kept[folder] = dict(inside)
    return kept


def can_rewrite_exif(exif: bytes) -> bool:
    """Whether Pillow can rewrite the block. It does so for AVIF, which stores the orientation outside EXIF."""
    block = Image.Exif()
    try:
        block.load(exif)
        block.tobytes()
    except Exception:  # damaged tags can raise anything
        return False
    return True


def fit_profile(icc: bytes | None, channels: int) -> bytes | None:
    """Return the profile, or None if it is for gray and the file stores at least three channels."""
    return None if icc is not None and icc[16:20] == b"GRAY" and channels >= 3 else icc


def _check_profile(icc: object) -> bytes | None:
    """Return the profile if its header is valid, so that damaged profiles are not copied to new files."""
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
    valid = all(math.isfinite(value) and 0 < value < 2**31 * 0.0254 for value in (across, down))  # the limit of PNG
    return (across, down) if valid else None
