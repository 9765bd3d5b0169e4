"""Restores a picture in tiles: rows in, finished rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from restore_cli.contract import Contract, Model
from restore_cli.tiling.batches import run_batches
from restore_cli.tiling.blending import join
from restore_cli.tiling.geometry import Axis, Tiling, padded_side, plan_axis, reflection_indices

__all__ = ["Rows", "Trace", "restore_batch", "restore_rows"]


BLOCK_ROWS = 64
"""Output rows per yielded block. Consumers copy each block, so this bounds their memory."""


class Rows(Protocol):
    """A picture that is read from top to bottom."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows top..bottom as (c, bottom - top, w) float32 in [0, 1].

        Bounds grow from call to call. Only `top` may go back, by less than `tile_multiple`, for reflected rows.
        """


@dataclass
class Trace:
    """What happened while the pictures of a file were restored."""

    tiling: Tiling
    tiles: int = 0
    """tiles restored so far, of all pictures"""
    fp32_tiles: int = 0
    """tiles that overflowed and ran again in float32"""
    on_tile: Callable[[int, int], None] = lambda done, total: None
    """called with the number of finished tiles of the current picture, and their total"""


def restore_rows(model: Model, rows: Rows, trace: Trace) -> Iterator[Tensor]:
    """Yield the restored picture as blocks of rows (c, n, w·scale) on the CPU, top to bottom, h·scale rows in all.

    Holds one row of tiles at a time, and counts tiles in `trace`.

    Raises:
        RestoreError: the output of the model is not finite, even in float32.
    """
    contract, tiling = model.contract, trace.tiling.fitted(model.contract)
    high, wide = padded_side(rows.height, contract), padded_side(rows.width, contract)
    down = plan_axis(high, tiling.tile, tiling.overlap, contract.tile_multiple)
    across = plan_axis(wide, tiling.tile, tiling.overlap, contract.tile_multiple)
    total = len(down.starts) * len(across.starts)

    def batches() -> Iterator[Tensor]:
        for i in range(len(down.starts)):
            strip = read_padded(rows, *down.span(i), high, wide)
            tiles = [strip[:, :, slice(*across.span(j))] for j in range(len(across.starts))]
            yield from stack_equal_tiles(tiles, tiling.batch)

    def strips() -> Iterator[Tensor]:
        row: list[Tensor] = []
        done = 0
        for batch, in_fp32 in run_batches(model, batches()):
            done += len(batch)
            trace.tiles += len(batch)
            trace.fp32_tiles += len(in_fp32)
            trace.on_tile(done, total)
            row.extend(batch)
            del batch
            if len(row) == len(across.starts):
                yield join_across(take_all(row), across, contract, rows.width)

    left = rows.height * contract.scale
    for block in join(strips(), down, contract.scale, dim=1):
        if left > 0 and block.shape[1]:
            yield from torch.split(block[:, :left], BLOCK_ROWS, 1)
        left -= block.shape[1]
        del block  # frees the memory for the next tiles


def restore_batch(model: Model, pictures: Sequence[Rows], tiling: Tiling) -> list[tuple[Tensor, Trace]]:
    """Restore pictures of equal padded size, each a single tile, in one call of the model.

    Returns (c, h·scale, w·scale) on the CPU and a Trace for each. Raises RestoreError as `restore_rows`.
    """
    contract = model.contract
    high, wide = padded_side(pictures[0].height, contract), padded_side(pictures[0].width, contract)
    tiles = torch.stack([read_padded(rows, 0, high, high, wide) for rows in pictures])
    ((out, in_fp32),) = run_batches(model, [tiles])
    traces = [Trace(tiling, tiles=1, fp32_tiles=int(i in in_fp32)) for i in range(len(pictures))]
    sizes = [(rows.height * contract.scale, rows.width * contract.scale) for rows in pictures]
    cropped = [tile[:, :height, :width] for tile, (height, width) in zip(out, sizes, strict=True)]
    return list(zip(cropped, traces, strict=True))


def stack_equal_tiles(tiles: list[Tensor], most: int) -> Iterator[Tensor]:
    """Yield neighbouring tiles of equal shape as batches of at most `most`, in order."""
    for _, equal in groupby(tiles, key=lambda tile: tile.shape):
        group = list(equal)
        for i in range(0, len(group), most):
            yield torch.stack(group[i : i + most])


def take_all(row: list[Tensor]) -> list[Tensor]:
    """Empty the list and return what it held, so that only the caller keeps the tiles alive."""
    taken = row[:]
    row.clear()
    return taken


def join_across(tiles: list[Tensor], across: Axis, contract: Contract, width: int) -> Tensor:
    """Join the restored tiles of one row, each (c, n, tile·scale), to (c, n, width·scale)."""
    return torch.cat(list(join(tiles, across, contract.scale, dim=2)), 2)[:, :, : width * contract.scale]


def read_padded(rows: Rows, top: int, bottom: int, high: int, wide: int) -> Tensor:
    """Read rows top..bottom of the picture padded to (high, wide), as (c, bottom - top, wide)."""
    ys = reflection_indices(rows.height, high)[top:bottom]
    first, end = min(ys), max(ys) + 1
    strip = rows.read(first, end)
    if ys != list(range(first, end)):
        strip = strip[:, torch.tensor(ys) - first]
    return strip if rows.width == wide else strip[:, :, torch.tensor(reflection_indices(rows.width, wide))]
