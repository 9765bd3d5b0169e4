"""Windows of a feature map, and the parts into which windows divide an axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["AxisPart", "split_axis", "to_overlapping_windows", "to_windows"]


def to_windows(x: Tensor, i: int, j: int) -> Tensor:
    """Return a view of (b, h, w, heads, d) in windows of i·j px, (b, y, x, heads, i, j, d)."""
    return rearrange(x, "b (y i) (x j) heads d -> b y x heads i j d", i=i, j=j)


def to_overlapping_windows(x: Tensor, window: tuple[int, int], margin: int, rows: slice = slice(None)) -> Tensor:
    """Convert (b, h, w, heads, d) to (b, y, x, heads, i + 2·margin, j + 2·margin, d), with zeros outside the map.

    The windows divide `rows` of the map; the others, at most `margin` on each side, are only their surroundings.
    """
    top, bottom, _ = rows.indices(x.shape[1])
    x = F.pad(x, (0, 0, 0, 0, margin, margin, margin - top, margin - (x.shape[1] - bottom)))
    for dim, side in enumerate(window, 1):
        x = x.unfold(dim, side + 2 * margin, side)
    return rearrange(x, "b y x heads d i j -> b y x heads i j d")


@dataclass(frozen=True)
class AxisPart:
    """Some windows of a map along one axis: neighbours inside the map, or the one that wraps around its end."""

    axis: int
    slices: tuple[slice, ...]
    """of the map; if the window wraps, its end and then its beginning"""
    wraps: bool

    def read(self, x: Tensor) -> Tensor:
        """Return this part of the map: a view, or a copy if it wraps."""
        views = self.views(x)
        return torch.cat(views, self.axis) if self.wraps else views[0]

    def write(self, x: Tensor, part: Tensor) -> None:
        """Copy values to this part of the map."""
        for view, piece in zip(self.views(x), self.split(part), strict=True):
            view.copy_(piece)

    def views(self, x: Tensor) -> list[Tensor]:
        """Return the views of the map for all slices."""
        return [x[(slice(None),) * self.axis + (part,)] for part in self.slices]

    def split(self, part: Tensor) -> Sequence[Tensor]:
        """Return the pieces of a part for all slices."""
        return torch.split(part, [piece.stop - piece.start for piece in self.slices], self.axis)


def split_axis(length: int, window: int, shift: int, axis: int, most: int | None = None) -> Iterator[AxisPart]:
    """Yield all windows along an axis, those inside the map at most `most` px at a time.

    Windows begin at `shift` px, less than a window. With a shift the last one wraps around the end of the map.
    """
    inside = length - window if shift else length
    step = max(window, inside if most is None else most // window * window)
    for start in range(0, inside, step):
        part = slice(shift + start, shift + min(start + step, inside))
        yield AxisPart(axis, (part,), wraps=False)
    if shift:
        yield AxisPart(axis, (slice(shift + inside, length), slice(0, shift)), wraps=True)
