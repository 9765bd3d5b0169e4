"""HEIC, read with the extra `heic` (pillow-heif); libheif turns it upright by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from restore_cli.errors import INSTALL_EXTRA
from restore_cli.image.formats.samples import widen_to_16_bits
from restore_cli.image.picture import Samples
from restore_cli.image.reasons import UnsupportedImage

if TYPE_CHECKING:
    from pillow_heif import HeifFile, HeifImage

__all__ = ["read_info", "read_pictures", "read_samples"]


def read_pictures(data: bytes) -> HeifFile:
    """The pictures of a file; nothing is decoded yet. Raises Unsupported without the extra."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UnsupportedImage("a HEIC image, which needs an extra", INSTALL_EXTRA.format("heic")) from error
    return pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)


def read_info(image: HeifImage) -> dict[str, Any]:
    """What one of them says of itself: bit_depth, exif, xmp, icc_profile."""
    return dict(image.info)


def read_samples(image: HeifImage) -> Samples:
    """(h, w, c) of one of them, 8 bits as they are, 10 and 12 bits widened to 16, alpha last."""
    samples: Samples = np.atleast_3d(np.asarray(image))
    return np.array(samples) if samples.dtype == np.uint8 else widen_to_16_bits(samples, read_info(image)["bit_depth"])
