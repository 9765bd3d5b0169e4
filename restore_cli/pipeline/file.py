"""Restores every picture of a file into another file, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageCms

from restore_cli.atomic import make_folder
from restore_cli.contract import Model
from restore_cli.errors import ImageError, OutputError, UsageError
from restore_cli.image.codec import check_encoder, infer_format, write_streams
from restore_cli.image.formats.capabilities import ALPHA_FORMATS, FORMAT_NAMES, MULTI_FRAME_FORMATS
from restore_cli.image.metadata.collect import update_size
from restore_cli.image.metadata.provenance import Provenance, add_provenance, strip_metadata
from restore_cli.image.picture import Header, Metadata, Samples
from restore_cli.image.picture_source import PictureSource
from restore_cli.image.resize import compute_size
from restore_cli.image.source import open_source
from restore_cli.image.stream import PixelStream
from restore_cli.image.writers import EncoderOptions, can_hold_profile
from restore_cli.limits import MAX_PIXELS
from restore_cli.models.self_ensemble import Runner, SelfEnsemble
from restore_cli.pipeline.array import OnTile, retry_with_smaller_tiling
from restore_cli.pipeline.output import OutputOptions, check_final_size, pick_sample_type, quantise_rows, resize_rows
from restore_cli.pipeline.picture import PicturePipeline, is_opaque, open_picture_pipeline
from restore_cli.tiling.engine import Trace
from restore_cli.tiling.geometry import Tiling
from restore_cli.weights.store import compute_sha256

__all__ = [
    "FileOptions",
    "FilePipeline",
    "FileResult",
    "open_file_pipeline",
    "open_sources",
    "restore_pages",
    "restore_to_file",
    "write_file",
]

MIN_JPEG_QUALITY = 90
"""Least quality of a restored JPEG, also if its source has a lower one."""


@dataclass(frozen=True)
class FileOptions:
    """Options of one file: its output, its limits, and which frame."""

    output: OutputOptions = field(default_factory=OutputOptions)
    max_pixels: int = MAX_PIXELS
    frame: int | None = None
    """counted from 1; None means all"""
    jpeg_quality: int | None = None
    """1-100; None means that of the source, at least MIN_JPEG_QUALITY"""

    def __post_init__(self) -> None:
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise UsageError(f"--jpeg-quality {self.jpeg_quality}: expected 1 to 100")
        for name, value in (("frame", self.frame), ("max-pixels", self.max_pixels)):
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value}: expected 1 or more")


def open_sources(path: Path, format: str, options: FileOptions) -> list[PictureSource]:
    """Open the pictures of a file that will be restored.

    Raises:
        ImageError: the file is not readable, or the output format cannot hold all its pictures.
        UsageError: the final size of a picture is not allowed.
    """
    first = open_page(path, (options.frame or 1) - 1, options)
    count = first.header.frames
    if options.frame is not None or count == 1:
        return [first]
    if format not in MULTI_FRAME_FORMATS:
        title = FORMAT_NAMES[format]
        raise ImageError(f"{path}: has {count} pictures, but {title} holds only one", "--frame 1, or --format tiff")
    return [first, *(open_page(path, i, options) for i in range(1, count))]


def open_page(path: Path, frame: int, options: FileOptions) -> PictureSource:
    """Open one picture of a file, counted from 0, and check its final size."""
    source = open_source(path, max_pixels=options.max_pixels, frame=frame)
    check_final_size(options.output, source.header, options.max_pixels)
    return source


@dataclass(frozen=True)
class FilePipeline:
    """A file that is ready to be restored: its pictures, and where and how the result is written."""

    path: Path
    """where the result is written"""
    format: str
    pictures: tuple[PicturePipeline, ...]
    settings: EncoderOptions

    @property
    def header(self) -> Header:
        """Header of the first picture."""
        return self.pictures[0].header

    def sample_type(self, picture: PicturePipeline) -> np.dtype[Any]:
        """Return the dtype of the samples that are written for a picture.

        Raises:
            ImageError: the values do not fit integers.
            OutputError: the format cannot hold the requested depth.
        """
        dtype = pick_sample_type(picture.output, picture.header, self.format)
        if dtype.kind == "u" and (picture.low, picture.high) != (0.0, 1.0):
            reason = f"its values range from {picture.low:g} to {picture.high:g}, but integer samples hold only 0 to 1"
            raise ImageError(f"{picture.source.name}: {reason}", "--format tiff")
        return dtype

    @property
    def side(self) -> int:
        """Longest side of all pictures, px."""
        return max(max(picture.header.width, picture.header.height) for picture in self.pictures)


def open_file_pipeline(sources: list[PictureSource], path: Path, format: str, options: FileOptions) -> FilePipeline:
    """Read what decides how the pictures are converted: the range of floating-point files, and whether alpha matters.

    Raises:
        ImageError: the range is not finite, or the colours cannot be converted.
        OutputError: the picture has transparency that the format cannot hold.
    """
    check_encoder(path, format)
    output = drop_opaque_alpha(sources, path, format, options.output)
    pictures = tuple(open_picture_pipeline(source, keep_colours(source, format, output)) for source in sources)
    return FilePipeline(path, format, pictures, make_encoder_options(sources[0].header, options))


@dataclass(frozen=True)
class FileResult:
    """A file that was written."""

    size: tuple[int, int]
    """(width, height) of its first picture, px"""
    tile: int
    """side of the tiles that were used, input px; 0 for no tiling"""
    notes: tuple[str, ...]
    """what the format of the result could not hold"""


def restore_to_file(
    model: Runner,
    source: Path,
    target: Path,
    options: FileOptions,
    task: str | None,
    choose: Callable[[int], Tiling],
    on_tile: OnTile,
) -> FileResult:
    """Restore all pictures of a file into another file, which appears when it is complete.

    The suffix of `target` decides the format. `task` is recorded in the metadata, None for that of the catalogue.
    `choose` returns the tiling for a longest side in px.

    Raises:
        ImageError: the source cannot be read.
        OutputError: the target is the source, cannot be written, or cannot hold its pictures.
        OutOfMemory: memory runs out at the smallest tile.
        UsageError: the channels do not fit the model, or the final size is not allowed.
    """
    format = infer_format(target)
    sources = open_sources(source, format, options)
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target}: is the input, which is never overwritten", "another name for the result")
    make_folder(target.parent)
    file, scale = open_file_pipeline(sources, target, format, options), model.contract.scale
    note = make_provenance(model, task, options.output.strength)

    def attempt(trace: Trace) -> tuple[tuple[int, int], tuple[str, ...]]:
        return write_file(file, restore_pages(file, model, trace), scale, note)

    tiling, device = choose(file.side), model.device.type
    written, trace = retry_with_smaller_tiling(attempt, model.contract, file.side, tiling, on_tile, device)
    return FileResult(written[0], trace.tiling.tile, written[1])


def make_provenance(model: Runner, task: str | None, strength: float) -> Provenance:
    """Return the note on how a model restores. A model without a checkpoint has no name and no sha256."""
    scale, checkpoint, tta = model.contract.scale, model.checkpoint, isinstance(model, SelfEnsemble)
    if checkpoint is None:
        return Provenance(task or "", "", "", scale, tta, strength)
    known = task or checkpoint.task or ("sr" if scale > 1 else "")
    return Provenance(known, checkpoint.name, compute_sha256(checkpoint.path), scale, tta, strength)


def restore_pages(file: FilePipeline, model: Model, trace: Trace) -> Iterator[Iterator[Samples]]:
    """Yield the restored rows of each picture. They are computed when they are read."""
    return (picture.restore(model, trace, file.sample_type(picture)) for picture in file.pictures)


def write_file(
    file: FilePipeline, pages: Iterator[Iterator[Samples]], scale: int, note: Provenance
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Write the result atomically. Return the (width, height) of its first picture, and notes on what was left out.

    `pages` holds the restored rows of each picture. Raises ImageError, OutputError.
    """
    pictures = file.pictures
    streams = (make_stream(picture, rows, file, scale, note) for picture, rows in zip(pictures, pages, strict=True))
    left_out = write_streams(streams, len(pictures), file.path, file.format, file.settings)
    return final_size(pictures[0], scale), left_out


def drop_opaque_alpha(sources: list[PictureSource], path: Path, format: str, output: OutputOptions) -> OutputOptions:
    """Drop alpha if the format cannot hold it and every picture is opaque.

    Raises OutputError if a picture has transparency that the format cannot hold.
    """
    if format in ALPHA_FORMATS or output.alpha == "drop":
        return output
    if all(is_opaque(source) for source in sources):
        return replace(output, alpha="drop")
    holders = ", ".join(FORMAT_NAMES[name] for name in ALPHA_FORMATS)
    line = f"{path}: {FORMAT_NAMES[format]} cannot hold the transparency of this image; {holders} can"
    raise OutputError(line, "--format png, or --alpha drop")


def keep_colours(source: PictureSource, format: str, output: OutputOptions) -> OutputOptions:
    """Convert to sRGB if the format cannot hold the profile or cICP chunk, without which the colours would change."""
    header, metadata = source.header, source.metadata
    channels = header.channels + (header.alpha and output.alpha != "drop")
    lost = metadata.icc is not None and not can_hold_profile(format, channels, metadata.icc)
    lost |= metadata.icc is None and metadata.has_foreign_cicp and format != "PNG"
    return replace(output, icc="srgb") if lost else output


def make_stream(
    picture: PicturePipeline, rows: Iterator[Samples], file: FilePipeline, scale: int, note: Provenance
) -> PixelStream:
    """Return a stream of the final rows of a picture. They are computed when they are read."""
    header, output = picture.header, picture.output
    dtype = file.sample_type(picture)
    final = final_size(picture, scale)
    rows = resize_rows(rows, (header.width * scale, header.height * scale), final)
    blocks = quantise_rows(rows, dtype, picture.alpha, output.dither and dtype.itemsize == 1)
    return PixelStream(*final, header.channels + picture.alpha, dtype, blocks, make_metadata(picture, note, final))


def final_size(picture: PicturePipeline, scale: int) -> tuple[int, int]:
    """Return the (width, height) of the result."""
    size = picture.header.width, picture.header.height
    return compute_size(picture.output.resize, size) if picture.output.resize else (size[0] * scale, size[1] * scale)


def make_metadata(picture: PicturePipeline, note: Provenance, size: tuple[int, int]) -> Metadata:
    """Return the metadata of the result, with a note on how it was made unless it is stripped."""
    metadata = update_size(picture.source.metadata, *size)
    if picture.output.icc == "srgb" and picture.colour is not None:
        metadata = replace(metadata, icc=srgb_profile() if picture.header.channels == 3 else None, png={})
    return strip_metadata(metadata) if picture.output.strip else add_provenance(metadata, note)


@cache
def srgb_profile() -> bytes:
    """Return the sRGB profile of Little CMS, 588 bytes."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def make_encoder_options(header: Header, options: FileOptions) -> EncoderOptions:
    """Return the JPEG settings: the requested quality, else that of the source but at least MIN_JPEG_QUALITY."""
    if header.jpeg_quality is None:
        return EncoderOptions(options.jpeg_quality or 95)
    quality = options.jpeg_quality or max(header.jpeg_quality, MIN_JPEG_QUALITY)
    return EncoderOptions(quality, header.subsampling or "4:4:4")
