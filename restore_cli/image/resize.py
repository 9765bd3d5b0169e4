"""Resizing of row streams in floating point, and the sizes that `--resize` accepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restore_cli.errors import UsageError
from restore_cli.image.picture import Floats, Samples

__all__ = ["LANCZOS", "Resizer", "check_resize", "compute_size"]

MAX_FACTOR = 16
MAX_RESIZED_SIDE = 1_000_000
"""px. A few rows of this width fit into memory."""
BLOCK_SAMPLES = 1 << 22
"""Approximate number of samples computed at a time: whole rows, at least one."""
PATTERN = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)?x(\d{1,12})?", re.ASCII)


@dataclass(frozen=True)
class Kernel:
    """A symmetric resampling filter. It is zero beyond `support`, in px of the coarser grid."""

    support: float
    evaluate: Callable[[Floats], Floats]


LANCZOS = Kernel(3, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0))


class Resizer:
    """Resizes a stream of rows from `size` to `target`, both (width, height), with antialiasing."""

    def __init__(self, size: tuple[int, int], target: tuple[int, int], kernel: Kernel = LANCZOS) -> None:
        self.height = size[1]
        self.across = compute_taps(size[0], target[0], kernel)
        self.down = compute_taps(size[1], target[1], kernel)
        self.held: Samples | None = None
        self.first = self.seen = self.done = 0

    def push(self, rows: Samples) -> Iterator[Samples]:
        """Take rows (n, w, c) of the source and yield the rows of the target that are complete, in blocks."""
        step = max(1, BLOCK_SAMPLES // (len(self.across[0]) * rows.shape[2]))
        for top in range(0, rows.shape[0], step):
            self.add_rows(rows[top : top + step])
            index = self.down[0]
            ready = len(index) if self.seen == self.height else int(np.searchsorted(index[:, -1], self.seen))
            while self.done < ready:
                yield self.compute_rows(min(ready, self.done + step))
            self.drop_rows()

    def add_rows(self, rows: Samples) -> None:
        wide = apply_taps(rows.swapaxes(0, 1), *self.across).swapaxes(0, 1)
        self.held = wide if self.held is None else np.concatenate([self.held, wide])
        self.seen += rows.shape[0]

    def compute_rows(self, bottom: int) -> Samples:
        """Return the next rows of the target, up to `bottom`."""
        assert self.held is not None
        index, weight = self.down
        wanted = slice(self.done, bottom)
        self.done = bottom
        return apply_taps(self.held, index[wanted] - self.first, weight[wanted])

    def drop_rows(self) -> None:
        """Drop the rows of the source that no later row of the target needs."""
        assert self.held is not None
        index = self.down[0]
        keep = int(index[self.done, 0]) if self.done < len(index) else self.seen
        self.held, self.first = self.held[keep - self.first :], keep


def compute_taps(length: int, target: int, kernel: Kernel) -> tuple[NDArray[np.int64], Floats]:
    """Return the source indices and weights of each target pixel, both (target, taps).

    Weights sum to one. Border pixels are repeated beyond the border.
    """
    ratio = length / target
    stretch = max(1.0, ratio)
    centre = (np.arange(target) + 0.5) * ratio - 0.5
    taps = int(np.ceil(kernel.support * stretch)) * 2 + 1
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(taps) - taps // 2
    weight = kernel.evaluate((index - centre[:, None]) / stretch)
    weight /= weight.sum(1, keepdims=True)
    return index.clip(0, length - 1), weight


def apply_taps(rows: Samples, index: NDArray[np.int64], weight: Floats) -> Samples:
    """Return weighted sums along the first axis: (n, …) -> (target, …), float32 or float64 like `rows`."""
    weight = weight.astype(rows.dtype)
    out = np.zeros((len(index), *rows.shape[1:]), rows.dtype)
    for tap in range(index.shape[1]):
        if weight[:, tap].any():
            out += rows[index[:, tap]] * weight[:, tap].reshape(-1, *[1] * (rows.ndim - 1))
    return out


def check_resize(value: str, max_pixels: int, size: tuple[int, int] | None = None) -> None:
    """Check the value of `--resize`: its form, and the result's size against `max_pixels` and MAX_RESIZED_SIDE.

    `size` is the (width, height) of the input. Without it, only sizes that are too large for every input are refused.
    Raises UsageError.
    """
    width, height = smallest_size(value) if size is None else compute_size(value, size)
    given = "" if size is None else f"{size[0]}×{size[1]} px would become "
    if max(width, height) > MAX_RESIZED_SIDE:
        raise UsageError(f"--resize {value}: {given}{width}×{height} px; the limit is {MAX_RESIZED_SIDE:,} px a side")
    if width * height > max_pixels:
        line = f"--resize {value}: {given}{width}×{height} px; the limit is {max_pixels:,} px"
        raise UsageError(line, hint=f"--max-pixels {width * height}")


def smallest_size(value: str) -> tuple[int, int]:
    """Return the least (width, height) that the value can mean; an open side counts as 1 px. Raises UsageError."""
    _, width, height = parse_resize(value)
    return width or 1, height or 1


def compute_size(value: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) that the value means for an input of `size`. Raises UsageError."""
    width, height = size
    factor, across, down = parse_resize(value)
    if factor:
        target = round(width * factor), round(height * factor)
    else:
        target = across or max(1, round(width * down / height)), down or max(1, round(height * across / width))
    if min(target) < 1:
        raise UsageError(f"--resize {value}: {width}×{height} px would become {target[0]}×{target[1]}", "--resize 1x")
    return target


def parse_resize(value: str) -> tuple[float, int, int]:
    """Parse `2x`, `WxH`, `Wx` or `xH` to (factor, width, height); 0 stands for a missing number. Raises UsageError.

    In `Nx`, N is a factor if it has a decimal point or is at most MAX_FACTOR, else a width.
    """
    found = PATTERN.fullmatch(value.strip().lower())
    first, second = found.groups() if found else (None, None)
    if (first is None and second is None) or (second is not None and first is not None and "." in first):
        raise UsageError(f"--resize {value}: expected 2x, WIDTHxHEIGHT, WIDTHx or xHEIGHT", "--resize 2x")
    if not float(first or 1) or not int(second or 1):
        raise UsageError(f"--resize {value}: expected numbers above 0", "--resize 2x")
    if first and not second and ("." in first or int(first) <= MAX_FACTOR):
        return float(first), 0, 0
    return 0.0, int(first or 0), int(second or 0)
