"""Restores numpy arrays, chooses the tiling, and retries with a smaller one when memory runs out."""

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
from restore_cli.pipeline.memory import fit_tiling
from restore_cli.tiling.engine import Trace, restore_rows
from restore_cli.tiling.geometry import Tiling

__all__ = ["choose_tiling", "default_tiling", "pick_channels", "restore_array", "retry_with_smaller_tiling"]

Array = NDArray[Any]
OnTile = Callable[[int, int], None]
T = TypeVar("T")

TILE = 512
"""Default tile side, input px, for models without a best one. With the overlap of every family, the tiles of a large
picture have less than 1.25 times its px."""

BATCH = 4
"""Tiles per batch on a GPU. A single tile of a small network takes a GPU less time than Python needs to launch it."""


def default_tiling(
    contract: Contract, tile: int | None = None, overlap: int | None = None, batch: int | None = None
) -> Tiling:
    """Complete the requested tiling with the defaults of the model. A tile of 0 means the whole picture."""
    side = (contract.tile or TILE) if tile is None else tile
    return Tiling(side, contract.overlap if overlap is None else overlap, batch or 1).fitted(contract)


def choose_tiling(
    model: Model,
    device: torch.device,
    side: int,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    memory: int | None = None,
) -> Tiling:
    """Return `default_tiling`, reduced to what fits into memory. A named tile without a memory limit is kept.

    `side` is the longest side of the picture, px; `memory` is in bytes. A GPU gets several tiles per batch.
    """
    wanted = default_tiling(model.contract, tile, overlap, batch)
    if memory is None and tile is not None:
        return wanted
    if batch is None and device.type == "cuda":
        wanted = replace(wanted, batch=BATCH)
    return fit_tiling(model, wanted, max(side, wanted.tile), device, memory)


def restore_array(
    model: Model, pixels: Array, tiling: Tiling, on_tile: OnTile = lambda done, total: None
) -> tuple[Array, Trace]:
    """Restore (h, w, c) uint8, uint16 or float32 in [0, 1] to (h·scale, w·scale, c) of the same type.

    Integers are rounded half to even. When memory runs out, the picture starts again with a smaller batch, then with a
    smaller tile; the Trace has the tiling that succeeded.

    Raises:
        OutOfMemory: memory runs out at the smallest tile.
        UsageError: the channels do not fit the model.
    """
    rows = ArrayRows(pixels, pick_channels(model.contract, pixels.shape[2]))
    side = max(pixels.shape[:2])
    return retry_with_smaller_tiling(lambda trace: assemble(model, rows, trace), model.contract, side, tiling, on_tile)


def retry_with_smaller_tiling(
    work: Callable[[Trace], T], contract: Contract, side: int, tiling: Tiling, on_tile: OnTile
) -> tuple[T, Trace]:
    """Call `work`, again with a smaller tiling each time that memory runs out, and return its result and Trace.

    Raises OutOfMemory at the smallest tile.
    """
    while True:
        trace = Trace(tiling, on_tile=on_tile)
        try:
            return work(trace), trace
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Here the error, its traceback, and the tensors that they held no longer exist.
        torch.cuda.empty_cache()
        release_freed_memory()
        smaller = tiling.smaller(contract, side)
        if smaller is None:
            raise OutOfMemory(f"out of memory at the smallest tile, {tiling.tile} px", hint="--device cpu")
        tiling = smaller


def assemble(model: Model, rows: ArrayRows, trace: Trace) -> Array:
    """Restore all rows into one array, and quantise each block as it comes."""
    scale, (h, w, c) = model.contract.scale, rows.pixels.shape
    channels = c if c <= 3 else 3
    out = np.empty((h * scale, w * scale, channels), rows.pixels.dtype)
    top = 0
    for block in restore_rows(model, rows, trace):
        part = quantise(block.mean(0, keepdim=True) if channels < block.shape[0] else block, out.dtype)
        out[top : top + part.shape[0]] = part
        top += part.shape[0]
    return out


def quantise(block: Tensor, dtype: np.dtype[Any]) -> Array:
    """Convert (c, n, w) float32 to (n, w, c) of the dtype. Integers are clipped and rounded half to even."""
    pixels: Array = block.permute(1, 2, 0).numpy()
    if np.issubdtype(dtype, np.floating):
        return pixels.astype(dtype)
    peak = np.iinfo(dtype).max
    rounded: Array = np.rint(pixels.clip(0, 1) * peak).astype(dtype)
    return rounded


def pick_channels(contract: Contract, channels: int) -> int:
    """Return how many channels the model gets for an image of `channels`. Gray may become three equal channels.

    Raises UsageError if the image does not fit the model.
    """
    if channels == contract.channels or (channels == 1 and contract.channels == 3):
        return contract.channels
    expected = {1: "gray images", 3: "colour images", 6: "pairs of colour views, six channels"}[contract.channels]
    raise UsageError(f"this checkpoint restores {expected}; this image has {channels} channels", "restore models")


@dataclass(frozen=True)
class ArrayRows:
    """Reads rows of an array (h, w, c) as float32 tensors with the channels of the model."""

    pixels: Array
    channels: int

    @property
    def height(self) -> int:
        """Height in px."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in px."""
        return int(self.pixels.shape[1])

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows top..bottom as (channels, bottom - top, w) float32 in [0, 1]."""
        dtype = self.pixels.dtype
        peak = 1.0 if np.issubdtype(dtype, np.floating) else float(np.iinfo(dtype).max)
        rows = self.pixels[top:bottom].astype(np.float32) / np.float32(peak)
        return torch.from_numpy(rows).permute(2, 0, 1).expand(self.channels, -1, -1)
