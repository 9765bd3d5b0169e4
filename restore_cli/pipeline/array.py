"""One picture: rows in, padded, tiled, restored, blended, cropped, rows out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_cli.contract import Contract, Model
from restore_cli.errors import OutOfMemory, UsageError, is_out_of_memory
from restore_cli.models.processor import release_freed_memory
from restore_cli.pipeline.memory import tiling_for
from restore_cli.tiling.engine import Trace, bands
from restore_cli.tiling.geometry import Tiling

__all__ = ["attempts", "channels_for", "default_tiling", "restore_array", "suited_tiling"]

Array = NDArray[Any]
OnTile = Callable[[int, int], None]
T = TypeVar("T")

TILE = 512
"""Tile side where the model has no wish of its own, input px; with every family's overlap this computes less than
1.25 times the px of a large picture."""


BATCH = 4
"""Tiles that a GPU is given at a time: one of a small network takes it less time than to be told what to do."""


def default_tiling(
    contract: Contract, tile: int | None = None, overlap: int | None = None, batch: int | None = None
) -> Tiling:
    """The tiling asked for, completed by what the model wants; a tile of 0 is the whole picture."""
    side = (contract.tile or TILE) if tile is None else tile
    return Tiling(side, contract.overlap if overlap is None else overlap, batch or 1).fitted(contract)


def suited_tiling(
    model: Model,
    device: torch.device,
    side: int,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    memory: int | None = None,
) -> Tiling:
    """`default_tiling`, or as much of it as memory allows; where a tile is named and no memory, that is kept.

    `side` is the picture's longest, px, and `memory` bytes. A GPU is given several tiles at a time.
    """
    wish = default_tiling(model.contract, tile, overlap, batch)
    if memory is None and tile is not None:
        return wish
    if batch is None and device.type == "cuda":
        wish = replace(wish, batch=BATCH)
    return tiling_for(model, wish, max(side, wish.tile), device, memory)


def restore_array(
    model: Model, pixels: Array, tiling: Tiling, on_tile: OnTile = lambda done, total: None
) -> tuple[Array, Trace]:
    """(h, w, c) uint8, uint16 or float32 in [0, 1] -> (h·scale, w·scale, c) of that kind, rounded half to even.

    Where memory runs out the picture starts again with a smaller batch, then a smaller tile; the Trace's tiling is
    the one that went through. Raises OutOfMemory at the smallest tile, UsageError where the channels do not fit.
    """
    rows = ArrayRows(pixels, channels_for(model.contract, pixels.shape[2]))
    return attempts(lambda trace: assemble(model, rows, trace), model.contract, max(pixels.shape[:2]), tiling, on_tile)


def attempts(
    work: Callable[[Trace], T], contract: Contract, side: int, tiling: Tiling, on_tile: OnTile
) -> tuple[T, Trace]:
    """What `work` gives, begun again with a smaller tiling each time that memory runs out. Raises OutOfMemory."""
    while True:
        trace = Trace(tiling, on_tile=on_tile)
        try:
            return work(trace), trace
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # the error and its traceback are gone here, and with them the tensors that they held
        torch.cuda.empty_cache()
        release_freed_memory()
        smaller = tiling.smaller(contract, side)
        if smaller is None:
            raise OutOfMemory(f"out of memory at the smallest tile, {tiling.tile} px", hint="--device cpu")
        tiling = smaller


def assemble(model: Model, rows: ArrayRows, trace: Trace) -> Array:
    """Every band, quantised as it comes, in one array."""
    scale, (h, w, c) = model.contract.scale, rows.pixels.shape
    channels = c if c <= 3 else 3
    out = np.empty((h * scale, w * scale, channels), rows.pixels.dtype)
    top = 0
    for band in bands(model, rows, trace):
        part = quantised(band.mean(0, keepdim=True) if channels < band.shape[0] else band, out.dtype)
        out[top : top + part.shape[0]] = part
        top += part.shape[0]
    return out


def quantised(band: Tensor, dtype: np.dtype[Any]) -> Array:
    """(c, n, w) float32 -> (n, w, c) of the dtype: integers clipped to their range and rounded half to even."""
    pixels: Array = band.permute(1, 2, 0).numpy()
    if np.issubdtype(dtype, np.floating):
        return pixels.astype(dtype)
    peak = np.iinfo(dtype).max
    rounded: Array = np.rint(pixels.clip(0, 1) * peak).astype(dtype)
    return rounded


def channels_for(contract: Contract, channels: int) -> int:
    """Channels to give the model: one gray channel may stand for three equal ones. UsageError where none fit."""
    if channels == contract.channels or (channels == 1 and contract.channels == 3):
        return contract.channels
    wants = {1: "a gray picture", 3: "a colour picture", 6: "two colour views, six channels"}[contract.channels]
    raise UsageError(f"this checkpoint restores {wants}; this picture has {channels} channels", "restore models")


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array (h, w, c), made float and of as many channels as the model wants when they are read."""

    pixels: Array
    channels: int

    @property
    def height(self) -> int:
        """Px."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Px."""
        return int(self.pixels.shape[1])

    def read(self, top: int, bottom: int) -> Tensor:
        """(channels, bottom - top, w) float32 in [0, 1]."""
        dtype = self.pixels.dtype
        peak = 1.0 if np.issubdtype(dtype, np.floating) else float(np.iinfo(dtype).max)
        rows = self.pixels[top:bottom].astype(np.float32) / np.float32(peak)
        return torch.from_numpy(rows).permute(2, 0, 1).expand(self.channels, -1, -1)
