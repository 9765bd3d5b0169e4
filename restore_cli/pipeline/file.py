"""One file into another: every picture of it through the model, rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from PIL import ImageCms

from restore_cli.contract import Model
from restore_cli.errors import ImageError, OutputError
from restore_cli.image.codec import write_streams
from restore_cli.image.formats.capabilities import ALPHA_FORMATS, FORMAT_NAMES, MULTI_FRAME_FORMATS
from restore_cli.image.metadata.collect import update_size
from restore_cli.image.metadata.provenance import Provenance, add_provenance, strip_metadata
from restore_cli.image.picture import Header, Metadata, Samples
from restore_cli.image.resize import compute_size
from restore_cli.image.source import MAX_PIXELS, PictureSource, open_source
from restore_cli.image.stream import PixelStream
from restore_cli.image.writers import EncoderOptions, can_hold_profile
from restore_cli.pipeline.output import Finish, check_final_size, depth_for, quantised, resized
from restore_cli.pipeline.picture import Flow, flow_of, opaque
from restore_cli.tiling.engine import Trace

__all__ = ["Document", "Wishes", "open_document", "open_sources", "restored", "write_document"]

LEAST_QUALITY = 90
"""A restored JPEG is not written worse than this, however bad its source was."""


@dataclass(frozen=True)
class Wishes:
    """What was asked for of files."""

    finish: Finish = field(default_factory=Finish)
    max_pixels: int = MAX_PIXELS
    frame: int | None = None
    """counted from 1; None for all"""
    jpeg_quality: int | None = None


def open_sources(path: Path, format: str, wishes: Wishes) -> list[PictureSource]:
    """The pictures of a file that will be restored.

    Raises ImageError where the output cannot hold them all, UsageError where their final size is not allowed.
    """
    first = open_picture(path, (wishes.frame or 1) - 1, wishes)
    count = first.header.frames
    if wishes.frame is not None or count == 1:
        return [first]
    if format not in MULTI_FRAME_FORMATS:
        title = FORMAT_NAMES[format]
        raise ImageError(f"{path}: holds {count} pictures, {title} holds one", "--frame 1, or --format tiff")
    return [first, *(open_picture(path, i, wishes) for i in range(1, count))]


def open_picture(path: Path, frame: int, wishes: Wishes) -> PictureSource:
    """One picture of a file, counted from 0, whose final size is allowed."""
    source = open_source(path, max_pixels=wishes.max_pixels, frame=frame)
    check_final_size(wishes.finish, source.header, wishes.max_pixels)
    return source


@dataclass(frozen=True)
class Document:
    """A file that is ready to be restored: how its pictures pass through a model, where they go, and as what."""

    path: Path
    """of the result"""
    format: str
    flows: tuple[Flow, ...]
    settings: EncoderOptions

    @property
    def header(self) -> Header:
        """Of its first picture."""
        return self.flows[0].header

    @property
    def side(self) -> int:
        """The longest of its pictures, px."""
        return max(max(flow.header.width, flow.header.height) for flow in self.flows)


def open_document(sources: list[PictureSource], path: Path, format: str, wishes: Wishes) -> Document:
    """Looks at what decides how the file passes: a floating-point one's range, whether transparency says something.

    Raises ImageError, OutputError where the format does not hold what there is.
    """
    finish = without_idle_alpha(sources, path, format, wishes.finish)
    flows = tuple(flow_of(source, with_colours(source, format, finish)) for source in sources)
    return Document(path, format, flows, settings_for(sources[0].header, wishes))


def restored(document: Document, model: Model, trace: Trace) -> Iterator[Iterator[Samples]]:
    """The rows of each picture, which are restored as they are asked for."""
    return (flow.restored(model, trace) for flow in document.flows)


def write_document(
    document: Document, pages: Iterator[Iterator[Samples]], scale: int, note: Provenance
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Writes the result, whole or not at all; gives its first picture's size, (width, height), and what it leaves out.

    `pages` are the restored rows of each picture. Raises ImageError, OutputError.
    """
    flows = document.flows
    streams = (stream_of(flow, rows, document, scale, note) for flow, rows in zip(flows, pages, strict=True))
    left_out = write_streams(streams, len(flows), document.path, document.format, document.settings)
    return size_of(flows[0], scale), left_out


def without_idle_alpha(sources: list[PictureSource], path: Path, format: str, finish: Finish) -> Finish:
    """Alpha is left out where the format has no place for it and it says nothing; else that is refused."""
    if format in ALPHA_FORMATS or finish.alpha == "drop":
        return finish
    if all(opaque(source) for source in sources):
        return replace(finish, alpha="drop")
    holders = ", ".join(FORMAT_NAMES[name] for name in ALPHA_FORMATS)
    line = f"{path}: {FORMAT_NAMES[format]} holds no transparency, this picture has some; {holders} do"
    raise OutputError(line, "--format png, or --alpha drop")


def with_colours(source: PictureSource, format: str, finish: Finish) -> Finish:
    """Where the format has no place for what tells its colours, they become sRGB: without it they would be others."""
    header, metadata = source.header, source.metadata
    channels = header.channels + (header.alpha and finish.alpha != "drop")
    lost = metadata.icc is not None and not can_hold_profile(format, channels, metadata.icc)
    lost |= metadata.icc is None and metadata.has_foreign_cicp and format != "PNG"
    return replace(finish, icc="srgb") if lost else finish


def stream_of(flow: Flow, rows: Iterator[Samples], document: Document, scale: int, note: Provenance) -> PixelStream:
    """A picture's finished rows, which are made as they are asked for."""
    header, finish = flow.header, flow.finish
    dtype = depth_for(finish, header, document.format)
    if dtype.kind == "u" and (flow.low, flow.high) != (0.0, 1.0):
        found = f"its values reach from {flow.low:g} to {flow.high:g}, integers hold 0 to 1"
        raise ImageError(f"{flow.source.name}: {found}", "--format tiff")
    final = size_of(flow, scale)
    rows = resized(rows, (header.width * scale, header.height * scale), final)
    blocks = quantised(rows, dtype, flow.alpha, finish.dither and dtype.itemsize == 1)
    return PixelStream(*final, header.channels + flow.alpha, dtype, blocks, metadata_for(flow, note, final))


def size_of(flow: Flow, scale: int) -> tuple[int, int]:
    """(width, height) of the result."""
    size = flow.header.width, flow.header.height
    return compute_size(flow.finish.resize, size) if flow.finish.resize else (size[0] * scale, size[1] * scale)


def metadata_for(flow: Flow, note: Provenance, size: tuple[int, int]) -> Metadata:
    """What travels on, and the note of what was done."""
    metadata = update_size(flow.source.metadata, *size)
    if flow.finish.icc == "srgb" and flow.colour is not None:
        metadata = replace(metadata, icc=srgb_profile() if flow.header.channels == 3 else None, png={})
    return strip_metadata(metadata) if flow.finish.strip else add_provenance(metadata, note)


@cache
def srgb_profile() -> bytes:
    """Little CMS's own, of 588 bytes."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def settings_for(header: Header, wishes: Wishes) -> EncoderOptions:
    """JPEG as its source was, at least of quality 90; as asked where that was said."""
    if header.jpeg_quality is None:
        return EncoderOptions(wishes.jpeg_quality or 95)
    quality = wishes.jpeg_quality or max(header.jpeg_quality, LEAST_QUALITY)
    return EncoderOptions(quality, header.subsampling or "4:4:4")
