"""One picture: rows in, made fit for the model, restored, brought back to what they were, rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restore_cli.contract import Contract, Model
from restore_cli.errors import ImageError
from restore_cli.image.alpha_bleed import BLEED_MARGIN, bleed_colours
from restore_cli.image.colour import ColourConversion, decode_srgb, encode_srgb, is_unsupported_profile, make_conversion
from restore_cli.image.picture import PEAK, Header, Samples
from restore_cli.image.reasons import NOT_FINITE
from restore_cli.image.resize import Resizer
from restore_cli.image.rows import RowBuffer, RowReader, read_blocks
from restore_cli.image.source import PictureSource
from restore_cli.pipeline.array import channels_for
from restore_cli.pipeline.output import Finish
from restore_cli.tiling.engine import Trace, bands

__all__ = ["Flow", "flow_of", "opaque"]

COLUMNS = 2048
"""px of a row whose colours are computed at a time"""
AHEAD = 4
"""rows that are read beyond a strip where something is carried beside the model, so that it is there in time"""
ROUNDING = 1e-6
"""light that float32 may leave out of what it holds"""


@dataclass(frozen=True)
class Flow:
    """How the pixels of one source pass through a model."""

    source: PictureSource
    finish: Finish
    low: float
    """what the model sees as 0, of floating-point files"""
    high: float
    colour: ColourConversion | None
    alpha: bool
    """whether the result has transparency"""

    @property
    def header(self) -> Header:
        """Of the source."""
        return self.source.header

    def rows(self, contract: Contract) -> ModelRows:
        """What a model of that contract sees of it."""
        return ModelRows(self, channels_for(contract, self.header.channels), contract.scale)

    def restored(self, model: Model, trace: Trace) -> Iterator[Samples]:
        """Finished rows (n, width·scale, c) float32 in the source's colours, alpha last, not yet clipped."""
        rows, beside = self.rows(model.contract), Trace(trace.tiling)
        alpha = self.alphas(model, beside, rows) if self.alpha else None
        for colours in self.coloured(bands(model, rows, trace), rows):
            if alpha is None:
                yield colours
            else:
                yield np.concatenate([colours, alpha(colours.shape[0])], 2)
        trace.tiles += beside.tiles
        trace.exact_tiles += beside.exact_tiles

    def coloured(self, restored: Iterable[Tensor], rows: ModelRows) -> Iterator[Samples]:
        """Bands (c, n, width·scale) of the model in the source's colours, (n, width·scale, c)."""
        for band in restored:
            yield self.back(channels_last(band, self.header.channels), rows.beyond)

    def back(self, pixels: Samples, beyond: RowBuffer | None) -> Samples:
        """What the model gave, in the colours and the range of the source."""
        if self.colour is not None and beyond is not None:  # light adds up; its coded values do not
            light = decode_srgb(pixels.clip(0, 1).astype(np.float64))
            pixels = self.colour.from_linear(light + beyond.pop(pixels.shape[0]))
        if (self.low, self.high) != (0.0, 1.0):
            pixels = pixels * np.float32(self.high - self.low) + np.float32(self.low)
        return pixels

    def alphas(self, model: Model, trace: Trace, rows: ModelRows) -> Callable[[int], Samples]:
        """A function that gives the next n rows of the result's alpha, (n, width·scale, 1)."""
        if rows.alpha is not None:
            return rows.alpha.pop
        queue = RowBuffer()
        finished = bands(Within(model), AlphaRows(self, channels_for(model.contract, 1)), trace)

        def pop(count: int) -> Samples:
            while queue.size < count:
                queue.push(channels_last(next(finished), 1))
            return queue.pop(count)

        return pop


def flow_of(source: PictureSource, finish: Finish) -> Flow:
    """Reads a floating-point file once for its range. Raises ImageError where that is not finite."""
    header, icc = source.header, source.metadata.icc
    low, high = range_of(source) if header.depth == 32 else (0.0, 1.0)
    colour = make_conversion(icc, header.channels) if (low, high) == (0.0, 1.0) else None
    if finish.icc == "srgb" and icc is None and source.metadata.has_foreign_cicp:
        found = (
            f"its colours are told by number (cICP {source.metadata.png[b'cICP'][:2].hex(' ')}), not converted to sRGB"
        )
        raise ImageError(f"{source.name}: {found}", "--icc keep --format png")
    if finish.icc == "srgb" and colour is None and is_unsupported_profile(icc, header.channels):
        found = "its colour profile is not one of curves and a matrix, others are not converted to sRGB"
        raise ImageError(f"{source.name}: {found}", "--icc keep into a format that holds profiles")
    return Flow(source, finish, low, high, colour, header.alpha and finish.alpha != "drop")


def range_of(source: PictureSource) -> tuple[float, float]:
    """(0, 1) where all colours lie inside, else their least and their greatest."""
    low, high = np.inf, -np.inf
    reader = source.open_rows()
    for block in read_blocks(reader, source.header.width * 16):
        if not np.isfinite(block).all():
            raise ImageError(f"{source.name}: {NOT_FINITE}")
        colours = block[..., : source.header.channels]
        low, high = min(low, float(colours.min())), max(high, float(colours.max()))
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1


def opaque(source: PictureSource) -> bool:
    """Whether nothing is lost without its alpha: reads it once."""
    if not source.header.alpha:
        return True
    return all(
        bool((b[..., -1] >= PEAK[str(b.dtype)]).all()) for b in read_blocks(source.open_rows(), source.header.width * 8)
    )


@dataclass
class SourceRows:
    """Rows of a source for a model, top to bottom once."""

    flow: Flow
    channels: int
    """that the model wants"""
    reader: RowReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = self.flow.source.open_rows()

    @property
    def height(self) -> int:
        """Px."""
        return self.flow.header.height

    @property
    def width(self) -> int:
        """Px."""
        return self.flow.header.width

    def tensor(self, rows: Samples) -> Tensor:
        """(n, w, c) -> (channels, n, w): gray as often as the model wants it."""
        return torch.from_numpy(np.ascontiguousarray(rows)).permute(2, 0, 1).expand(self.channels, -1, -1)


class Waiting(RowBuffer):
    """What passes beside a model: rows that wait for its result, as large as that."""

    def __init__(self, header: Header, scale: int) -> None:
        super().__init__()
        size = header.width, header.height
        self.resizer = None if scale == 1 else Resizer(size, (size[0] * scale, size[1] * scale))

    def push(self, rows: Samples) -> None:
        """(n, w, c) of the source."""
        for part in [rows] if self.resizer is None else self.resizer.push(rows):
            super().push(part)


@dataclass
class ModelRows(SourceRows):
    """What the model sees: colours in sRGB, clipped, spread under transparency. Keeps what it must not see."""

    scale: int = 1
    alpha: Waiting | None = field(init=False, default=None)
    """of the result, where the model has no part in it"""
    beyond: Waiting | None = field(init=False, default=None)
    """light outside of sRGB, and what float32 does not hold"""

    def __post_init__(self) -> None:
        super().__post_init__()
        flow, header = self.flow, self.flow.header
        self.done = 0
        self.margin = BLEED_MARGIN if header.alpha else AHEAD if flow.colour else 0
        if flow.colour is not None and flow.finish.icc == "keep":
            self.beyond = Waiting(header, self.scale)
        if flow.alpha and (self.scale == 1 or flow.finish.alpha == "lanczos"):
            self.alpha = Waiting(header, self.scale)

    def read(self, top: int, bottom: int) -> Tensor:
        """(channels, bottom - top, w) float32 in [0, 1]."""
        first, end = max(0, top - self.margin), min(self.height, bottom + self.margin)
        rows = self.reader.read(first, end)
        inside, outside = self.parted(rows)
        if end > self.done:
            self.keep(rows[self.done - first :], outside[self.done - first :])
            self.done = end
        return self.tensor(inside[top - first : bottom - first])

    def parted(self, rows: Samples) -> tuple[Samples, Samples]:
        """`colours` of wide rows, a part of their px at a time: it makes many copies."""
        inside = np.empty((*rows.shape[:2], self.flow.header.channels), np.float32)
        outside = inside if self.flow.colour is None else np.empty(inside.shape)
        for left in range(0, self.width, COLUMNS):
            right, before = min(left + COLUMNS, self.width), min(left, self.margin)
            found = self.colours(rows[:, left - before : right + self.margin])
            inside[:, left:right] = found[0][:, before : before + right - left]
            if outside is not inside:
                outside[:, left:right] = found[1][:, before : before + right - left]
        return inside, outside

    def colours(self, rows: Samples) -> tuple[Samples, Samples]:
        """(n, w, c) float32 in sRGB and [0, 1], and the light that this leaves out, float64."""
        flow, header = self.flow, self.flow.header
        values = unit(rows[..., : header.channels], flow.low, flow.high)
        if header.alpha:
            values = bleed_colours(values, rows[..., -1])
        if flow.colour is None:
            inside = values.clip(0, 1)
            return inside, inside  # nobody asks for the second
        linear = flow.colour.to_linear(values)
        inside = encode_srgb(linear).clip(0, 1).astype(np.float32)
        return inside, linear - decode_srgb(inside.astype(np.float64))

    def keep(self, rows: Samples, outside: Samples) -> None:
        """New rows: alpha and what lies outside of sRGB wait for the result."""
        if self.alpha is not None:
            self.alpha.push(unit(rows[..., -1:], 0, 1))
        if self.beyond is not None:  # neighbours' rounding, mixed by enlarging, would show beside black
            self.beyond.push(outside if self.scale == 1 else np.where(np.abs(outside) < ROUNDING, 0, outside))


class AlphaRows(SourceRows):
    """Transparency as the model sees it: a gray picture."""

    def read(self, top: int, bottom: int) -> Tensor:
        """(channels, bottom - top, w) float32 in [0, 1]."""
        return self.tensor(unit(self.reader.read(top, bottom)[..., -1:], 0, 1))


class Within:
    """The model for transparency: no value leaves the range of the four px around it, so that nothing rings.

    Where all is even the model is not asked: it stays as it is, to the bit.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def contract(self) -> Contract:
        """The model's."""
        return self.model.contract

    @property
    def exact(self) -> Model | None:
        """The model's, within the same range."""
        return Within(self.model.exact) if self.model.exact is not None else None

    def __call__(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h·scale, w·scale)."""
        b, c, h, w = x.shape
        scale, value = self.contract.scale, x.flatten()[0]
        if bool((x == value).all()):
            return value.expand(b, c, h * scale, w * scale).clone()
        out = self.model(x)
        low, high = -greatest_around(-x, scale), greatest_around(x, scale)
        return torch.minimum(torch.maximum(out, low.to(out)), high.to(out))


def greatest_around(x: Tensor, scale: int) -> Tensor:
    """(b, c, h, w) -> (b, c, h·scale, w·scale): the greatest of the four px whose centres lie around each place."""
    h, w, half = x.shape[2] * scale, x.shape[3] * scale, scale // 2
    cells = F.max_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 2, 1)
    return F.interpolate(cells, scale_factor=scale, mode="nearest")[:, :, half : half + h, half : half + w]


def unit(rows: Samples, low: float, high: float) -> Samples:
    """Samples of any kind -> float32, where low..high (of their peak) is 0..1."""
    values = rows.astype(np.float32) / np.float32(PEAK[str(rows.dtype)])
    return values if (low, high) == (0.0, 1.0) else (values - np.float32(low)) / np.float32(high - low)


def channels_last(band: Tensor, channels: int) -> Samples:
    """(c, n, w) -> (n, w, channels): the mean where three stand for one."""
    band = band if channels == band.shape[0] or channels > 1 else band.mean(0, keepdim=True)
    out: Samples = band.permute(1, 2, 0).numpy()
    return out
