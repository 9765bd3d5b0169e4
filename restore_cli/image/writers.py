"""One function per format: samples and metadata -> bytes of a file, with the settings that docs/ explain.

Samples are (h, w, c): 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import IO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from restore_cli.image.metadata import profile_for, rewritable
from restore_cli.image.picture import Metadata, Picture, Pixels
from restore_cli.image.tiff import write_tiff

__all__ = ["HOLDS_ALPHA", "LONGEST_SIDE", "MOST_BYTES", "serialise"]

HOLDS_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF")
LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}  # px, of the libraries that write them
MOST_BYTES = {"TIFF": 2**32 - 2**24, "BMP": 2**32 - 2**16}  # of samples: offsets in these files have 32 bits

_JPEG_MARKER = 65533  # bytes that fit into one marker: EXIF and XMP have no way to span several
_XMP_OVERHEAD = 29


def serialise(picture: Picture, format: str) -> bytes | memoryview:
    """The whole file. Alpha that says nothing is left out where the format has no place for it."""
    samples = picture.pixels
    if picture.alpha is not None and format in HOLDS_ALPHA:
        samples = np.concatenate([samples, picture.alpha[:, :, None]], axis=2)
    buffer = BytesIO()
    _WRITERS[format](samples, buffer, picture.metadata)
    return buffer.getbuffer()


def _image(samples: Pixels) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else np.ascontiguousarray(samples))


def _write_png(samples: Pixels, sink: IO[bytes], metadata: Metadata) -> None:
    """Level 3: on photographs a third of the time of level 6 and no larger (zlib-ng)."""
    text = PngInfo()
    for key, value in metadata.text.items():
        text.add_text(key, value)
    if metadata.xmp:
        text.add_itxt("XML:com.adobe.xmp", metadata.xmp)
    _image(samples).save(
        sink,
        "PNG",
        compress_level=3,
        icc_profile=metadata.icc,
        exif=metadata.exif,
        dpi=metadata.dpi,
        pnginfo=text,
    )


def _write_jpeg(samples: Pixels, sink: IO[bytes], metadata: Metadata) -> None:
    """Quality 95 and no colour subsampling: what was restored is not thrown away again."""
    exif, xmp = metadata.exif or b"", metadata.xmp or b""
    comment = metadata.text.get("Comment", "").encode()
    _image(samples).save(
        sink,
        "JPEG",
        quality=95,
        subsampling="4:4:4",
        icc_profile=metadata.icc,
        exif=exif if len(exif) <= _JPEG_MARKER else b"",
        xmp=xmp if len(xmp) <= _JPEG_MARKER - _XMP_OVERHEAD else b"",
        dpi=metadata.dpi or (0, 0),
        comment=comment if len(comment) <= _JPEG_MARKER else b"",
    )


def _write_webp(samples: Pixels, sink: IO[bytes], metadata: Metadata) -> None:
    """Lossless, with colours kept under transparency. WebP has no gray: three equal channels."""
    _image(samples).save(
        sink,
        "WEBP",
        lossless=True,
        exact=True,
        icc_profile=profile_for(metadata, channels=3),
        exif=metadata.exif or b"",
        xmp=metadata.xmp or b"",
    )


def _write_bmp(samples: Pixels, sink: IO[bytes], metadata: Metadata) -> None:
    """No metadata but the resolution: the format's other headers are read by few."""
    _image(samples).save(sink, "BMP", dpi=metadata.dpi or (96, 96))


def _write_avif(samples: Pixels, sink: IO[bytes], metadata: Metadata) -> None:
    """Quality 90, no colour subsampling; gray stays one channel, gray with alpha becomes RGB with alpha."""
    channels = samples.shape[2]
    _image(samples).save(
        sink,
        "AVIF",
        quality=90,
        subsampling="4:0:0" if channels == 1 else "4:4:4",
        icc_profile=profile_for(metadata, channels=1 if channels == 1 else 3) or b"",
        exif=metadata.exif if metadata.exif and rewritable(metadata.exif) else b"",
        xmp=metadata.xmp or b"",
    )


_WRITERS: dict[str, Callable[[Pixels, IO[bytes], Metadata], None]] = {
    "PNG": _write_png,
    "JPEG": _write_jpeg,
    "WEBP": _write_webp,
    "TIFF": write_tiff,
    "BMP": _write_bmp,
    "AVIF": _write_avif,
}
