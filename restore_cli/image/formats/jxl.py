"""JPEG XL files, read and written by pyjpegxl (extra `jxl`). libjxl applies the orientation itself."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from restore_cli.errors import INSTALL_EXTRA
from restore_cli.image.metadata.collect import build_metadata, fit_profile
from restore_cli.image.metadata.exif import EXIF_PREFIX, add_resolution
from restore_cli.image.picture import Metadata, Samples
from restore_cli.image.reasons import UnreadableImage, UnsupportedImage

if TYPE_CHECKING:
    from restore_cli.image.formats.jxl_header import JxlHeader

__all__ = ["decode_jxl", "encode_jxl", "is_installed", "read_metadata"]

SAMPLE_TYPES = {8: np.uint8, 16: np.uint16, 32: np.float32}
OFFSET_BYTES = 4
"""of the number before an EXIF block: how many bytes come before its header"""


def load_library() -> ModuleType:
    """Return the module. Raises UnsupportedImage if the extra is not installed."""
    try:
        import pyjpegxl
    except ImportError as error:
        raise UnsupportedImage("JPEG XL needs an optional package", INSTALL_EXTRA.format("jxl")) from error
    return pyjpegxl


def is_installed() -> bool:
    """Whether JPEG XL can be read and written."""
    try:
        load_library()
    except UnsupportedImage:
        return False
    return True


def read_metadata(data: bytes) -> tuple[int, Metadata]:
    """Return the number of colour channels, 1 or 3, and the metadata. No pixel is decoded."""
    found = load_library().probe(data)
    channels = 1 if found.num_color_channels == 1 else 3
    icc = None if found.icc == make_default_profile(channels) else found.icc
    exif = EXIF_PREFIX + found.exif[OFFSET_BYTES + int.from_bytes(found.exif[:4], "big") :] if found.exif else None
    return channels, build_metadata(icc, exif, found.xmp, None, {}, None)[1]


def decode_jxl(data: bytes, header: JxlHeader, channels: int) -> Samples:
    """Decode to (h, w, c), alpha last: up to 8 bits to uint8, up to 16 to uint16, floating point to float32."""
    shape = (header.height, header.width, channels + header.alpha)
    samples: Samples = np.empty(shape, SAMPLE_TYPES[header.depth])
    try:
        load_library().decode_into(data, samples)
    except RuntimeError as error:
        raise UnreadableImage(f"damaged JPEG XL ({error})") from error
    return samples


def encode_jxl(samples: Samples, metadata: Metadata) -> bytes:
    """Return a lossless file of (h, w, c) uint8, uint16 or float32, alpha last."""
    library, channels = load_library(), samples.shape[2]
    icc = fit_profile(metadata.icc, channels)
    if icc is None and samples.dtype == np.float32:  # otherwise its values would mean linear light
        icc = make_default_profile(1 if channels < 3 else 3)
    exif = (add_resolution(metadata.exif, metadata.dpi) or b"").removeprefix(EXIF_PREFIX)
    file: bytes = library.encode_from_numpy(
        samples,
        lossless=True,
        speed=library.EncoderSpeed.Hare,
        exif=bytes(OFFSET_BYTES) + exif if exif else None,
        xmp=metadata.xmp,
        icc=icc,
    )
    return file


@cache
def make_default_profile(channels: int) -> bytes:
    """Return the profile that libjxl states for sRGB, or for gray with its curve, if a file has no profile."""
    library = load_library()
    icc: bytes = library.probe(library.encode_from_numpy(np.zeros((1, 1, channels), np.uint8), lossless=True)).icc
    return icc
