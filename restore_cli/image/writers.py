"""Writers of all formats: streams of rows and metadata to a file.

Samples are (h, w, c), c = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. PNG and TIFF are written row by row.
JPEG XL needs the whole picture in memory. So does Pillow, which writes the other formats in 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image, PngImagePlugin

from restore_cli.image.formats import jxl
from restore_cli.image.formats.capabilities import FORMAT_NAMES
from restore_cli.image.formats.pillow import pillow_settings
from restore_cli.image.formats.png import write_png
from restore_cli.image.formats.tiff_writer import can_write_exif, write_tiff
from restore_cli.image.metadata.collect import (
    IPTC_KEYWORD,
    XMP_KEYWORD,
    can_rewrite_exif,
    encode_raw_profile,
    fit_profile,
)
from restore_cli.image.metadata.exif import add_resolution
from restore_cli.image.picture import Metadata, Pixels, Samples
from restore_cli.image.reasons import join_lines
from restore_cli.image.stream import PixelStream

__all__ = ["EncoderError", "EncoderOptions", "can_hold_profile", "drop_unsupported", "write_pages"]

_JPEG_MARKER = 65533  # bytes in one marker segment; EXIF and XMP cannot span several
_JPEG_PARTS = {"exif": _JPEG_MARKER, "xmp": _JPEG_MARKER - 29, "iptc": _JPEG_MARKER - 40}  # minus their headers
_JPEG_DENSITY = 65535  # dpi
_EXIF_CHECKS = {"AVIF": can_rewrite_exif, "TIFF": can_write_exif}


@dataclass(frozen=True)
class EncoderOptions:
    """Quality of lossy formats."""

    jpeg_quality: int = 95
    subsampling: str = "4:4:4"


def can_hold_profile(format: str, channels: int, icc: bytes | None) -> bool:
    """Whether `format` can store profile `icc` for pictures of `channels` channels, alpha included.

    WebP stores gray as RGB, AVIF stores gray with alpha as RGB with alpha; a gray profile does not fit these.
    """
    if format == "WEBP" or (format == "AVIF" and channels == 2):
        channels = 3
    return format != "BMP" and fit_profile(icc, channels) == icc


def drop_unsupported(format: str, metadata: Metadata) -> Metadata:
    """Return the metadata without values that `format` cannot store; `left_out` names each with the reason."""
    lost: dict[str, str] = {}
    text = dict(metadata.text)
    if format == "JPEG":
        for part, most in _JPEG_PARTS.items():
            if len(getattr(metadata, part) or b"") > most:
                lost[part] = f"its {part.upper()} is left out: a JPEG can store {most} bytes of it"
        if len(text.get("Comment", "").encode()) > _JPEG_MARKER:
            lost["text"] = f"its text 'Comment' is left out: a JPEG can store {_JPEG_MARKER} bytes of it"
            del text["Comment"]
        if metadata.dpi and max(metadata.dpi) > _JPEG_DENSITY:
            lost["dpi"] = f"its resolution is left out: a JPEG can store at most {_JPEG_DENSITY} dpi"
    elif metadata.exif and format in _EXIF_CHECKS and not _EXIF_CHECKS[format](metadata.exif):
        lost["exif"] = f"its EXIF is left out: it cannot be written to {FORMAT_NAMES[format]}"
    if not lost:
        return metadata
    values: dict[str, Any] = vars(metadata) | dict.fromkeys(lost)
    return Metadata(**values | {"text": text, "left_out": (*metadata.left_out, *lost.values())})


def write_pages(
    pages: Iterator[PixelStream], first: PixelStream, count: int, sink: IO[bytes], format: str, options: EncoderOptions
) -> None:
    """Write `count` pages that all have the size and type of `first`. Raises EncoderError, OSError."""
    if format == "TIFF":
        write_tiff(pages, sink, first.nbytes * count)
    elif format == "PNG" and count == 1:
        write_png(next(pages), sink)
    elif format == "JXL":
        page = next(pages)
        try:
            sink.write(jxl.encode_jxl(join_rows(page), page.metadata))
        except (RuntimeError, ValueError) as error:
            raise EncoderError(join_lines(error)) from error
    else:
        arrays, metadata = zip(*[(join_rows(page), page.metadata) for page in pages], strict=True)
        try:
            with pillow_settings():
                settings = _SETTINGS[format](metadata[0], arrays[0].shape[2], options)
                animation = {} if len(arrays) == 1 else _animation_settings(arrays, metadata)
                _image(arrays[0]).save(sink, format, **settings, **animation)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # Pillow's writers raise many types
            raise EncoderError(join_lines(error)) from error


class EncoderError(Exception):
    """A library cannot encode the picture."""


def join_rows(page: PixelStream) -> Samples:
    """Return all rows of a page as one array, (h, w, c)."""
    out: Samples = np.empty((page.height, page.width, page.channels), page.dtype)
    top = 0
    for block in page.blocks:
        out[top : top + block.shape[0]] = block
        top += block.shape[0]
    return out


def _image(samples: Pixels) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else np.ascontiguousarray(samples))


def _animation_settings(arrays: Sequence[Pixels], times: Sequence[Metadata]) -> dict[str, Any]:
    durations = [round(100 if time.duration is None else time.duration) for time in times]
    settings = {"save_all": True, "append_images": [_image(a) for a in arrays[1:]], "duration": durations}
    return settings if times[0].loop is None else {**settings, "loop": times[0].loop}


def _set_jpeg(metadata: Metadata, channels: int, options: EncoderOptions) -> dict[str, Any]:
    return {
        "quality": options.jpeg_quality,
        "subsampling": options.subsampling,
        "icc_profile": metadata.icc,
        "exif": metadata.exif or b"",
        "xmp": metadata.xmp or b"",
        "dpi": metadata.dpi or (0, 0),
        "comment": metadata.text.get("Comment", "").encode(),
        "extra": wrap_iptc(metadata.iptc),
    }


def wrap_iptc(iptc: bytes | None) -> bytes:
    """Return IPTC records as an APP13 marker segment of a JPEG."""
    if not iptc:
        return b""
    padded = iptc + bytes(len(iptc) % 2)
    body = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + padded
    return b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body


def _set_webp(metadata: Metadata, channels: int, options: EncoderOptions) -> dict[str, Any]:
    """Lossless, with the colours of transparent pixels (exact)."""
    return {
        "lossless": True,
        "exact": True,
        "icc_profile": fit_profile(metadata.icc, channels=3),
        "exif": add_resolution(metadata.exif, metadata.dpi) or b"",
        "xmp": metadata.xmp or b"",
    }


def _set_bmp(metadata: Metadata, channels: int, options: EncoderOptions) -> dict[str, Any]:
    """The resolution is the only metadata. Few programs read the headers that hold more."""
    return {"dpi": metadata.dpi or (0, 0)}


def _set_avif(metadata: Metadata, channels: int, options: EncoderOptions) -> dict[str, Any]:
    """Quality 90. Pillow turns gray with alpha into RGB with alpha."""
    return {
        "quality": 90,
        "subsampling": "4:0:0" if channels == 1 else "4:4:4",
        "icc_profile": fit_profile(metadata.icc, channels=1 if channels == 1 else 3) or b"",
        "exif": add_resolution(metadata.exif, metadata.dpi) or b"",
        "xmp": metadata.xmp or b"",
    }


def _set_apng(metadata: Metadata, channels: int, options: EncoderOptions) -> dict[str, Any]:
    """An animation; `write_png` writes single pictures."""
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.text.items():
        info.add_text(key, value)
    if metadata.xmp:
        info.add_itxt(XMP_KEYWORD, metadata.xmp.decode("utf-8", "replace"))
    if metadata.iptc:
        info.add_text(IPTC_KEYWORD, encode_raw_profile("iptc", metadata.iptc).decode(), zip=True)
    shown = {"blend": 0, "disposal": 0}
    return {"icc_profile": metadata.icc, "exif": metadata.exif, "dpi": metadata.dpi, "pnginfo": info, **shown}


_SETTINGS: dict[str, Callable[[Metadata, int, EncoderOptions], dict[str, Any]]] = {
    "PNG": _set_apng,
    "JPEG": _set_jpeg,
    "WEBP": _set_webp,
    "BMP": _set_bmp,
    "AVIF": _set_avif,
}
"""What Pillow is told to write in each format."""
