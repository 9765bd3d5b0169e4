"""One file into another: every picture of it through the model, rows at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from PIL import ImageCms

from restore_cli.contract import Model
from restore_cli.errors import ImageError, OutputError
from restore_cli.finish import Finish, depth_for, quantised, resized
from restore_cli.flow import Flow, flow_of, opaque
from restore_cli.image.codec import MAX_PIXELS, Settings, open_source, write_streams
from restore_cli.image.header import TITLES, Header
from restore_cli.image.metadata import of_size
from restore_cli.image.note import Note, noted, stripped
from restore_cli.image.picture import Metadata
from restore_cli.image.resize import target_size
from restore_cli.image.source import Source
from restore_cli.image.stream import Stream
from restore_cli.image.writers import HOLDS_ALPHA, HOLDS_FRAMES, holds_profile
from restore_cli.restoration import OnTile, attempts
from restore_cli.tiling.engine import Trace
from restore_cli.tiling.plan import Tiling

__all__ = ["Target", "Wishes", "open_sources", "restore_file"]

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


def open_sources(path: Path, format: str, wishes: Wishes) -> list[Source]:
    """The pictures of a file that will be restored. Raises ImageError where the output cannot hold them all."""
    first = open_source(path, max_pixels=wishes.max_pixels, frame=(wishes.frame or 1) - 1)
    count = first.header.frames
    if wishes.frame is not None or count == 1:
        return [first]
    if format not in HOLDS_FRAMES:
        title = TITLES[format]
        raise ImageError(f"{path}: holds {count} pictures, {title} holds one", "--frame 1, or --format tiff")
    rest = (open_source(path, max_pixels=wishes.max_pixels, frame=i) for i in range(1, count))
    return [first, *rest]


@dataclass(frozen=True)
class Target:
    """Where a result goes, as what, and what is noted in it."""

    path: Path
    format: str
    note: Note


def restore_file(
    model: Model, sources: list[Source], target: Target, wishes: Wishes, tiling: Tiling, on_tile: OnTile
) -> tuple[tuple[int, int], Trace]:
    """Writes the target and gives its first picture's size, (width, height). Where memory runs out it begins again.

    Raises ImageError, OutputError, OutOfMemory, UsageError.
    """
    finish = without_idle_alpha(sources, target, wishes.finish)
    flows = [flow_of(source, with_colours(source, target, finish)) for source in sources]
    header = sources[0].header
    settings = settings_for(header, wishes)

    def work(trace: Trace) -> tuple[int, int]:
        pages = (stream_for(model, flow, target, trace) for flow in flows)
        write_streams(pages, len(flows), target.path, target.format, settings)
        return size_of(model, flows[0])

    side = max(max(source.header.width, source.header.height) for source in sources)
    return attempts(work, model.contract, side, tiling, on_tile)


def without_idle_alpha(sources: list[Source], target: Target, finish: Finish) -> Finish:
    """Alpha is left out where the format has no place for it and it says nothing; else that is refused."""
    if target.format in HOLDS_ALPHA or finish.alpha == "drop":
        return finish
    if all(opaque(source) for source in sources):
        return replace(finish, alpha="drop")
    holders = ", ".join(TITLES[name] for name in HOLDS_ALPHA)
    line = f"{target.path}: {TITLES[target.format]} holds no transparency, this picture has some; {holders} do"
    raise OutputError(line, "--format png, or --alpha drop")


def with_colours(source: Source, target: Target, finish: Finish) -> Finish:
    """Where the format has no place for what tells its colours, they become sRGB: without it they would be others."""
    header, metadata = source.header, source.metadata
    channels = header.channels + (header.alpha and finish.alpha != "drop")
    lost = metadata.icc is not None and not holds_profile(target.format, channels, metadata.icc)
    lost |= metadata.icc is None and metadata.foreign_code and target.format != "PNG"
    return replace(finish, icc="srgb") if lost else finish


def stream_for(model: Model, flow: Flow, target: Target, trace: Trace) -> Stream:
    """A picture's finished rows, which are made as they are asked for."""
    header, finish = flow.header, flow.finish
    dtype = depth_for(finish, header, target.format)
    if dtype.kind == "u" and (flow.low, flow.high) != (0.0, 1.0):
        found = f"its values reach from {flow.low:g} to {flow.high:g}, integers hold 0 to 1"
        raise ImageError(f"{flow.source.name}: {found}", "--format tiff")
    scale = model.contract.scale
    size = header.width * scale, header.height * scale
    final = size_of(model, flow)
    rows = resized(flow.restored(model, trace), size, final)
    blocks = quantised(rows, dtype, flow.alpha, finish.dither and dtype.itemsize == 1)
    return Stream(*final, header.channels + flow.alpha, dtype, blocks, metadata_for(flow, target.note, final))


def size_of(model: Model, flow: Flow) -> tuple[int, int]:
    """(width, height) of the result."""
    size, scale = (flow.header.width, flow.header.height), model.contract.scale
    return target_size(flow.finish.resize, size) if flow.finish.resize else (size[0] * scale, size[1] * scale)


def metadata_for(flow: Flow, note: Note, size: tuple[int, int]) -> Metadata:
    """What travels on, and the note of what was done."""
    metadata = of_size(flow.source.metadata, *size)
    if flow.finish.icc == "srgb" and flow.colour is not None:
        metadata = replace(metadata, icc=srgb_profile() if flow.header.channels == 3 else None, png={})
    return stripped(metadata) if flow.finish.strip else noted(metadata, note)


@cache
def srgb_profile() -> bytes:
    """Little CMS's own, of 588 bytes."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def settings_for(header: Header, wishes: Wishes) -> Settings:
    """JPEG as its source was, at least of quality 90; as asked where that was said."""
    if header.jpeg_quality is None:
        return Settings(wishes.jpeg_quality or 95)
    quality = wishes.jpeg_quality or max(header.jpeg_quality, LEAST_QUALITY)
    return Settings(quality, header.subsampling or "4:4:4")
