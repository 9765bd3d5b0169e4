"""libvips, asked for one format at a time: pixels of any depth, in rows, as they are in the file.

The format is decided by our own look at the content, so that no other loader ever sees a byte of it.
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

from restore_cli.image.formats.patched import Patch, PatchedFile
from restore_cli.image.picture import Samples

__all__ = ["describe_error", "lab_to_srgb", "make_row_fetcher", "open_image", "to_srgb", "turn_upright"]

logging.getLogger("pyvips").addHandler(logging.NullHandler())  # its warnings are not for standard error
pyvips.cache_set_max(0)  # nothing is asked for twice, and a cached operation would hold its pixels

LOADERS = {
    "PNG": "pngload_source",
    "JPEG": "jpegload_source",
    "TIFF": "tiffload_source",
    "WEBP": "webpload_source",
    "AVIF": "heifload_source",
}
# A JPEG has no checksum: what libjpeg stumbles over it only warns of. libpng warns of harmless profiles.
STRICTNESS = {"JPEG": "warning"}
DTYPES = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}


def open_image(
    format: str, file: Path | bytes, *, page: int = 0, sequential: bool = True, patch: Patch | None = None
) -> pyvips.Image:
    """The image, not yet decoded, of the file as the patch changes it. Raises pyvips.Error, OSError."""
    source = make_source(file, patch)
    options: dict[str, Any] = {"fail_on": STRICTNESS.get(format, "error")}
    options["access"] = "sequential" if sequential else "random"
    if format in ("TIFF", "WEBP", "AVIF"):
        options["page"] = page
    if format in ("PNG", "JPEG", "TIFF", "AVIF"):
        options["unlimited"] = True  # libtiff's and libpng's own limits; ours, --max-pixels, was checked before
    image = getattr(pyvips.Image, LOADERS[format])(source, **options)
    image._references.append(source)  # pyvips passes it on to every image made from this one, and so its bytes live
    return image


def make_source(file: Path | bytes, patch: Patch | None) -> pyvips.Source:
    """Where libvips reads from."""
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
    """Upright. The image must not be sequential; beyond 100 MB libvips keeps its pixels in a temporary file."""
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return image.autorot()


def to_srgb(image: pyvips.Image, kind: str) -> pyvips.Image:
    """CMYK through its profile, or libvips' own where it has none, and Lab -> 16-bit sRGB.

    "opaque" is YCbCr that libtiff has made RGB, with a fourth channel that says nothing.
    """
    if kind == "cmyk":
        return image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", depth=16, intent="relative", black_point_compensation=True
        )
    return image.extract_band(0, n=3) if kind == "opaque" else image.colourspace("rgb16")


def lab_to_srgb(samples: Samples) -> pyvips.Image:
    """(h, w, 3) uint8, L of 255, a and b signed -> 16-bit sRGB."""
    h, w, _ = samples.shape
    lab = np.concatenate([samples[..., :1] * np.float32(100 / 255), samples[..., 1:].view(np.int8)], 2)
    return pyvips.Image.new_from_memory(lab.tobytes(), w, h, 3, "float").copy(interpretation="lab").colourspace("rgb16")


def make_row_fetcher(image: pyvips.Image) -> Callable[[int, int], Samples]:
    """fetch(top, bottom) -> (n, w, c) of the image's own depth. Raises pyvips.Error where the file is damaged."""
    region = pyvips.Region.new(image)
    dtype = DTYPES[image.format]

    def fetch(top: int, bottom: int) -> Samples:
        data = region.fetch(0, top, image.width, bottom - top)
        return np.frombuffer(data, dtype).reshape(bottom - top, image.width, image.bands)

    return fetch


def describe_error(error: pyvips.Error) -> str:
    """What libvips said, in one line. It has one place for all threads, which another may just have emptied."""
    lines = dict.fromkeys(" ".join(line.split()) for line in str(error.detail).splitlines())
    said = "; ".join(line for line in lines if line)
    found = "damaged, or of a kind that cannot be read"
    return f"{found} ({said[:200]})" if said else found
