"""Resampling in floating point, rows in and rows out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restore_cli.errors import UsageError
from restore_cli.image.picture import Samples

__all__ = ["LANCZOS", "Resizer", "check_resize", "compute_size"]

Floats = NDArray[np.float64]
MAX_FACTOR = 16
MAX_RESIZED_SIDE = 1_000_000
"""Px of a side: rows of this width, a few at a time, fit into memory."""
BLOCK_SAMPLES = 1 << 22
"""Samples that are computed at once, about. A whole number of rows, at least one."""
PATTERN = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)?x(\d{1,12})?", re.ASCII)


@dataclass(frozen=True)
class Kernel:
    """A symmetric function that is zero beyond `support`, in px of the coarser grid."""

    support: float
    at: Callable[[Floats], Floats]


LANCZOS = Kernel(3, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0))


class Resizer:
    """(n, w, c) rows of a picture of `size` (width, height) -> rows of one of `target`, antialiased when shrinking."""

    def __init__(self, size: tuple[int, int], target: tuple[int, int], kernel: Kernel = LANCZOS) -> None:
        self.height = size[1]
        self.across = compute_taps(size[0], target[0], kernel)
        self.down = compute_taps(size[1], target[1], kernel)
        self.held: Samples | None = None
        self.first = self.seen = self.done = 0

    def push(self, rows: Samples) -> Iterator[Samples]:
        """The rows that can be finished now, in blocks of bounded size; all of the rest with the last ones."""
        step = max(1, BLOCK_SAMPLES // (len(self.across[0]) * rows.shape[2]))
        for top in range(0, rows.shape[0], step):
            self.hold(rows[top : top + step])
            index = self.down[0]
            ready = len(index) if self.seen == self.height else int(np.searchsorted(index[:, -1], self.seen))
            while self.done < ready:
                yield self.finish(min(ready, self.done + step))
            self.forget()

    def hold(self, rows: Samples) -> None:
        """Take rows up, as wide as the target."""
        wide = apply_taps(rows.swapaxes(0, 1), *self.across).swapaxes(0, 1)
        self.held = wide if self.held is None else np.concatenate([self.held, wide])
        self.seen += rows.shape[0]

    def finish(self, bottom: int) -> Samples:
        """The next rows of the target, up to `bottom`."""
        assert self.held is not None
        index, weight = self.down
        wanted = slice(self.done, bottom)
        self.done = bottom
        return apply_taps(self.held, index[wanted] - self.first, weight[wanted])

    def forget(self) -> None:
        """Drop the rows that no later row of the target needs."""
        assert self.held is not None
        index = self.down[0]
        keep = int(index[self.done, 0]) if self.done < len(index) else self.seen
        self.held, self.first = self.held[keep - self.first :], keep


def compute_taps(length: int, target: int, kernel: Kernel) -> tuple[NDArray[np.int64], Floats]:
    """(target, taps) neighbours and their weights, which sum to one; the border px stands for those beyond it."""
    ratio = length / target
    stretch = max(1.0, ratio)
    centre = (np.arange(target) + 0.5) * ratio - 0.5
    taps = int(np.ceil(kernel.support * stretch)) * 2 + 1
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(taps) - taps // 2
    weight = kernel.at((index - centre[:, None]) / stretch)
    weight /= weight.sum(1, keepdims=True)
    return index.clip(0, length - 1), weight


def apply_taps(rows: Samples, index: NDArray[np.int64], weight: Floats) -> Samples:
    """(n, …) -> (targets, …) of the same kind, float32 or float64: sums of rows, a tap at a time."""
    weight = weight.astype(rows.dtype)
    out = np.zeros((len(index), *rows.shape[1:]), rows.dtype)
    for tap in range(index.shape[1]):
        if weight[:, tap].any():
            out += rows[index[:, tap]] * weight[:, tap].reshape(-1, *[1] * (rows.ndim - 1))
    return out


def check_resize(wish: str, max_pixels: int, size: tuple[int, int] | None = None) -> None:
    """Raise UsageError where `wish` is not of the form, or asks for more than `max_pixels` or LONGEST_SIDE.

    `size` is the input's (width, height). Without it, only what is too large for every input is refused.
    """
    width, height = smallest_size(wish) if size is None else compute_size(wish, size)
    given = "" if size is None else f"{size[0]}×{size[1]} px would become "
    if max(width, height) > MAX_RESIZED_SIDE:
        raise UsageError(f"--resize {wish}: {given}{width}×{height} px, the limit is {MAX_RESIZED_SIDE:,} px a side")
    if width * height > max_pixels:
        raise UsageError(
            f"--resize {wish}: {given}{width}×{height} px, the limit is {max_pixels:,} px",
            hint=f"--max-pixels {width * height}",
        )


def smallest_size(wish: str) -> tuple[int, int]:
    """The (width, height) that `wish` states, 1 px where it leaves a side open. Raises UsageError."""
    _, width, height = parse_resize(wish)
    return width or 1, height or 1


def compute_size(wish: str, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) that `wish` means for an input of `size`. Raises UsageError where a side would have no px."""
    width, height = size
    factor, across, down = parse_resize(wish)
    if factor:
        target = round(width * factor), round(height * factor)
    else:
        target = across or max(1, round(width * down / height)), down or max(1, round(height * across / width))
    if min(target) < 1:
        raise UsageError(f"--resize {wish}: {width}×{height} px would become {target[0]}×{target[1]}", "--resize 1x")
    return target


def parse_resize(wish: str) -> tuple[float, int, int]:
    """(factor, width, height) of `2x`, `WxH`, `Wx` or `xH`, 0 for what is not stated. Raises UsageError.

    A number up to 16 before a lone x, or one with a decimal point, is a factor; a larger one is a width.
    """
    found = PATTERN.fullmatch(wish.strip().lower())
    first, second = found.groups() if found else (None, None)
    if (first is None and second is None) or (second is not None and first is not None and "." in first):
        raise UsageError(f"--resize {wish}: expected 2x, WIDTHxHEIGHT, WIDTHx or xHEIGHT", "--resize 2x")
    if not float(first or 1) or not int(second or 1):
        raise UsageError(f"--resize {wish}: expected numbers above 0", "--resize 2x")
    if first and not second and ("." in first or int(first) <= MAX_FACTOR):
        return float(first), 0, 0
    return 0.0, int(first or 0), int(second or 0)
