"""libvips: rows of pixels at the depth of the file.

The caller detects the format, and only the loader of that format is run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import pyvips
from PIL import Image

from restore_cli.image.formats.patched import Patch, PatchedFile
from restore_cli.image.picture import Samples

__all__ = ["describe_error", "lab_to_srgb", "make_row_fetcher", "open_image", "to_srgb", "turn_upright"]

logging.getLogger("pyvips").addHandler(logging.NullHandler())  # keep its warnings off standard error
pyvips.cache_set_max(0)  # no operation runs twice, and the cache would keep pixels alive

LOADERS = {
    "PNG": "pngload_source",
    "JPEG": "jpegload_source",
    "TIFF": "tiffload_source",
    "WEBP": "webpload_source",
    "AVIF": "heifload_source",
}
# libjpeg reports damage only as warnings. libpng also warns of harmless profiles.
STRICTNESS = {"JPEG": "warning"}
DTYPES = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}


def open_image(
    format: str, file: Path | bytes, *, page: int = 0, sequential: bool = True, patch: Patch | None = None
) -> pyvips.Image:
    """Open one page of a file, with `patch` applied. Pixels are decoded later. Raises pyvips.Error, OSError."""
    source = make_source(file, patch)
    options: dict[str, Any] = {"fail_on": STRICTNESS.get(format, "error")}
    options["access"] = "sequential" if sequential else "random"
    if format in ("TIFF", "WEBP", "AVIF"):
        options["page"] = page
    if format in ("PNG", "JPEG", "TIFF", "AVIF"):
        options["unlimited"] = True  # no limits of libtiff and libpng; --max-pixels was checked before
    image = getattr(pyvips.Image, LOADERS[format])(source, **options)
    image._references.append(source)  # keeps the bytes alive; pyvips copies the list to derived images
    return image


def make_source(file: Path | bytes, patch: Patch | None) -> pyvips.Source:
    if patch is not None:
        stream = PatchedFile(BytesIO(file) if isinstance(file, bytes) else file.open("rb"), patch)
        source = pyvips.SourceCustom()
        source.on_read(stream.read)
        source.on_seek(stream.seek)
        finalize(source, stream.close)
        return source
    if isinstance(file, bytes):
        return pyvips.Source.new_from_memory(file)
    return pyvips.Source.new_from_file(os.fsencode(file))


def turn_upright(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """Apply an EXIF orientation of 1-8 to an image that is not sequential.

    Above 100 MB libvips keeps the pixels in a temporary file.
    """
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return image.autorot()


def to_srgb(image: pyvips.Image, kind: str) -> pyvips.Image:
    """Convert an image of `kind` "cmyk", "lab" or "opaque" to sRGB: 16 bits for the first two.

    CMYK without a profile uses the one of libvips. "opaque" is YCbCr that libtiff converted to RGB with a meaningless
    fourth channel.
    """
    if kind == "cmyk":
        return image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", depth=16, intent="relative", black_point_compensation=True
        )
    return image.extract_band(0, n=3) if kind == "opaque" else image.colourspace("rgb16")


def lab_to_srgb(image: Image.Image) -> Samples:
    """Return a decoded 8-bit Lab image as (h, w, 3) 16-bit sRGB: L is scaled to 255, a and b are signed."""
    samples = np.asarray(image)
    h, w, _ = samples.shape
    lab = np.concatenate([samples[..., :1] * np.float32(100 / 255), samples[..., 1:].view(np.int8)], 2)
    converted = (
        pyvips.Image.new_from_memory(lab.tobytes(), w, h, 3, "float").copy(interpretation="lab").colourspace("rgb16")
    )
    return make_row_fetcher(converted)(0, h)


def make_row_fetcher(image: pyvips.Image) -> Callable[[int, int], Samples]:
    """Return fetch(top, bottom) -> (n, w, c) at the image's depth, which raises pyvips.Error if the file is damaged."""
    region = pyvips.Region.new(image)
    dtype = DTYPES[image.format]

    def fetch(top: int, bottom: int) -> Samples:
        data = region.fetch(0, top, image.width, bottom - top)
        return np.frombuffer(data, dtype).reshape(bottom - top, image.width, image.bands)

    return fetch


def describe_error(error: pyvips.Error) -> str:
    """Return an error of libvips in one line.

    libvips keeps one message buffer for all threads, so the message may be empty.
    """
    lines = dict.fromkeys(" ".join(line.split()) for line in str(error.detail).splitlines())
    message = "; ".join(line for line in lines if line)
    found = "damaged, or a variant that cannot be read"
    return f"{found} ({message[:200]})" if message else found
