"""Restores the rows of one picture: converted for the model, restored, converted back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restore_cli.contract import Contract, Model
from restore_cli.errors import ImageError, UsageError
from restore_cli.image.alpha_bleed import BLEED_MARGIN, bleed_colours
from restore_cli.image.colour import ColourConversion, decode_srgb, encode_srgb, is_unsupported_profile, make_conversion
from restore_cli.image.picture import PEAK, Header, Samples
from restore_cli.image.picture_source import PictureSource
from restore_cli.image.reasons import NOT_FINITE
from restore_cli.image.resize import Resizer
from restore_cli.image.rows import RowBuffer, RowReader, read_blocks
from restore_cli.pipeline.output import OutputOptions, quantise_rows, round_pixels
from restore_cli.tiling.assembly import Finish, keep
from restore_cli.tiling.engine import Trace, restore_rows

__all__ = ["PicturePipeline", "is_opaque", "open_picture_pipeline"]

CHUNK_COLUMNS = 2048
"""Px of a row whose colours are converted at a time."""
LOOK_AHEAD = 4
"""Rows beyond a strip whose parts that bypass the model are stored, so that enlarging them can finish the strip."""
ROUNDING = 1e-6
"""Residuals below this are float32 rounding errors, in linear light."""


@dataclass(frozen=True)
class PicturePipeline:
    """How the pixels of one source are converted for a model and back."""

    source: PictureSource
    output: OutputOptions
    low: float
    """value of a floating-point file that the model gets as 0"""
    high: float
    """value that it gets as 1"""
    colour: ColourConversion | None
    """from the profile of the source to linear sRGB; None if its values are used as they are"""
    alpha: bool
    """whether the result has transparency"""
    clips: bool = True
    """whether values outside 0..1 are clipped; float arrays may have noise there, which a model expects"""

    @property
    def header(self) -> Header:
        """Header of the source."""
        return self.source.header

    @property
    def result_channels(self) -> int:
        """Channels of the result, with alpha. Two colour views become one."""
        return min(self.header.channels, 3) + self.alpha

    def model_rows(self, contract: Contract) -> ModelRows:
        """Return the rows as a model with this contract gets them."""
        return ModelRows(self, pick_channels(contract, self.header.channels), contract.scale)

    def restore(self, model: Model, trace: Trace, dtype: np.dtype[Any]) -> Iterator[Samples]:
        """Yield restored rows (n, width·scale, c) in the colours of the source, alpha last.

        They are rounded to the dtype if only rounding is left to do; else they are float32 and not yet clipped.
        """
        rows, alpha_trace = self.model_rows(model.contract), Trace(trace.tiling)
        alpha = self.make_alpha_reader(model, alpha_trace, rows) if self.alpha else None
        restored = restore_rows(model, rows, trace, self.choose_finish(dtype))
        for colours in self.to_source_colours(restored, rows):
            if alpha is None:
                yield colours
            else:
                opacity = iter([self.blend(alpha(colours.shape[0]), rows.original_alpha)])
                yield np.concatenate([colours, *quantise_rows(opacity, colours.dtype, alpha=True, dither=False)], 2)
        trace.tiles += alpha_trace.tiles
        trace.fp32_tiles += alpha_trace.fp32_tiles

    def choose_finish(self, dtype: np.dtype[Any]) -> Finish:
        """Return the function that finishes pixels on the device of the model. It rounds to the dtype, or does nothing.

        Pixels are kept if their colours, size or values change later, or if noise is added before they are rounded.
        """
        output, keeps_profile = self.output, self.colour is not None and self.output.icc == "keep"
        changes = keeps_profile or output.strength < 1 or output.resize is not None or output.dither
        if dtype == np.float32 or changes or (self.low, self.high) != (0.0, 1.0):
            return keep
        channels = self.header.channels
        return lambda pixels: round_pixels(to_channels(pixels, channels), dtype)

    def to_source_colours(self, restored: Iterable[Tensor], rows: ModelRows) -> Iterator[Samples]:
        """Convert blocks (c, n, width·scale) of the model to the colours of the source, (n, width·scale, c)."""
        for block in restored:
            yield self.convert_back(to_samples(block, self.header.channels), rows)

    def convert_back(self, pixels: Samples, rows: ModelRows) -> Samples:
        """Convert the output of the model to the colours and the value range of the source, and blend it with that.

        Pixels that were rounded on the device are finished.
        """
        if pixels.dtype != np.float32:
            return pixels
        out_of_gamut = rows.out_of_gamut
        if self.colour is not None and out_of_gamut is not None:  # only linear light can be added
            light = decode_srgb(pixels.clip(0, 1).astype(np.float64))
            pixels = self.colour.from_linear(light + out_of_gamut.pop(pixels.shape[0]))
        pixels = self.blend(pixels, rows.original)
        if (self.low, self.high) != (0.0, 1.0):
            pixels = pixels * np.float32(self.high - self.low) + np.float32(self.low)
        return pixels

    def blend(self, restored: Samples, original: RowBuffer | None) -> Samples:
        """Return the mean of restored rows and the next original ones, weighted by the strength.

        What integers cannot hold is clipped first, so that half the strength gives the mean of both files.
        """
        if original is None:
            return restored
        kept = original.pop(restored.shape[0])
        if self.header.depth < 32:
            restored, kept = restored.clip(0, 1), kept.clip(0, 1)
        blended: Samples = kept + np.float32(self.output.strength) * (restored - kept)
        return blended

    def make_alpha_reader(self, model: Model, trace: Trace, rows: ModelRows) -> Callable[[int], Samples]:
        """Return a function that returns the next n rows of the result's alpha, (n, width·scale, 1)."""
        if rows.alpha is not None:
            return rows.alpha.pop
        queue = RowBuffer()
        finished = restore_rows(RangeLimitedModel(model), AlphaRows(self, pick_channels(model.contract, 1)), trace)

        def pop(count: int) -> Samples:
            while queue.size < count:
                queue.push(to_samples(next(finished), 1))
            return queue.pop(count)

        return pop


def open_picture_pipeline(source: PictureSource, output: OutputOptions) -> PicturePipeline:
    """Prepare a source. A floating-point file is read once for its range.

    Raises ImageError if its values are not finite, or if its colours cannot be converted to sRGB as requested.
    """
    header, icc = source.header, source.metadata.icc
    low, high = read_value_range(source) if header.depth == 32 else (0.0, 1.0)
    colour = make_conversion(icc, header.channels) if (low, high) == (0.0, 1.0) else None
    if output.icc == "srgb" and icc is None and source.metadata.has_foreign_cicp:
        cicp = source.metadata.png[b"cICP"][:2].hex(" ")
        reason = f"its colours are defined by a cICP chunk ({cicp}), which cannot be converted to sRGB"
        raise ImageError(f"{source.name}: {reason}", "--icc keep --format png")
    if output.icc == "srgb" and colour is None and is_unsupported_profile(icc, header.channels):
        reason = "its colour profile cannot be converted to sRGB: that needs curves and an invertible matrix"
        raise ImageError(f"{source.name}: {reason}", "--icc keep with a format that holds profiles")
    return PicturePipeline(source, output, low, high, colour, header.alpha and output.alpha != "drop")


def pick_channels(contract: Contract, channels: int) -> int:
    """Return how many channels the model gets for an image of `channels`. Gray may become three equal channels.

    Raises UsageError if the image does not fit the model.
    """
    if channels == contract.channels or (channels == 1 and contract.channels == 3):
        return contract.channels
    expected = {1: "gray images", 3: "colour images", 6: "pairs of colour views, six channels"}[contract.channels]
    raise UsageError(f"this checkpoint restores {expected}; this image has {channels} channels", "restore models")


def read_value_range(source: PictureSource) -> tuple[float, float]:
    """Return (0, 1) if all colours are inside it, else their minimum and maximum. Raises ImageError if not finite."""
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


def is_opaque(source: PictureSource) -> bool:
    """Return whether a picture has no alpha, or alpha that is full everywhere. This reads the picture once."""
    if not source.header.alpha:
        return True
    return all(
        bool((b[..., -1] >= PEAK[str(b.dtype)]).all()) for b in read_blocks(source.open_rows(), source.header.width * 8)
    )


@dataclass
class SourceRows:
    """Rows of a source for a model, read once from top to bottom."""

    picture: PicturePipeline
    channels: int
    """channels of the model"""
    reader: RowReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = self.picture.source.open_rows()

    @property
    def height(self) -> int:
        """Height in px."""
        return self.picture.header.height

    @property
    def width(self) -> int:
        """Width in px."""
        return self.picture.header.width

    def tensor(self, rows: Samples) -> Tensor:
        """Convert (n, w, c) to (channels, n, w). Gray is repeated for a colour model."""
        return torch.from_numpy(np.ascontiguousarray(rows)).permute(2, 0, 1).expand(self.channels, -1, -1)


class BypassRows(RowBuffer):
    """A buffer of rows that bypass the model, enlarged to the size of its result."""

    def __init__(self, header: Header, scale: int) -> None:
        super().__init__()
        size = header.width, header.height
        self.resizer = None if scale == 1 else Resizer(size, (size[0] * scale, size[1] * scale))

    def push(self, rows: Samples) -> None:
        """Append rows (n, w, c) of the source."""
        for part in [rows] if self.resizer is None else self.resizer.push(rows):
            super().push(part)


class RowParts(NamedTuple):
    """Rows of a source, (n, w, c), split into what the model gets and what it does not see."""

    inside: Samples
    """what the model gets, float32: sRGB in [0, 1] if the source has a profile that is converted"""
    outside: Samples | None = None
    """linear light outside of that, float64, if the result keeps the profile of the source"""
    original: Samples | None = None
    """colours of the source, float32, if the result is blended with them; None if they equal `inside`"""


@dataclass
class ModelRows(SourceRows):
    """Colours as the model gets them: sRGB, clipped, spread under transparent pixels. What it must not get is kept."""

    scale: int = 1
    alpha: BypassRows | None = field(init=False, default=None)
    """alpha of the result, if the model does not restore it"""
    out_of_gamut: BypassRows | None = field(init=False, default=None)
    """linear light outside sRGB, and the rounding errors of float32"""
    original: BypassRows | None = field(init=False, default=None)
    """colours of the result without restoration, if the strength is less than 1"""
    original_alpha: BypassRows | None = field(init=False, default=None)
    """alpha of the result without restoration, if the model restores it and the strength is less than 1"""

    def __post_init__(self) -> None:
        super().__post_init__()
        picture, header = self.picture, self.picture.header
        self.done = 0
        blends = picture.output.strength < 1
        if blends and self.channels == 6:
            raise UsageError(f"--strength {picture.output.strength:g}: a pair of views has no single original to keep")
        self.reach = BLEED_MARGIN if header.alpha else 0
        self.ahead = LOOK_AHEAD if header.alpha or picture.colour or blends else 0
        if blends:
            self.original = BypassRows(header, self.scale)
        if picture.colour is not None and picture.output.icc == "keep":
            self.out_of_gamut = BypassRows(header, self.scale)
        if picture.alpha and (self.scale == 1 or picture.output.alpha == "lanczos"):
            self.alpha = BypassRows(header, self.scale)
        elif picture.alpha and blends:
            self.original_alpha = BypassRows(header, self.scale)

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows top..bottom as (channels, bottom - top, w) float32."""
        ready = min(self.height, bottom + self.ahead)
        first, end = max(0, top - self.reach), min(self.height, ready + self.reach)
        rows = self.reader.read(first, end)
        parts = self.split_rows(rows)
        if ready > self.done:
            self.keep(rows, parts, slice(self.done - first, ready - first))
            self.done = ready
        return self.tensor(parts.inside[top - first : bottom - first])

    def split_rows(self, rows: Samples) -> RowParts:
        """Apply `split_colours` to some columns at a time, because it makes many copies."""
        shape, keeps_outside = (*rows.shape[:2], self.picture.header.channels), self.out_of_gamut is not None
        parts = RowParts(
            np.empty(shape, np.float32),
            np.empty(shape) if keeps_outside else None,
            np.empty(shape, np.float32) if keeps_outside and self.original is not None else None,
        )
        for left in range(0, self.width, CHUNK_COLUMNS):
            right, before = min(left + CHUNK_COLUMNS, self.width), min(left, self.reach)
            found = self.split_colours(rows[:, left - before : right + self.reach])
            for part, columns in zip(parts, found, strict=True):
                if part is not None and columns is not None:
                    part[:, left:right] = columns[:, before : before + right - left]
        return parts

    def split_colours(self, rows: Samples) -> RowParts:
        """Split rows of the source. Visible colours are spread under transparent pixels first."""
        picture, header = self.picture, self.picture.header
        values = scale_to_unit(rows[..., : header.channels], picture.low, picture.high)
        if header.alpha:
            values = bleed_colours(values, rows[..., -1])
        if picture.colour is None:
            return RowParts(values.clip(0, 1) if picture.clips else values)
        linear = picture.colour.to_linear(values)
        inside = encode_srgb(linear).clip(0, 1).astype(np.float32)
        if self.out_of_gamut is None:
            return RowParts(inside)
        return RowParts(inside, linear - decode_srgb(inside.astype(np.float64)), values)

    def keep(self, rows: Samples, parts: RowParts, new: slice) -> None:
        """Store what bypasses the model of new rows until the result needs it."""
        for alpha in (self.alpha, self.original_alpha):
            if alpha is not None:
                alpha.push(scale_to_unit(rows[new, :, -1:], 0, 1))
        if self.original is not None:
            self.original.push((parts.inside if parts.original is None else parts.original)[new])
        if self.out_of_gamut is not None and parts.outside is not None:
            outside = parts.outside[new]
            # enlarging would spread rounding errors to dark neighbours, where they become visible
            self.out_of_gamut.push(outside if self.scale == 1 else np.where(np.abs(outside) < ROUNDING, 0, outside))


class AlphaRows(SourceRows):
    """Alpha as the model gets it: a gray picture."""

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows top..bottom as (channels, bottom - top, w) float32 in [0, 1]."""
        return self.tensor(scale_to_unit(self.reader.read(top, bottom)[..., -1:], 0, 1))


class RangeLimitedModel:
    """A model for alpha. Each value stays within the range of the four px around it, so that edges do not ring.

    Constant tiles bypass the model and stay equal to the bit.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def contract(self) -> Contract:
        """Contract of the model."""
        return self.model.contract

    @property
    def fp32_fallback(self) -> Model | None:
        """The fallback of the model, with the same limits."""
        fallback = self.model.fp32_fallback
        return None if fallback is None else RangeLimitedModel(fallback)

    def __call__(self, x: Tensor) -> Tensor:
        """Restore (b, c, h, w) to (b, c, h·scale, w·scale)."""
        b, c, h, w = x.shape
        scale, value = self.contract.scale, x.flatten()[0]
        if bool((x == value).all()):
            return value.expand(b, c, h * scale, w * scale).clone()
        out = self.model(x)
        low, high = -neighbourhood_max(-x, scale), neighbourhood_max(x, scale)
        return torch.minimum(torch.maximum(out, low.to(out)), high.to(out))


def neighbourhood_max(x: Tensor, scale: int) -> Tensor:
    """Return (b, c, h·scale, w·scale): for each output px the maximum of the four input px around it."""
    h, w, half = x.shape[2] * scale, x.shape[3] * scale, scale // 2
    cells = F.max_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 2, 1)
    return F.interpolate(cells, scale_factor=scale, mode="nearest")[:, :, half : half + h, half : half + w]


def scale_to_unit(rows: Samples, low: float, high: float) -> Samples:
    """Convert samples to float32 and map low..high, as fractions of their peak, to 0..1."""
    values = rows.astype(np.float32) / np.float32(PEAK[str(rows.dtype)])
    return values if (low, high) == (0.0, 1.0) else (values - np.float32(low)) / np.float32(high - low)


def to_channels(block: Tensor, channels: int) -> Tensor:
    """Convert three channels of (c, n, w) to one by their mean, if one is requested."""
    return block if channels == block.shape[0] or channels > 1 else block.mean(0, keepdim=True)


def to_samples(block: Tensor, channels: int) -> Samples:
    """Convert (c, n, w) to (n, w, channels). The bits of int16 are those of 16-bit samples."""
    out: Samples = to_channels(block, channels).permute(1, 2, 0).numpy()
    return out.view(np.uint16) if out.dtype == np.int16 else out
