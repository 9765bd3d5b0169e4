"""Parts of a network that run on one part of a feature map after the other, so that less is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["in_row_strips", "residual_in_chunks"]

CHUNK_PIXELS = 4096
"""Px per thread and chunk of a residual branch."""

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
    for top in range(0, height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, height)
        first = max(0, top - HALO)
        out = head(x[:, :, first : bottom + HALO])
        parts.append(out[:, :, (top - first) * scale : (bottom - first) * scale].clone())
    return torch.cat(parts, 2)
