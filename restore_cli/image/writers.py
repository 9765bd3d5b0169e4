"""One function per format: rows and metadata -> a file.

Samples are (h, w, c): 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. PNG and TIFF are written as rows come; the
others, whose libraries want the whole picture, hold it once in 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image, PngImagePlugin

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
from restore_cli.image.picture import Metadata, Pixels
from restore_cli.image.reasons import join_lines
from restore_cli.image.stream import PixelStream

__all__ = ["EncoderError", "EncoderOptions", "can_hold_profile", "drop_unsupported", "write_pages"]

_JPEG_MARKER = 65533  # bytes that fit into one marker: EXIF and XMP have no way to span several
_JPEG_PARTS = {"exif": _JPEG_MARKER, "xmp": _JPEG_MARKER - 29, "iptc": _JPEG_MARKER - 40}  # less their headers
_JPEG_DENSITY = 65535  # dpi
_REWRITES_EXIF = {"AVIF": can_rewrite_exif, "TIFF": can_write_exif}


@dataclass(frozen=True)
class EncoderOptions:
    """How lossy formats are written."""

    jpeg_quality: int = 95
    subsampling: str = "4:4:4"


def can_hold_profile(format: str, channels: int, icc: bytes | None) -> bool:
    """Whether a picture of that many channels, alpha too, keeps its profile: WebP has no gray, AVIF none with alpha."""
    if format == "WEBP" or (format == "AVIF" and channels == 2):
        channels = 3
    return format != "BMP" and fit_profile(icc, channels) == icc


def drop_unsupported(format: str, metadata: Metadata) -> Metadata:
    """The metadata without what the format has a place for and cannot hold; `left_out` says what that is, and why."""
    lost: dict[str, str] = {}
    text = dict(metadata.text)
    if format == "JPEG":
        for part, most in _JPEG_PARTS.items():
            if len(getattr(metadata, part) or b"") > most:
                lost[part] = f"its {part.upper()} is left out: a JPEG holds {most} bytes of it"
        if len(text.get("Comment", "").encode()) > _JPEG_MARKER:
            lost["text"] = f"its text 'Comment' is left out: a JPEG holds {_JPEG_MARKER} bytes of it"
            del text["Comment"]
        if metadata.dpi and max(metadata.dpi) > _JPEG_DENSITY:
            lost["dpi"] = f"its resolution is left out: a JPEG holds {_JPEG_DENSITY} dpi"
    elif metadata.exif and format in _REWRITES_EXIF and not _REWRITES_EXIF[format](metadata.exif):
        lost["exif"] = f"its EXIF cannot be written into a file of {FORMAT_NAMES[format]} and is left out"
    if not lost:
        return metadata
    values: dict[str, Any] = vars(metadata) | dict.fromkeys(lost)
    return Metadata(**values | {"text": text, "left_out": (*metadata.left_out, *lost.values())})


def write_pages(
    pages: Iterator[PixelStream], first: PixelStream, count: int, sink: IO[bytes], format: str, settings: EncoderOptions
) -> None:
    """`count` pages of the first one's kind."""
    if format == "TIFF":
        write_tiff(pages, sink, first.nbytes * count)
    elif format == "PNG" and count == 1:
        write_png(next(pages), sink)
    else:
        kept = [(join_rows(page), page.metadata) for page in pages]
        try:
            with pillow_settings():
                _WRITERS[format]([array for array, _ in kept], sink, [metadata for _, metadata in kept], settings)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # Pillow's writers raise whatever their library says
            raise EncoderError(join_lines(error)) from error


class EncoderError(Exception):
    """A library's writer would not have it."""


def join_rows(page: PixelStream) -> Pixels:
    """All rows in one array."""
    out = np.empty((page.height, page.width, page.channels), np.uint8)
    top = 0
    for block in page.blocks:
        out[top : top + block.shape[0]] = block
        top += block.shape[0]
    return out


def _image(samples: Pixels) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else np.ascontiguousarray(samples))


def _animation_options(arrays: list[Pixels], times: list[Metadata]) -> dict[str, Any]:
    """What Pillow's writers want to know of an animation."""
    if len(arrays) == 1:
        return {}
    durations = [round(100 if time.duration is None else time.duration) for time in times]
    options = {"save_all": True, "append_images": [_image(a) for a in arrays[1:]], "duration": durations}
    return options if times[0].loop is None else {**options, "loop": times[0].loop}


def _write_jpeg(arrays: list[Pixels], sink: IO[bytes], pages: list[Metadata], settings: EncoderOptions) -> None:
    """What was restored is not thrown away again: quality 95 and no colour subsampling, unless asked."""
    metadata = pages[0]
    _image(arrays[0]).save(
        sink,
        "JPEG",
        quality=settings.jpeg_quality,
        subsampling=settings.subsampling,
        icc_profile=metadata.icc,
        exif=metadata.exif or b"",
        xmp=metadata.xmp or b"",
        dpi=metadata.dpi or (0, 0),
        comment=metadata.text.get("Comment", "").encode(),
        extra=wrap_iptc(metadata.iptc),
    )


def wrap_iptc(iptc: bytes | None) -> bytes:
    """IPTC as the APP13 marker of a JPEG."""
    if not iptc:
        return b""
    padded = iptc + bytes(len(iptc) % 2)
    body = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + padded
    return b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body


def _write_webp(arrays: list[Pixels], sink: IO[bytes], pages: list[Metadata], settings: EncoderOptions) -> None:
    """Lossless, with colours kept under transparency. WebP has no gray: three equal channels."""
    metadata = pages[0]
    _image(arrays[0]).save(
        sink,
        "WEBP",
        lossless=True,
        exact=True,
        icc_profile=fit_profile(metadata.icc, channels=3),
        exif=add_resolution(metadata.exif, metadata.dpi) or b"",
        xmp=metadata.xmp or b"",
        **_animation_options(arrays, pages),
    )


def _write_bmp(arrays: list[Pixels], sink: IO[bytes], pages: list[Metadata], settings: EncoderOptions) -> None:
    """No metadata but the resolution: the format's other headers are read by few."""
    metadata = pages[0]
    _image(arrays[0]).save(sink, "BMP", dpi=metadata.dpi or (0, 0))


def _write_avif(arrays: list[Pixels], sink: IO[bytes], pages: list[Metadata], settings: EncoderOptions) -> None:
    """Quality 90, no colour subsampling; gray stays one channel, gray with alpha becomes RGB with alpha."""
    metadata = pages[0]
    channels = arrays[0].shape[2]
    _image(arrays[0]).save(
        sink,
        "AVIF",
        quality=90,
        subsampling="4:0:0" if channels == 1 else "4:4:4",
        icc_profile=fit_profile(metadata.icc, channels=1 if channels == 1 else 3) or b"",
        exif=add_resolution(metadata.exif, metadata.dpi) or b"",
        xmp=metadata.xmp or b"",
        **_animation_options(arrays, pages),
    )


def _write_apng(arrays: list[Pixels], sink: IO[bytes], pages: list[Metadata], settings: EncoderOptions) -> None:
    """An animation, in 8 bits."""
    metadata, info = pages[0], PngImagePlugin.PngInfo()
    for key, value in metadata.text.items():
        info.add_text(key, value)
    if metadata.xmp:
        info.add_itxt(XMP_KEYWORD, metadata.xmp.decode("utf-8", "replace"))
    if metadata.iptc:
        info.add_text(IPTC_KEYWORD, encode_raw_profile("iptc", metadata.iptc).decode(), zip=True)
    _image(arrays[0]).save(
        sink,
        "PNG",
        icc_profile=metadata.icc,
        exif=metadata.exif,
        dpi=metadata.dpi,
        pnginfo=info,
        blend=0,
        disposal=0,
        **_animation_options(arrays, pages),
    )


_WRITERS: dict[str, Callable[[list[Pixels], IO[bytes], list[Metadata], EncoderOptions], None]] = {
    "PNG": _write_apng,
    "JPEG": _write_jpeg,
    "WEBP": _write_webp,
    "BMP": _write_bmp,
    "AVIF": _write_avif,
}
