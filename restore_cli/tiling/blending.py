"""Cross-fades overlapping tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from restore_cli.tiling.geometry import Axis

__all__ = ["TileJoiner"]


class TileJoiner:
    """Joins restored tiles that arrive one after the other along one axis, axis.length·scale px in all.

    Inside a fade `torch.lerp` mixes two tiles, so equal tiles stay equal to the bit. What a tile holds beyond its fades
    lacks context and is discarded. Only the fade of one tile is held.
    """

    def __init__(self, axis: Axis, scale: int, dim: int) -> None:
        self.axis, self.scale, self.dim = axis, scale, dim
        self.count = self.done = 0
        """tiles, and finished px"""
        self.held: Tensor | None = None
        """the beginning of the fade into the next tile"""

    def push(self, tile: Tensor) -> list[Tensor]:
        """Return the consecutive parts that the next tile finishes: the fade from the last tile, and what follows."""
        axis, i, parts = self.axis, self.count, []
        start = axis.starts[i] * self.scale

        def cut(first: int, end: int) -> Tensor:
            return tile.narrow(self.dim, first - start, end - first)

        if self.held is not None and (length := self.held.shape[self.dim]):
            part = cut(self.done, self.done + length)
            parts.append(torch.lerp(self.held, part, ramp(length, part, self.dim)))
            self.done += length
        last = i == len(axis.starts) - 1
        first, end = (axis.length * self.scale, 0) if last else (px * self.scale for px in axis.fade(i))
        parts.append(cut(self.done, first))
        self.held = None if last else cut(first, end).clone()
        self.count, self.done = i + 1, first
        return parts


def ramp(length: int, like: Tensor, dim: int) -> Tensor:
    """Return the weights of the second tile over a fade of `length` px, shaped to broadcast along `dim`."""
    weights = (torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / length
    return weights.view([-1 if d == dim else 1 for d in range(like.ndim)])
