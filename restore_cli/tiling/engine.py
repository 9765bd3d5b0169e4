"""Restores a picture in tiles: rows in, finished rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from restore_cli.contract import Model
from restore_cli.tiling.assembly import Assembly, Finish, keep
from restore_cli.tiling.batches import run_batches
from restore_cli.tiling.geometry import Tiling, padded_side, plan_axis, reflection_indices
from restore_cli.tiling.host_copy import copy_to_host

__all__ = ["Rows", "Trace", "restore_batch", "restore_rows"]


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


def restore_rows(model: Model, rows: Rows, trace: Trace, finish: Finish = keep) -> Iterator[Tensor]:
    """Yield the restored picture as blocks of rows (c, n, w·scale) on the CPU, top to bottom, h·scale rows in all.

    Tiles are joined and finished on the device of the model. Holds one row of tiles at a time, and counts tiles in
    `trace`.

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

    size = rows.height * contract.scale, rows.width * contract.scale
    assembly, done = Assembly(down, across, contract.scale, size, finish), 0
    for batch, in_fp32 in run_batches(model, batches()):
        yield from assembly.collect()  # a GPU has copied these parts before it restored this batch
        done += len(batch)
        trace.tiles += len(batch)
        trace.fp32_tiles += len(in_fp32)
        trace.on_tile(done, total)
        for tile in batch:
            assembly.add(tile)
        is_done = batch.device.type == "cpu"
        del batch, tile  # frees the memory for the next tiles
        if is_done:
            yield from assembly.collect()
    yield from assembly.collect()


def restore_batch(
    model: Model, pictures: Sequence[Rows], tiling: Tiling, finishes: Sequence[Finish]
) -> list[tuple[Tensor, Trace]]:
    """Restore pictures of equal padded size, each a single tile, in one call of the model, and finish each.

    Returns (c, h·scale, w·scale) on the CPU and a Trace for each. Raises RestoreError as `restore_rows`.
    """
    contract = model.contract
    high, wide = padded_side(pictures[0].height, contract), padded_side(pictures[0].width, contract)
    tiles = torch.stack([read_padded(rows, 0, high, high, wide) for rows in pictures])
    ((out, in_fp32),) = run_batches(model, [tiles])
    traces = [Trace(tiling, tiles=1, fp32_tiles=int(i in in_fp32)) for i in range(len(pictures))]
    sizes = [(rows.height * contract.scale, rows.width * contract.scale) for rows in pictures]
    cropped = [tile[:, :height, :width] for tile, (height, width) in zip(out, sizes, strict=True)]
    copies = [copy_to_host(finish(tile)) for tile, finish in zip(cropped, finishes, strict=True)]
    return [(copy.take(), trace) for copy, trace in zip(copies, traces, strict=True)]


def stack_equal_tiles(tiles: list[Tensor], most: int) -> Iterator[Tensor]:
    """Yield neighbouring tiles of equal shape as batches of at most `most`, in order."""
    for _, equal in groupby(tiles, key=lambda tile: tile.shape):
        group = list(equal)
        for i in range(0, len(group), most):
            yield torch.stack(group[i : i + most])


def read_padded(rows: Rows, top: int, bottom: int, high: int, wide: int) -> Tensor:
    """Read rows top..bottom of the picture padded to (high, wide), as (c, bottom - top, wide)."""
    ys = reflection_indices(rows.height, high)[top:bottom]
    first, end = min(ys), max(ys) + 1
    strip = rows.read(first, end)
    if ys != list(range(first, end)):
        strip = strip[:, torch.tensor(ys) - first]
    return strip if rows.width == wide else strip[:, :, torch.tensor(reflection_indices(rows.width, wide))]
