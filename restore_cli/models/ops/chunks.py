"""Parts of a network that run on one part of a feature map after the other, so that less is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["add_in_row_strips", "branch_rows", "in_row_strips", "residual_in_chunks", "row_strips"]

CHUNK_PIXELS = 4096
"""Px per thread and chunk of a residual branch."""

BRANCH_PIXELS = 8192
"""Px in a strip of rows of a residual branch. Sums over strips must not depend on the number of threads."""

STRIP_ROWS, HALO = 64, 4
"""Rows that a head enlarges at a time, and the context rows that it reads above and below, input px."""


def residual_in_chunks(x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x + branch(x), (b, h, w, c), for a branch that treats each pixel independently.

    On a CPU the branch runs on one chunk of pixels after the other, so that intermediate results stay in the cache.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x + branch(x)
    flat = x.flatten(0, 2)
    out = torch.empty_like(flat)
    step = CHUNK_PIXELS * torch.get_num_threads()
    for part, target in zip(torch.split(flat, step), torch.split(out, step), strict=True):
        torch.add(part, branch(part), out=target)
    return out.view(x.shape)


def in_row_strips(head: Callable[[Tensor], Tensor], x: Tensor, scale: int) -> Tensor:
    """Return head(x), (b, c, h, w) -> (b, c', h·scale, w·scale), for a head that sees at most HALO px to each side.

    Enlarged maps are by far the largest of a network. In strips of rows, only a part of them is in memory at a time.
    """
    height = x.shape[2]
    if height <= STRIP_ROWS + 4 * HALO:
        return head(x)
    parts = []
    for _, around, inside in row_strips(height, STRIP_ROWS, HALO):
        out = head(x[:, :, around])
        parts.append(out[:, :, inside.start * scale : inside.stop * scale].clone())
    return torch.cat(parts, 2)


def add_in_row_strips(x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Add branch(x) to the map (b, c, h, w) in place, for a branch that sees at most one px to each side."""
    rows, added = slice(0), None
    for after, around, inside in row_strips(x.shape[2], branch_rows(x.shape[3]), 1):
        following = branch(x[:, :, around])[:, :, inside]
        if added is not None:  # only now, because the branch has read the row before its strip
            x[:, :, rows] += added
        rows, added = after, following
    if added is not None:
        x[:, :, rows] += added
    return x


def branch_rows(width: int) -> int:
    """Return the rows of a strip of a residual branch."""
    return max(1, BRANCH_PIXELS // width)


def row_strips(height: int, rows: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the rows of each strip, these with up to `halo` rows above and below, and where the former are in these."""
    for top in range(0, height, rows):
        bottom, first = min(top + rows, height), max(0, top - halo)
        yield slice(top, bottom), slice(first, min(bottom + halo, height)), slice(top - first, bottom - first)
