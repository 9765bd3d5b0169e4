"""Decoding files to pictures and encoding pictures to files, without loss of depth, alpha or metadata."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from restore_cli.atomic import atomic_write
from restore_cli.errors import INSTALL_EXTRA, ImageError, OutputError
from restore_cli.image.formats import jxl
from restore_cli.image.formats.capabilities import (
    ALPHA_FORMATS,
    FORMAT_BY_SUFFIX,
    FORMAT_NAMES,
    MAX_SAMPLE_BYTES,
    MAX_SIDE,
    MULTI_FRAME_FORMATS,
    READ_ONLY_SUFFIXES,
    WRITABLE_DEPTHS,
)
from restore_cli.image.picture import Header, Picture
from restore_cli.image.reasons import NOT_FINITE
from restore_cli.image.rows import read_blocks
from restore_cli.image.source import open_source
from restore_cli.image.stream import PixelStream, stream_picture
from restore_cli.image.writers import EncoderError, EncoderOptions, drop_unsupported, write_pages
from restore_cli.limits import MAX_PIXELS

__all__ = [
    "check_encoder",
    "check_output",
    "decode",
    "decode_finite",
    "encode",
    "infer_format",
    "probe",
    "write_streams",
]


def decode(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> Picture:
    """Return one picture of a file, upright and whole. `frame` counts from 0.

    The content decides the format, not the name. Raises ImageError.
    """
    source = open_source(path, max_pixels=max_pixels, frame=frame)
    header = source.header
    samples = np.concatenate(list(read_blocks(source.open_rows(), header.width * 4)))
    alpha = np.array(samples[..., -1], order="C") if header.alpha else None
    pixels = np.array(samples[..., : header.channels], order="C")
    return Picture(pixels, alpha, source.metadata)


def decode_finite(path: Path) -> Picture:
    """Return `decode(path)` if all values are finite, as computations need them. Raises ImageError."""
    picture = decode(path)
    for samples in (picture.pixels, picture.alpha):
        if samples is not None and samples.dtype == np.float32 and not np.isfinite(samples).all():
            raise ImageError(f"{path}: {NOT_FINITE}")
    return picture


def probe(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS) -> Header:
    """Return the header of a file's first picture. Damage in the pixel data is not detected. Raises ImageError."""
    return open_source(path, max_pixels=max_pixels).header


def encode(picture: Picture, path: Path, *, format: str | None = None, options: EncoderOptions | None = None) -> None:
    """Write a picture to `path` atomically, as `format` (a key of WRITABLE_DEPTHS) or as the suffix of `path` says.

    PNG, TIFF (deflate), BMP, WebP and JPEG XL are lossless. JPEG has quality 95 and AVIF 90, both without colour
    subsampling. Raises OutputError.
    """
    format = format or infer_format(path)
    if format not in WRITABLE_DEPTHS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(WRITABLE_DEPTHS)}")
    if format not in ALPHA_FORMATS and picture.opaque:
        picture = Picture(picture.pixels, None, picture.metadata)
    write_streams(iter([stream_picture(picture)]), 1, path, format, options or EncoderOptions())


def write_streams(
    pages: Iterator[PixelStream], count: int, path: Path, format: str, options: EncoderOptions
) -> tuple[str, ...]:
    """Write `count` pages to one file atomically. Rows are pulled from the streams as they are written.

    Returns one message for each part of the metadata that the file does not contain, with the reason.
    Raises OutputError.
    """
    first = next(pages)
    check_output(first, path, format, count)
    left_out: dict[str, None] = {}

    def filter_metadata(page: PixelStream) -> PixelStream:
        page.metadata = drop_unsupported(format, page.metadata)
        left_out.update(dict.fromkeys(page.metadata.left_out))
        return page

    try:
        with atomic_write(path) as file:
            write_pages(map(filter_metadata, chain([first], pages)), first, count, file, format, options)
    except EncoderError as error:
        raise OutputError(f"{path}: cannot be written as {FORMAT_NAMES[format]} ({error})") from error
    return tuple(left_out)


def infer_format(path: Path) -> str:
    """Return the format that the suffix of `path` stands for. Raises OutputError."""
    if path.suffix.lower() in READ_ONLY_SUFFIXES:
        png = shlex.quote(str(path.with_suffix(".png")))
        raise OutputError(f"{path}: {path.suffix[1:].upper()} files can be read but not written", f"-o {png}")
    if format := FORMAT_BY_SUFFIX.get(path.suffix.lower()):
        return format
    found = f"unknown suffix {path.suffix!r}" if path.suffix else "the name has no suffix"
    line = f"{path}: {found}; expected one of {' '.join(FORMAT_BY_SUFFIX)}"
    raise OutputError(line, f"-o {shlex.quote(str(path))}.png")


def check_encoder(path: Path, format: str) -> None:
    """Check that the package that writes `format` is installed. Raises OutputError."""
    if format == "JXL" and not jxl.is_installed():
        raise OutputError(f"{path}: writing JPEG XL needs an optional package", INSTALL_EXTRA.format("jxl"))


def check_output(stream: PixelStream, path: Path, format: str, count: int = 1) -> None:
    """Check that `format` can be written and can store `count` pages like `stream`. Raises OutputError."""
    check_encoder(path, format)
    as_tiff = f"-o {shlex.quote(str(path.with_suffix('.tif')))}"
    as_png = f"-o {shlex.quote(str(path.with_suffix('.png')))}"
    name, size = FORMAT_NAMES[format], f"{stream.width}×{stream.height} px"
    bits = 8 * stream.dtype.itemsize
    if stream.has_alpha and format not in ALPHA_FORMATS:
        others = ", ".join(FORMAT_NAMES[other] for other in ALPHA_FORMATS)
        raise OutputError(f"{path}: {name} cannot store transparency; {others} can", as_png)
    if count > 1 and format not in MULTI_FRAME_FORMATS:
        raise OutputError(f"{path}: {name} can store one picture; there are {count}", "--frame 1")
    if bits not in WRITABLE_DEPTHS[format] or (count > 1 and format == "PNG" and bits != 8):
        raise OutputError(f"{path}: {name} cannot store {bits}-bit samples", as_tiff)
    if (side := MAX_SIDE.get(format)) and max(stream.width, stream.height) > side:
        raise OutputError(f"{path}: the image has {size}; the limit of {name} is {side} px per side", as_png)
    if (most := MAX_SAMPLE_BYTES.get(format)) and stream.nbytes > most:
        raise OutputError(f"{path}: the image has {size}, which do not fit into a {name} file of 4 GiB", as_png)
