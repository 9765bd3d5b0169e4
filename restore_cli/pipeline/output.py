"""Converts restored rows to the final size and sample type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore_cli.errors import OutputError, UsageError
from restore_cli.image.formats.capabilities import FORMAT_NAMES, WRITABLE_DEPTHS
from restore_cli.image.picture import PEAK, Header, Samples
from restore_cli.image.resize import Resizer, check_resize

__all__ = [
    "ALPHA",
    "BIT_DEPTH",
    "ICC",
    "OutputOptions",
    "check_final_size",
    "pick_sample_type",
    "quantise_rows",
    "resize_rows",
    "round_on_device",
    "round_pixels",
]

ALPHA = ("model", "lanczos", "drop")
ICC = ("keep", "srgb")
BIT_DEPTH = ("auto", "8", "16")
SAMPLE_TYPES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16), 32: np.dtype(np.float32)}


@dataclass(frozen=True)
class OutputOptions:
    """Options of the output, as the command line names them."""

    bit_depth: str = "auto"
    dither: bool = False
    alpha: str = "model"
    icc: str = "keep"
    resize: str | None = None
    strip: bool = False
    strength: float = 1.0
    """share of the restored image in the result; the rest is the unrestored one"""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UsageError(f"--strength {self.strength:g}: expected 0 to 1")
        choices = (("bit-depth", self.bit_depth, BIT_DEPTH), ("alpha", self.alpha, ALPHA), ("icc", self.icc, ICC))
        for name, value, allowed in choices:
            if value not in allowed:
                raise UsageError(f"--{name} {value}: expected {', '.join(allowed)}")


def check_final_size(options: OutputOptions, header: Header, max_pixels: int) -> None:
    """Raise UsageError if --resize gives more than `max_pixels`, or less than one pixel."""
    if options.resize is not None:
        check_resize(options.resize, max_pixels, (header.width, header.height))


def pick_sample_type(options: OutputOptions, header: Header, format: str) -> np.dtype[Any]:
    """Return the dtype of the samples to write: the requested one, else the input's, else the deepest of the format.

    Raises OutputError if the format cannot hold the requested depth.
    """
    writable = WRITABLE_DEPTHS[format]
    if options.bit_depth == "auto":
        return SAMPLE_TYPES[header.depth if header.depth in writable else max(d for d in writable if d <= header.depth)]
    wanted = int(options.bit_depth)
    if wanted not in writable:
        raise OutputError(f"{FORMAT_NAMES[format]} holds no {wanted}-bit samples", "--format png")
    return SAMPLE_TYPES[wanted]


def resize_rows(blocks: Iterator[Samples], size: tuple[int, int], target: tuple[int, int]) -> Iterator[Samples]:
    """Resample blocks of rows of a picture from `size` to `target`, both (width, height), in floating point."""
    if size == target:
        yield from blocks
        return
    resizer = Resizer(size, target)
    for block in blocks:
        yield from resizer.push(block)


def quantise_rows(blocks: Iterator[Samples], dtype: np.dtype[Any], alpha: bool, dither: bool) -> Iterator[Samples]:
    """Convert blocks of rows to the dtype. Floats are clipped and rounded half to even; rounded blocks and floats stay.

    `dither` adds triangular noise of one step to the colours before rounding. The noise is the same in every run.
    """
    peak = PEAK[str(dtype)]
    row = 0
    for block in blocks:
        if block.dtype == dtype or dtype == np.float32:
            yield block.astype(dtype, copy=False)
            continue
        values = block * np.float32(peak)
        if dither:
            colours = values.shape[2] - alpha
            values[..., :colours] += triangular_noise(row, (*values.shape[:2], colours))
        yield round_half_to_even(values, dtype)
        row += block.shape[0]


def round_half_to_even(values: Samples, dtype: np.dtype[Any]) -> Samples:
    """Clip values to the range of an integer type and round them. The values are overwritten."""
    rounded: Samples = np.rint(np.clip(values, 0, PEAK[str(dtype)], out=values), out=values).astype(dtype)
    return rounded


def round_pixels(pixels: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Convert float32 pixels as `quantise_rows` does, on their device. The bits of uint16 are returned as int16.

    On a CPU this is done by numpy: PyTorch would start threads for each step, which wait for each other on busy cores.
    """
    if pixels.device.type != "cpu":
        return round_on_device(pixels, dtype)
    rounded = round_half_to_even(pixels.numpy() * np.float32(PEAK[str(dtype)]), dtype)
    return torch.from_numpy(rounded if dtype == np.uint8 else rounded.view(np.int16))


def round_on_device(pixels: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Convert float32 pixels as `quantise_rows` does. Not every device has uint16: its bits are returned as int16."""
    values = (pixels * PEAK[str(dtype)]).clamp_(0, PEAK[str(dtype)]).round_()
    return values.to(torch.uint8) if dtype == np.uint8 else values.to(torch.int32).to(torch.int16)


def triangular_noise(row: int, shape: tuple[int, ...]) -> Samples:
    """Return triangular noise in (-1, 1). Each row has its own seed, so the noise does not depend on the blocks."""
    rows = []
    for i in range(shape[0]):
        random = np.random.default_rng(row + i)
        rows.append(random.random(shape[1:], np.float32) - random.random(shape[1:], np.float32))
    return np.stack(rows)
