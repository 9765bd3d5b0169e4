"""Cross-fades overlapping tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from restore_cli.tiling.geometry import Axis

__all__ = ["join"]


def join(tiles: Iterable[Tensor], axis: Axis, scale: int, dim: int) -> Iterator[Tensor]:
    """Yield consecutive parts along `dim` of the image that restored tiles make: axis.length·scale px in all.

    Inside a fade `torch.lerp` mixes two tiles, so equal tiles stay equal to the bit. What a tile holds beyond its fades
    lacks context and is discarded. Only the fade of one tile is held at a time.
    """
    held, done = None, 0
    for i, tile in enumerate(tiles):
        start = axis.starts[i] * scale

        def part(first: int, end: int, tile: Tensor = tile, start: int = start) -> Tensor:
            return tile.narrow(dim, first - start, end - first)

        if held is not None and held.shape[dim]:
            end = done + held.shape[dim]
            yield torch.lerp(held, part(done, end), ramp(held.shape[dim], held, dim))
            done = end
        last = i == len(axis.starts) - 1
        first, end = (axis.length * scale, 0) if last else (px * scale for px in axis.fade(i))
        yield part(done, first)
        done = first
        held = None if last else part(first, end).clone()
        del tile, part  # frees the memory for the next tiles


def ramp(length: int, like: Tensor, dim: int) -> Tensor:
    """Return the weights of the second tile over a fade of `length` px, shaped to broadcast along `dim`."""
    weights = (torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / length
    return weights.view([-1 if d == dim else 1 for d in range(like.ndim)])
