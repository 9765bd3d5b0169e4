"""Metadata of a file as Pillow found it, made fit for another file."""

from __future__ import annotations

import math
import re
import struct

from PIL import ExifTags, Image

from restore_cli.image.picture import Metadata

__all__ = [
    "IPTC_KEY",
    "assembled",
    "collect",
    "descriptive",
    "orientation",
    "packed_profile",
    "profile_for",
    "rewritable",
    "unpacked_profile",
    "upright",
]

_EXIF = b"Exif\0\0"
_XMP_KEY = "XML:com.adobe.xmp"
IPTC_KEY = "Raw profile type iptc"
_IPTC_RESOURCE = 0x0404  # of a Photoshop block
_SUB_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# EXIF shares its first folder with TIFF's layout tags (sizes, strips, compression), which belong to the old file.
_DESCRIPTIVE = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.HostComputer,
    ExifTags.Base.Copyright,
)
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))[2-8]""")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1-8, that is still to be applied to the opened file's pixels."""
    return upright(_exif(image))[0]


def collect(image: Image.Image) -> Metadata:
    """What the opened file says beside its pixels, as it will be true of the upright picture."""
    info = image.info
    comment = info.get("comment")
    text = {"Comment": comment.decode("utf-8", "replace")} if isinstance(comment, bytes) and comment else {}
    resources = info.get("photoshop")
    iptc = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    return assembled(info.get("icc_profile"), _exif(image), info.get("xmp"), info.get("dpi"), text, iptc)[1]


def assembled(
    icc: object, exif: bytes | None, xmp: object, dpi: object, text: dict[str, str], iptc: object
) -> tuple[int, Metadata]:
    """The orientation that is still to be applied, and the metadata as they will be true after."""
    text = dict(text)
    turned, exif = upright(exif or unpacked_profile(text.get("Raw profile type exif")))
    in_text = text.pop(_XMP_KEY, "").encode()
    block = xmp if isinstance(xmp, bytes) else in_text
    iptc = iptc if isinstance(iptc, bytes) else unpacked_profile(text.get(IPTC_KEY))
    if turned != 1:
        block = _XMP_ORIENTATION.sub(rb"\g<1>1", block)
    kept = {key: value for key, value in text.items() if not key.startswith("Raw profile type")}
    return turned, Metadata(_profile(icc), exif, block or None, _dpi(dpi), kept, iptc or None)


def packed_profile(name: str, data: bytes) -> bytes:
    """A block as ImageMagick and ExifTool keep it in the text of a PNG: three lines, then hexadecimal."""
    digits = data.hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return "\n".join(["", name, f"{len(data):8d}", *lines, ""]).encode()


def unpacked_profile(text: str | None) -> bytes | None:
    """The block that such a text holds."""
    try:
        found = bytes.fromhex("".join(text.split("\n")[3:])) if text else b""
    except ValueError:
        return None
    return found or None


def upright(exif: bytes | None) -> tuple[int, bytes | None]:
    """The orientation that an EXIF block states, and the block with that tag at 1 and its thumbnail unlinked.

    The block is patched, not written anew, so that makers' notes with absolute offsets stay readable.
    A block whose first folder cannot be read is worth nothing: (1, None).
    """
    data = bytearray((exif or b"").removeprefix(_EXIF))
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[:4]))
    if order is None:
        return 1, None
    stated = 1
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        end = start + 2 + 12 * count
        for entry in range(start + 2, end, 12):
            tag, kind = struct.unpack_from(order + "HH", data, entry)
            if tag == ExifTags.Base.Orientation and kind == 3:  # 3: unsigned short
                (stated,) = struct.unpack_from(order + "H", data, entry + 8)
                struct.pack_into(order + "H", data, entry + 8, 1)
        if len(data) >= end + 4:
            struct.pack_into(order + "I", data, end, 0)  # the second folder is the thumbnail
    except struct.error:
        return 1, None
    return stated if 1 <= stated <= 8 else 1, _EXIF + bytes(data)


def descriptive(exif: bytes | Image.Exif) -> Image.Exif:
    """The tags that describe a photograph, without those that describe the layout of the file it was in."""
    source, kept = Image.Exif(), Image.Exif()
    if isinstance(exif, bytes):
        source.load(exif)
    else:
        source = exif
    for tag in _DESCRIPTIVE:
        if tag in source:
            kept[tag] = source[tag]
    for folder in _SUB_FOLDERS:
        if inside := source.get_ifd(folder):
            kept[folder] = dict(inside)
    return kept


def rewritable(exif: bytes) -> bool:
    """True where Pillow can write the block anew, as it does for AVIF, whose orientation stands outside of EXIF."""
    block = Image.Exif()
    try:
        block.load(exif)
        block.tobytes()
    except Exception:  # its tags may hold anything
        return False
    return True


def profile_for(metadata: Metadata, channels: int) -> bytes | None:
    """The colour profile, unless it is one for gray and the file will hold three channels."""
    gray = metadata.icc is not None and metadata.icc[16:20] == b"GRAY"
    return None if gray and channels == 3 else metadata.icc


def _profile(icc: object) -> bytes | None:
    """A profile whose header is whole. A broken one would spread to every file made from this one."""
    if not isinstance(icc, bytes) or len(icc) < 128 or icc[36:40] != b"acsp":
        return None
    return icc if int.from_bytes(icc[:4], "big") <= len(icc) else None


def _exif(image: Image.Image) -> bytes | None:
    block = image.info.get("exif")
    return block if isinstance(block, bytes) else None


def _dpi(dpi: object) -> tuple[float, float] | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    across, down = float(dpi[0]), float(dpi[1])
    sound = all(math.isfinite(value) and 0 < value <= 65535 for value in (across, down))  # JPEG has 16 bits for it
    return (across, down) if sound else None
