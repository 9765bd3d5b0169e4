"""Restores arrays, chooses the tiling, and retries with a smaller one when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from restore_cli.contract import Contract, Model
from restore_cli.errors import OutOfMemory, is_out_of_memory
from restore_cli.image.colour import make_conversion
from restore_cli.image.picture import Header, Metadata, Samples
from restore_cli.image.picture_source import OpenRows, PictureSource
from restore_cli.models.processor import release_freed_memory
from restore_cli.pipeline.memory import fit_tiling
from restore_cli.pipeline.output import OutputOptions, quantise_rows
from restore_cli.pipeline.picture import PicturePipeline
from restore_cli.tiling.engine import Trace
from restore_cli.tiling.geometry import Tiling

__all__ = [
    "OnTile",
    "choose_tiling",
    "default_tiling",
    "open_samples",
    "restore_array",
    "retry_with_smaller_tiling",
]

OnTile = Callable[[int, int], None]
"""called with the number of finished tiles, and their total"""
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
    """Return `default_tiling`, reduced to what fits into memory.

    A given tile without a memory limit is kept, with one tile per batch unless `batch` is given. Otherwise a GPU gets
    several tiles per batch. `side` is the longest side of the picture, px; `memory` is in bytes.
    """
    wanted = default_tiling(model.contract, tile, overlap, batch)
    if memory is None and tile is not None:
        return wanted
    if batch is None and device.type == "cuda":
        wanted = replace(wanted, batch=BATCH)
    return fit_tiling(model, wanted, max(side, wanted.tile), device, memory)


def restore_array(
    model: Model,
    pixels: Samples,
    tiling: Tiling,
    on_tile: OnTile = lambda done, total: None,
    *,
    icc: bytes | None = None,
    strength: float = 1.0,
) -> tuple[Samples, Trace]:
    """Restore (h, w, c) uint8, uint16 or float32 in [0, 1] to (h·scale, w·scale, c) of the same type.

    Two and four channels are gray and RGB with alpha. `icc` is the colour profile, sRGB if None. `strength` is the
    share of the restored image in the result. Integers are rounded half to even. When memory runs out, the picture
    starts again with a smaller batch, then with a smaller tile; the Trace has the tiling that succeeded.

    Raises:
        OutOfMemory: memory runs out at the smallest tile.
        UsageError: the channels do not fit the model.
    """
    picture = open_samples(pixels.shape, pixels.dtype, lambda: lambda top, bottom: pixels[top:bottom], icc, strength)

    def assemble(trace: Trace) -> Samples:
        h, w, _ = pixels.shape
        channels, scale, top = picture.result_channels, model.contract.scale, 0
        out = np.empty((h * scale, w * scale, channels), pixels.dtype)
        restored = picture.restore(model, trace, pixels.dtype)
        for block in quantise_rows(restored, pixels.dtype, picture.alpha, dither=False):
            out[top : top + block.shape[0]] = block
            top += block.shape[0]
        return out

    return retry_with_smaller_tiling(assemble, model.contract, max(pixels.shape[:2]), tiling, on_tile)


def open_samples(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    opener: OpenRows,
    icc: bytes | None = None,
    strength: float = 1.0,
) -> PicturePipeline:
    """Prepare rows of a picture (h, w, c) of uint8, uint16 or float32."""
    height, width, channels = shape
    alpha = channels in (2, 4)
    header = Header("array", width, height, channels - alpha, alpha, depth=8 * dtype.itemsize)
    source = PictureSource("image", header, Metadata(icc), opener)
    colour = make_conversion(icc, header.channels)
    return PicturePipeline(source, OutputOptions(strength=strength), 0.0, 1.0, colour, alpha, clips=False)


def retry_with_smaller_tiling(
    work: Callable[[Trace], T], contract: Contract, side: int, tiling: Tiling, on_tile: OnTile, device: str = ""
) -> tuple[T, Trace]:
    """Call `work`, again with a smaller tiling each time that memory runs out, and return its result and Trace.

    Raises OutOfMemory at the smallest tile. Unless `device` is the CPU, its hint is to use the CPU.
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
            hint = None if device == "cpu" else "--device cpu"
            raise OutOfMemory(f"out of memory at the smallest tile, {tiling.tile} px", hint)
        tiling = smaller
