"""Properties of a JPEG that its markers reveal: the encoder's quality, and the number of stereo pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import SEEK_END
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, MpoImagePlugin

from restore_cli.image.reasons import UnreadableImage

__all__ = ["check_progressive_length", "compute_luminance_table", "count_stereo_frames", "estimate_quality"]

# ITU-T T.81, Annex K, table K.1: luminance, row by row
# fmt: off
_LUMINANCE = np.array([
     16,  11,  10,  16,  24,  40,  51,  61,
     12,  12,  14,  19,  26,  58,  60,  55,
     14,  13,  16,  24,  40,  57,  69,  56,
     14,  17,  22,  29,  51,  87,  80,  62,
     18,  22,  37,  56,  68, 109, 103,  77,
     24,  35,  55,  64,  81, 104, 113,  92,
     49,  64,  78,  87, 103, 121, 120, 101,
     72,  92,  95,  98, 112, 100, 103,  99,
], dtype=np.int64)
# fmt: on


def compute_luminance_table(quality: int) -> NDArray[np.int64]:
    """Return libjpeg's luminance table for `quality` 1-100: (64,), row by row, baseline (entries 1-255)."""
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}, expected 1-100")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_LUMINANCE * percent + 50) // 100, 1, 255)


def estimate_quality(tables: Mapping[int, Sequence[int]]) -> int:
    """Return the libjpeg quality, 1-100, whose luminance table is nearest to the first of `tables`.

    `tables` are quantisation tables, row by row (not zigzag). The result is exact for files of libjpeg. For other
    encoders (Photoshop, cameras) differences are divided by the standard table, so that all frequencies weigh the same.

    Raises ValueError if there is no table of 64 entries.
    """
    if not tables:
        raise ValueError("no quantisation table")
    found = np.asarray(tables[min(tables)], dtype=np.int64)
    if found.shape != _LUMINANCE.shape:
        raise ValueError(f"a quantisation table has {found.size} entries, expected 64")
    tables_by_quality = [compute_luminance_table(quality) for quality in range(1, 101)]
    return 1 + int(np.argmin([(abs(found - table) / _LUMINANCE).sum() for table in tables_by_quality]))


def check_progressive_length(stream: IO[bytes], width: int, height: int) -> None:
    """Refuse a progressive JPEG that is shorter than one bit per block.

    libjpeg holds a progressive file in memory as large as its header says, so false headers are refused before that.
    Raises UnreadableImage.
    """
    size, least = stream.seek(0, SEEK_END), -(-width // 8) * -(-height // 8) // 8
    if size < least:
        raise UnreadableImage(f"damaged JPEG: {width}×{height} px need at least {least} bytes, the file has {size}")


def count_stereo_frames(image: ImageFile.ImageFile) -> int:
    """Return the number of pictures in a stereo pair or panorama (multi-picture format), else 1.

    Cameras append previews and phones append gain maps in the same format; these do not count.
    """
    if not isinstance(image, MpoImagePlugin.MpoImageFile):
        return 1
    entries = (image.mpinfo or {}).get(0xB002, [])
    several = any(str(entry["Attribute"]["MPType"]).startswith("Multi-Frame") for entry in entries)
    return len(entries) if several else 1
