"""A TIFF writer: deflate with horizontal differencing, in strips.

Pillow writes compressed TIFF through libtiff, which cannot write the EXIF and GPS folders from memory; its own
directory can, but leaves pixels uncompressed. Here Pillow lays out the directory and the strips are ours.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from itertools import accumulate
from typing import IO

from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from restore_cli.image.metadata import descriptive
from restore_cli.image.picture import Metadata, Pixels

__all__ = ["write_tiff"]

_STRIP = 1 << 18  # bytes of pixels per strip: large enough to compress well, small enough to read a part
_ICC, _XMP, _PREDICTOR = 34675, 700, 317


def write_tiff(samples: Pixels, sink: IO[bytes], metadata: Metadata) -> None:
    """(h, w, c), c = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha -> a little-endian TIFF (TIFF 6.0)."""
    height, width, channels = samples.shape
    rows = min(height, max(1, _STRIP // (width * channels)))
    strips = [_compressed(samples[top : top + rows]) for top in range(0, height, rows)]
    try:
        folder = _folder(samples.shape, rows, strips, metadata)
        head = _serialised(folder)
    except Exception:  # EXIF may hold what no TIFF tag can; the picture is worth more
        head = _serialised(_folder(samples.shape, rows, strips, Metadata(metadata.icc, None, metadata.xmp)))
    sink.write(head)
    sink.writelines(strips)


def _compressed(rows: Pixels) -> bytes:
    """A strip after predictor 2: each sample less the one to its left, modulo 256."""
    difference = rows.copy()
    difference[:, 1:] -= rows[:, :-1]
    return zlib.compress(difference.tobytes(), 6)


def _folder(shape: tuple[int, ...], rows: int, strips: list[bytes], metadata: Metadata) -> ImageFileDirectory_v2:
    height, width, channels = shape
    folder = ImageFileDirectory_v2()
    folder[TiffImagePlugin.IMAGEWIDTH], folder[TiffImagePlugin.IMAGELENGTH] = width, height
    folder[TiffImagePlugin.BITSPERSAMPLE] = (8,) * channels
    folder[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    folder[TiffImagePlugin.COMPRESSION] = 8  # deflate
    folder[_PREDICTOR] = 2
    folder[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1 if channels < 3 else 2  # black is zero, RGB
    folder[TiffImagePlugin.PLANAR_CONFIGURATION] = 1
    if channels in (2, 4):
        folder[TiffImagePlugin.EXTRASAMPLES] = 2  # alpha, not premultiplied
    folder[TiffImagePlugin.ROWSPERSTRIP] = rows
    folder[TiffImagePlugin.STRIPBYTECOUNTS] = tuple(map(len, strips))
    folder[TiffImagePlugin.STRIPOFFSETS] = tuple(accumulate(map(len, strips[:-1]), initial=0))
    _describe(folder, metadata)
    return folder


def _describe(folder: ImageFileDirectory_v2, metadata: Metadata) -> None:
    if metadata.dpi:
        folder[TiffImagePlugin.X_RESOLUTION], folder[TiffImagePlugin.Y_RESOLUTION] = metadata.dpi
        folder[TiffImagePlugin.RESOLUTION_UNIT] = 2  # inch
    if metadata.icc:
        folder[_ICC] = metadata.icc
    if metadata.xmp:
        folder.tagtype[_XMP] = 1  # bytes
        folder[_XMP] = metadata.xmp
    if metadata.exif:
        tags: Image.Exif = descriptive(metadata.exif)
        for tag in tags:
            folder[tag] = tags[tag]


def _serialised(folder: ImageFileDirectory_v2) -> bytes:
    """Header and directory; strip offsets, counted from the first strip so far, are moved behind them."""
    buffer = BytesIO()
    folder.save(buffer)
    return buffer.getvalue()
