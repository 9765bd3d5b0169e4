"""Neighbouring tiles pass into each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from restore_cli.tiling.geometry import Axis

__all__ = ["join"]


def join(pieces: Iterable[Tensor], axis: Axis, scale: int, dim: int) -> Iterator[Tensor]:
    """Restored tiles along `dim` -> parts that follow one another and together are length·scale px long.

    Inside a fade the tiles are mixed by `torch.lerp`, so equal tiles stay equal to the bit; what a tile holds
    beyond its fades lacks context and is thrown away. One tile's fade is held at a time.
    """
    held, done = None, 0
    for i, piece in enumerate(pieces):
        start = axis.starts[i] * scale

        def part(first: int, end: int, piece: Tensor = piece, start: int = start) -> Tensor:
            return piece.narrow(dim, first - start, end - first)

        if held is not None and held.shape[dim]:
            end = done + held.shape[dim]
            yield torch.lerp(held, part(done, end), ramp(held.shape[dim], held, dim))
            done = end
        last = i == len(axis.starts) - 1
        first, end = (axis.length * scale, 0) if last else (px * scale for px in axis.fade(i))
        yield part(done, first)
        done = first
        held = None if last else part(first, end).clone()
        del piece, part  # the next tiles need the room


def ramp(length: int, like: Tensor, dim: int) -> Tensor:
    """Weights of the second tile over a fade of `length` px, shaped to spread along `dim`."""
    weights = (torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / length
    return weights.view([-1 if d == dim else 1 for d in range(like.ndim)])
