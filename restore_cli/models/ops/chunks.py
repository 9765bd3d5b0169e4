"""Parts of a network that run on the parts of a feature map one after another, so that less is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from restore_cli.models.ops.linear import product_dtype
from restore_cli.models.ops.windows import split_axis

__all__ = [
    "add_in_chunks",
    "add_in_row_strips",
    "add_in_window_strips",
    "branch_rows",
    "in_row_strips",
    "residual_in_overlapping_strips",
    "row_strips",
    "runs_in_strips",
]

CHUNK_PIXELS = 4096
"""Px per thread and chunk of a residual branch."""

WINDOW_STRIP_VALUES = 3_000_000
"""Numbers of the feature map in a strip of window attention, per thread and of all pictures of a batch.

Smaller strips take longer.
"""

BRANCH_BYTES = 16384
"""Bytes of each channel in a strip of rows of a residual branch: 8192 px of bfloat16, or 4096 of float32.

Sums over strips must not depend on the number of threads.
"""

HEAD_ROWS, HALO = 32, 3
"""Rows that a head enlarges at a time on a CPU, and the context rows that it reads above and below, input px."""


def add_in_chunks(x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x + branch(x), (b, h, w, c), for a branch that treats each pixel independently.

    On a CPU the branch runs on chunks of pixels one after another, so that intermediate results stay in the cache, and
    the result overwrites x.
    """
    if not runs_in_strips(x):
        return x + branch(x)
    for part in torch.split(x.view(-1, x.shape[3]), CHUNK_PIXELS * torch.get_num_threads()):
        part += branch(part)
    return x


def add_in_window_strips(
    x: Tensor, branch: Callable[[Tensor, bool | None], Tensor], source: Tensor, window: int, shift: int
) -> Tensor:
    """Return x + branch(source, None), (b, h, w, c), for a branch that treats each row of windows independently.

    `source` is the map that the branch reads, x itself or another one. On a CPU the branch gets some rows of windows at
    a time, so that less is in memory, and the result overwrites x. The second argument of the branch is whether these
    rows wrap around the end of the map, or None for a whole map.
    """
    if not runs_in_strips(x):
        return x + branch(source, None)
    for rows in split_axis(x.shape[1], window, shift, 1, window_strip_rows(x)):
        added = rows.split(branch(rows.read(source), rows.wraps))
        for part, piece in zip(rows.views(x), added, strict=True):
            part += piece
    return x


def residual_in_overlapping_strips(
    x: Tensor, branch: Callable[[Tensor, slice], Tensor], window: int, margin: int
) -> Tensor:
    """Return x + branch(x, slice(None)), (b, h, w, c), for rows of windows that see `margin` px above and below.

    On a CPU the branch gets some rows of windows with the rows around them, and where the windows are in these.
    """
    if not runs_in_strips(x):
        return x + branch(x, slice(None))
    out, rows = torch.empty_like(x), max(window, window_strip_rows(x) // window * window)
    for strip, around, inside in row_strips(x.shape[1], rows, margin):
        torch.add(x[:, strip], branch(x[:, around], inside), out=out[:, strip])
    return out


def runs_in_strips(x: Tensor) -> bool:
    """Return whether a module runs on parts of this map: on a CPU, and not while it is compiled."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def window_strip_rows(x: Tensor) -> int:
    """Return the most rows of (b, h, w, c) in a strip of window attention, maybe less than a window has."""
    return WINDOW_STRIP_VALUES * torch.get_num_threads() // (x.shape[0] * x.shape[2] * x.shape[3])


def in_row_strips(head: Callable[[Tensor], Tensor], x: Tensor, scale: int) -> Tensor:
    """Return head(x), (b, c, h, w) -> (b, c', h·scale, w·scale), for a head that sees at most HALO px to each side.

    Enlarged maps are by far the largest of a network. In strips of rows, only a part of them is in memory at a time.
    """
    height, rows = x.shape[2], HEAD_ROWS if runs_in_strips(x) else 2 * HEAD_ROWS
    if height <= rows + 4 * HALO:
        return head(x)
    parts = []
    for _, around, inside in row_strips(height, rows, HALO):
        out = head(x[:, :, around])
        parts.append(out[:, :, inside.start * scale : inside.stop * scale].clone())
    return torch.cat(parts, 2)


def add_in_row_strips(x: Tensor, branch: Callable[[Tensor], Tensor], halo: int = 1) -> Tensor:
    """Add branch(x) to the map (b, c, h, w) in place, for a branch that sees at most `halo` px to each side."""
    rows, added = slice(0), None
    for after, around, inside in row_strips(x.shape[2], max(halo, branch_rows(x)), halo):
        following = branch(x[:, :, around])[:, :, inside]
        if added is not None:  # only now, because the branch has read the rows before its strip
            x[:, :, rows] += added
        rows, added = after, following
    if added is not None:
        x[:, :, rows] += added
    return x


def branch_rows(x: Tensor) -> int:
    """Return the rows of (b, c, h, w) in a strip of a residual branch."""
    return max(1, BRANCH_BYTES // (product_dtype(x).itemsize * x.shape[3]))


def row_strips(height: int, rows: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield three slices for each strip: its rows, these with up to `halo` more on each side, and its rows in those."""
    for top in range(0, height, rows):
        bottom, first = min(top + rows, height), max(0, top - halo)
        yield slice(top, bottom), slice(first, min(bottom + halo, height)), slice(top - first, bottom - first)
