"""Pillow, held still for one call: its limits, switches and warnings are the whole process's."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from restore_cli.image.picture import Header, Pixels
from restore_cli.image.reasons import UnsupportedImage

__all__ = ["OPENERS", "apply_orientation", "match_channels", "pillow_settings", "read_array"]

# `Image.open` would try every format it knows and then say only "cannot identify": these say what is wrong.
OPENERS: dict[str, Callable[[IO[bytes], str], ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": jpeg_factory,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "AVIF": AvifImageFile,
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


class _SettingsGuard:
    """How many threads are inside `held`, and what the first of them found."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.found = ExitStack()

    def enter(self) -> None:
        """The first one in puts the settings as all of them want them."""
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.found.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                self.found.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                self.found.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False

    def leave(self) -> None:
        """The last one out puts them back."""
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.found.close()


_guard = _SettingsGuard()


@contextmanager
def pillow_settings() -> Iterator[None]:
    """Inside, Pillow warns of nothing, refuses no size (`max_pixels` is our limit) and fills in no missing pixels.

    Its settings and Python's warning filters are put back when no thread is inside any more.
    """
    _guard.enter()
    try:
        yield
    finally:
        _guard.leave()


def apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Upright."""
    return _TURNS[orientation](pixels)


def read_array(image: ImageFile.ImageFile) -> Pixels:
    """The loaded image as (h, w, c), alpha last where it has one: a channel, in the palette, a clear colour."""
    if image.mode not in _MODES:
        raise UnsupportedImage(f"{image.mode} pixels in this format", "kind")
    clear = image.info.pop("transparency", None) if image.mode in ("1", "L", "RGB") else None
    palette = "RGBA" if image.has_transparency_data else "RGB"
    mode = {"1": "L", "La": "LA", "P": palette, "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}.get(image.mode, image.mode)
    samples: Pixels = np.atleast_3d(np.asarray(image if mode == image.mode else image.convert(mode)))
    if clear is None:
        return samples
    alpha = np.where(np.all(samples == np.asarray(clear), axis=2, keepdims=True), 0, 255)
    return np.concatenate([samples, alpha.astype(np.uint8)], 2)


def match_channels(samples: Pixels, header: Header) -> Pixels:
    """Later frames of an animation may have gained or lost a channel: as many as the first one has."""
    channels = header.channels + header.alpha
    if samples.shape[2] == channels:
        return np.ascontiguousarray(samples)
    colours = samples[..., : 3 if samples.shape[2] > 2 else 1]
    colours = colours if colours.shape[2] == header.channels else colours.repeat(header.channels, 2)
    opaque = np.full((*samples.shape[:2], 1), 255, np.uint8)
    alpha = samples[..., -1:] if samples.shape[2] in (2, 4) else opaque
    return np.concatenate([colours[..., : header.channels], alpha], 2)[..., :channels]
