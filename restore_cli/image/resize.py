"""Resampling in floating point, rows in and rows out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restore_cli.errors import UsageError
from restore_cli.image.picture import Samples

__all__ = ["Resizer", "lanczos", "target_size"]

Floats = NDArray[np.float64]
LARGEST_FACTOR = 16


@dataclass(frozen=True)
class Kernel:
    """A symmetric function that is zero beyond `support`, in px of the coarser grid."""

    support: float
    at: Callable[[Floats], Floats]


lanczos = Kernel(3, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0))


class Resizer:
    """(n, w, c) rows of a picture of `size` (width, height) -> rows of one of `target`, antialiased when shrinking."""

    def __init__(self, size: tuple[int, int], target: tuple[int, int], kernel: Kernel = lanczos) -> None:
        self.height = size[1]
        self.across = weights(size[0], target[0], kernel)
        self.down = weights(size[1], target[1], kernel)
        self.held: Samples | None = None
        self.first = self.seen = self.done = 0

    def push(self, rows: Samples) -> Samples:
        """The rows that can be finished now; all of the rest with the last ones."""
        wide = weighted(rows.swapaxes(0, 1), *self.across).swapaxes(0, 1)
        self.held = wide if self.held is None else np.concatenate([self.held, wide])
        self.seen += rows.shape[0]
        index, weight = self.down
        ready = len(index) if self.seen == self.height else int(np.searchsorted(index[:, -1], self.seen))
        ready = max(ready, self.done)
        out = weighted(self.held, index[self.done : ready] - self.first, weight[self.done : ready])
        self.done = ready
        keep = int(index[ready, 0]) if ready < len(index) else self.seen
        self.held, self.first = self.held[keep - self.first :], keep
        return out


def weights(length: int, target: int, kernel: Kernel) -> tuple[NDArray[np.int64], Floats]:
    """(target, taps) neighbours and their weights, which sum to one; the border px stands for those beyond it."""
    ratio = length / target
    stretch = max(1.0, ratio)
    centre = (np.arange(target) + 0.5) * ratio - 0.5
    taps = int(np.ceil(kernel.support * stretch)) * 2 + 1
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(taps) - taps // 2
    weight = kernel.at((index - centre[:, None]) / stretch)
    weight /= weight.sum(1, keepdims=True)
    return index.clip(0, length - 1), weight


def weighted(rows: Samples, index: NDArray[np.int64], weight: Floats) -> Samples:
    """(n, …) -> (targets, …) of the same kind, float32 or float64: sums of rows, a tap at a time."""
    weight = weight.astype(rows.dtype)
    out = np.zeros((len(index), *rows.shape[1:]), rows.dtype)
    for tap in range(index.shape[1]):
        if weight[:, tap].any():
            out += rows[index[:, tap]] * weight[:, tap].reshape(-1, *[1] * (rows.ndim - 1))
    return out


def target_size(wish: str, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) that `2x`, `WxH`, `Wx` or `xH` means for an input of `size`. Raises UsageError.

    A number up to 16 before a lone x, or one with a decimal point, is a factor; a larger one is a width.
    """
    width, height = size
    found = re.fullmatch(r"(\d+(?:\.\d+)?)?x(\d+)?", wish.strip().lower())
    first, second = found.groups() if found else (None, None)
    if (first is None and second is None) or (second is not None and first is not None and "." in first):
        raise UsageError(f"--resize {wish}: expected 2x, WIDTHxHEIGHT, WIDTHx or xHEIGHT", "--resize 2x")
    if first and second:
        target = int(first), int(second)
    elif first and ("." in first or int(first) <= LARGEST_FACTOR):
        target = round(width * float(first)), round(height * float(first))
    elif first:
        target = int(first), max(1, round(height * int(first) / width))
    else:
        target = max(1, round(width * int(second or 0) / height)), int(second or 0)
    if min(target) < 1:
        raise UsageError(f"--resize {wish}: {width}×{height} px would become {target[0]}×{target[1]}", "--resize 1x")
    return target
