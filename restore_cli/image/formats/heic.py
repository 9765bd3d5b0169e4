"""HEIC files, read by pillow-heif (extra `heic`). libheif applies the orientation itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from restore_cli.errors import INSTALL_EXTRA
from restore_cli.image.formats.samples import widen_to_16_bits
from restore_cli.image.picture import Samples
from restore_cli.image.reasons import UnsupportedImage

if TYPE_CHECKING:
    from pillow_heif import HeifFile, HeifImage

__all__ = ["read_heic_samples", "read_pictures"]


def read_pictures(data: bytes) -> HeifFile:
    """Return the pictures of a file, not yet decoded. Raises UnsupportedImage if the extra is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UnsupportedImage("reading HEIC needs an optional package", INSTALL_EXTRA.format("heic")) from error
    return pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)


def read_heic_samples(image: HeifImage) -> Samples:
    """Decode a picture to (h, w, c), alpha last: 8 bits as stored, 10 and 12 bits scaled to 16."""
    samples: Samples = np.atleast_3d(np.asarray(image))
    return np.array(samples) if samples.dtype == np.uint8 else widen_to_16_bits(samples, image.info["bit_depth"])
