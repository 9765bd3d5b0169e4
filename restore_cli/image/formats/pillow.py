"""Pillow: safe use of its process-wide settings, and its images as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from restore_cli.image.picture import Header, Pixels
from restore_cli.image.reasons import UnsupportedImage
from restore_cli.shared_context import NO_WARNINGS, SharedContext

__all__ = ["PLUGINS", "apply_orientation", "match_channels", "pillow_settings", "read_array"]

# `Image.open` tries all formats and reports only "cannot identify". The openers of each format say what is wrong.
PLUGINS: dict[str, Callable[[IO[bytes], str], ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": jpeg_factory,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "AVIF": AvifImageFile,
    "GIF": GifImageFile,
}
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"}
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {  # EXIF orientation -> upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@contextmanager
def _own_limits() -> Iterator[None]:
    """Let Pillow accept images of any size, and refuse truncated ones."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


_LIMITS = SharedContext(_own_limits)


@contextmanager
def pillow_settings() -> Iterator[None]:
    """Run Pillow without warnings, without its own size limit (`max_pixels` is ours), and strict about truncated files.

    These settings belong to the whole process. Any number of threads may be inside; when the last one leaves, Pillow's
    settings and Python's warning filters are restored.
    """
    with NO_WARNINGS, _LIMITS:
        yield


def apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Return pixels (h, w, c) turned upright, for an EXIF orientation of 1-8."""
    return _TURNS[orientation](pixels)


def read_array(image: Image.Image) -> Pixels:
    """Return a loaded image as (h, w, c), alpha last.

    Alpha may be stored as a channel, in the palette, or as one transparent colour. Raises UnsupportedImage.
    """
    if image.mode not in _MODES:
        raise UnsupportedImage(f"pixels of type {image.mode} cannot be read", "kind")
    transparent = image.info.pop("transparency", None) if image.mode in ("1", "L", "RGB") else None
    palette = "RGBA" if image.has_transparency_data else "RGB"
    mode = {"1": "L", "La": "LA", "P": palette, "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}.get(image.mode, image.mode)
    samples: Pixels = np.atleast_3d(np.asarray(image if mode == image.mode else image.convert(mode)))
    if transparent is None:
        return samples
    alpha = np.where(np.all(samples == np.asarray(transparent), axis=2, keepdims=True), 0, 255)
    return np.concatenate([samples, alpha.astype(np.uint8)], 2)


def match_channels(samples: Pixels, header: Header) -> Pixels:
    """Return the samples with the channels of `header`. Frames of an animation may differ from the first one."""
    channels = header.channels + header.alpha
    if samples.shape[2] == channels:
        return np.ascontiguousarray(samples)
    colours = samples[..., : 3 if samples.shape[2] > 2 else 1]
    colours = colours if colours.shape[2] == header.channels else colours.repeat(header.channels, 2)
    opaque = np.full((*samples.shape[:2], 1), 255, np.uint8)
    alpha = samples[..., -1:] if samples.shape[2] in (2, 4) else opaque
    return np.concatenate([colours[..., : header.channels], alpha], 2)[..., :channels]
