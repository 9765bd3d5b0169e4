"""Files to pictures and back, without loss: depth, alpha, colour profile, metadata, orientation."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from restore_cli.atomic import atomic_write
from restore_cli.errors import ImageError, OutputError
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
from restore_cli.image.source import MAX_PIXELS, open_source
from restore_cli.image.stream import PixelStream, stream_picture
from restore_cli.image.writers import EncoderError, EncoderOptions, drop_unsupported, write_pages

__all__ = ["check_output", "decode", "decode_finite", "encode", "infer_format", "probe", "write_streams"]


def decode(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> Picture:
    """One picture of a file, upright, whole. The content decides the format, not the name. Raises ImageError."""
    source = open_source(path, max_pixels=max_pixels, frame=frame)
    header, reader = source.header, source.rows()
    samples = np.concatenate(list(read_blocks(reader, header.width * 4)))
    alpha = np.array(samples[..., -1], order="C") if header.alpha else None
    pixels = np.array(samples[..., : header.channels], order="C")
    return Picture(pixels, alpha, source.metadata, header.format, header.jpeg_quality, header.subsampling)


def decode_finite(path: Path) -> Picture:
    """`decode` for code that computes with the values. Raises ImageError, also for values that are not finite."""
    picture = decode(path)
    for samples in (picture.pixels, picture.alpha):
        if samples is not None and samples.dtype == np.float32 and not np.isfinite(samples).all():
            raise ImageError(f"{path}: {NOT_FINITE}")
    return picture


def probe(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS) -> Header:
    """What `decode` would give, without decoding pixels; damage behind the header is not found. Raises ImageError."""
    return open_source(path, max_pixels=max_pixels).header


def encode(picture: Picture, path: Path, *, format: str | None = None, settings: EncoderOptions | None = None) -> None:
    """Writes `path` whole or not at all, as `format` (a value of SUFFIXES) or as its suffix says. Raises OutputError.

    PNG, TIFF (deflate), BMP and WebP are lossless; JPEG is quality 95, AVIF quality 90, both 4:4:4.
    """
    format = format or infer_format(path)
    if format not in WRITABLE_DEPTHS:
        raise ValueError(f"format {format!r} is none of {', '.join(WRITABLE_DEPTHS)}")
    if format not in ALPHA_FORMATS and picture.opaque:
        picture = Picture(picture.pixels, None, picture.metadata)
    stream = stream_picture(picture)
    write_streams(iter([stream]), 1, path, format, settings or EncoderOptions())


def write_streams(
    pages: Iterator[PixelStream], count: int, path: Path, format: str, settings: EncoderOptions
) -> tuple[str, ...]:
    """Write `count` pages as one file, whole or not at all; rows are pulled as they are written.

    Returns what the inputs say beside their pixels and the file does not, each with its reason. Raises OutputError.
    """
    first = next(pages)
    check_output(first, path, format, count)
    left_out: dict[str, None] = {}

    def held(page: PixelStream) -> PixelStream:
        page.metadata = drop_unsupported(format, page.metadata)
        left_out.update(dict.fromkeys(page.metadata.left_out))
        return page

    try:
        with atomic_write(path) as file:
            write_pages(map(held, chain([first], pages)), first, count, file, format, settings)
    except EncoderError as error:
        raise OutputError(f"{path}: cannot be written as {FORMAT_NAMES[format]} ({error})") from error
    return tuple(left_out)


def infer_format(path: Path) -> str:
    """The format that a suffix names. Raises OutputError."""
    if path.suffix.lower() in READ_ONLY_SUFFIXES:
        raise OutputError(f"{path}: HEIC is read and not written", f"-o {shlex.quote(str(path.with_suffix('.png')))}")
    if format := FORMAT_BY_SUFFIX.get(path.suffix.lower()):
        return format
    named = f"the suffix {path.suffix!r} names no format" if path.suffix else "the name has no suffix"
    raise OutputError(f"{path}: {named}; known are {' '.join(FORMAT_BY_SUFFIX)}", f"-o {shlex.quote(str(path))}.png")


def check_output(stream: PixelStream, path: Path, format: str, count: int = 1) -> None:
    """Says what the format cannot hold, before work is done. Raises OutputError."""
    instead = f"-o {shlex.quote(str(path.with_suffix('.tif')))}"
    lossless = f"-o {shlex.quote(str(path.with_suffix('.png')))}"
    title, found = FORMAT_NAMES[format], f"{stream.width}×{stream.height} px"
    bits = 8 * stream.dtype.itemsize
    if stream.alpha and format not in ALPHA_FORMATS:
        holders = ", ".join(FORMAT_NAMES[name] for name in ALPHA_FORMATS)
        raise OutputError(f"{path}: {title} holds no transparency, this picture has some; {holders} do", lossless)
    if count > 1 and format not in MULTI_FRAME_FORMATS:
        raise OutputError(f"{path}: {title} holds one picture, there are {count}", "--frame 1")
    if bits not in WRITABLE_DEPTHS[format] or (count > 1 and format == "PNG" and bits != 8):
        raise OutputError(f"{path}: {title} holds no {bits}-bit samples", instead)
    if (side := MAX_SIDE.get(format)) and max(stream.width, stream.height) > side:
        raise OutputError(f"{path}: {found}, {title} holds at most {side} px a side", lossless)
    if (size := MAX_SAMPLE_BYTES.get(format)) and stream.nbytes > size:
        raise OutputError(f"{path}: {found} do not fit into a 4 GiB file", lossless)
