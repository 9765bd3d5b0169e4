"""Tiles through the model, finished rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from restore_cli.contract import Contract, Model
from restore_cli.tiling.batches import restored
from restore_cli.tiling.blending import join
from restore_cli.tiling.geometry import Axis, Tiling, padded, plan_axis, reflected

__all__ = ["Rows", "Trace", "bands", "together"]


ROWS = 64
"""Rows of the result that are handed on at a time: whoever gets them makes copies."""


class Rows(Protocol):
    """A picture that is read from top to bottom."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...

    def read(self, top: int, bottom: int) -> Tensor:
        """Rows top..bottom as (c, bottom - top, w) float32 in [0, 1].

        Bounds grow from call to call; `top` goes back by less than a grid cell, for reflected rows.
        """


@dataclass
class Trace:
    """What happened while the pictures of a file were restored."""

    tiling: Tiling
    tiles: int = 0
    """tiles that are restored, of all pictures"""
    exact_tiles: int = 0
    """tiles that overflowed and were run again in float32"""
    on_tile: Callable[[int, int], None] = lambda done, total: None
    """called with the tiles of the current picture that are done and their total"""


def bands(model: Model, rows: Rows, trace: Trace) -> Iterator[Tensor]:
    """Finished rows (c, n, w·scale) on the CPU, top to bottom, h·scale in all.

    Holds one row of tiles. Raises RestoreError where the model gives no finite numbers even in float32.
    """
    contract, tiling = model.contract, trace.tiling.fitted(model.contract)
    high, wide = padded(rows.height, contract), padded(rows.width, contract)
    down = plan_axis(high, tiling.tile, tiling.overlap, contract.grid)
    across = plan_axis(wide, tiling.tile, tiling.overlap, contract.grid)
    total = len(down.starts) * len(across.starts)

    def tiles() -> Iterator[Tensor]:
        for i in range(len(down.starts)):
            strip = padded_strip(rows, *down.span(i), high, wide)
            yield from batches([strip[:, :, slice(*across.span(j))] for j in range(len(across.starts))], tiling.batch)

    def strips() -> Iterator[Tensor]:
        row: list[Tensor] = []
        done = 0
        for batch, exact in restored(model, tiles()):
            done += len(batch)
            trace.tiles += len(batch)
            trace.exact_tiles += len(exact)
            trace.on_tile(done, total)
            row.extend(batch)
            del batch
            if len(row) == len(across.starts):
                yield joined(emptied(row), across, contract, rows.width)

    left = rows.height * contract.scale
    for band in join(strips(), down, contract.scale, dim=1):
        if left > 0 and band.shape[1]:
            yield from torch.split(band[:, :left], ROWS, 1)
        left -= band.shape[1]
        del band  # the next tiles need the room


def together(model: Model, pictures: Sequence[Rows], tiling: Tiling) -> list[tuple[Tensor, Trace]]:
    """Pictures of equal padded size, each in one tile, in one call -> (c, h·scale, w·scale) of each, on the CPU."""
    contract = model.contract
    high, wide = padded(pictures[0].height, contract), padded(pictures[0].width, contract)
    tiles = torch.stack([padded_strip(rows, 0, high, high, wide) for rows in pictures])
    ((out, exact),) = restored(model, [tiles])
    traces = [Trace(tiling, tiles=1, exact_tiles=int(i in exact)) for i in range(len(pictures))]
    sizes = [(rows.height * contract.scale, rows.width * contract.scale) for rows in pictures]
    cropped = [tile[:, :height, :width] for tile, (height, width) in zip(out, sizes, strict=True)]
    return list(zip(cropped, traces, strict=True))


def batches(tiles: list[Tensor], size: int) -> Iterator[Tensor]:
    """Tiles of equal shape together, at most `size` at a time, in order."""
    for _, alike in groupby(tiles, key=lambda tile: tile.shape):
        group = list(alike)
        for i in range(0, len(group), size):
            yield torch.stack(group[i : i + size])


def emptied(row: list[Tensor]) -> list[Tensor]:
    """What was in the list; whoever filled it holds none of it any more."""
    taken = row[:]
    row.clear()
    return taken


def joined(tiles: list[Tensor], across: Axis, contract: Contract, width: int) -> Tensor:
    """Restored tiles of one row, each (c, n, tile·scale) -> (c, n, width·scale)."""
    return torch.cat(list(join(tiles, across, contract.scale, dim=2)), 2)[:, :, : width * contract.scale]


def padded_strip(rows: Rows, top: int, bottom: int, high: int, wide: int) -> Tensor:
    """Rows top..bottom of the padded picture, (c, bottom - top, wide)."""
    ys = reflected(rows.height, high)[top:bottom]
    first, end = min(ys), max(ys) + 1
    strip = rows.read(first, end)
    if ys != list(range(first, end)):
        strip = strip[:, torch.tensor(ys) - first]
    return strip if rows.width == wide else strip[:, :, torch.tensor(reflected(rows.width, wide))]
