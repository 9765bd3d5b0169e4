"""Restores what a program holds in memory: numpy arrays, Pillow images, PyTorch tensors, and streams of rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_cli.contract import Model
from restore_cli.errors import stating_lack_of_memory
from restore_cli.image.picture import PEAK, Samples
from restore_cli.image.rows import FetchRows, RowBuffer
from restore_cli.pipeline.array import OnTile, open_samples, restore_array
from restore_cli.pipeline.output import quantise_rows
from restore_cli.tiling.engine import Trace
from restore_cli.tiling.geometry import Tiling

if TYPE_CHECKING:
    from PIL.Image import Image

    InMemory = TypeVar("InMemory", NDArray[Any], Image, Tensor)

__all__ = ["ChooseTiling", "restore_in_memory", "stream_restored_rows"]

ChooseTiling = Callable[[int], Tiling]
"""returns the tiling for a picture whose longest side is given, px"""


def restore_in_memory(
    model: Model, image: InMemory, choose: ChooseTiling, strength: float, on_tile: OnTile
) -> InMemory:
    """Restore an array, a tensor or a Pillow image to the same kind.

    Raises:
        OutOfMemory: memory runs out at the smallest tile.
        UsageError: the channels do not fit the model.
        ValueError: the image has another type or shape.
    """
    if isinstance(image, np.ndarray):
        check_samples(image)
        out = restore_array(model, np.atleast_3d(image), choose(max(image.shape[:2])), on_tile, strength=strength)[0]
        return out if image.ndim == 3 else out[..., 0]
    if isinstance(image, Tensor):
        return restore_tensor(model, image, choose, strength, on_tile)
    from PIL.Image import Image

    if isinstance(image, Image):
        return restore_pillow(model, image, choose, strength, on_tile)
    raise ValueError(f"image is of type {type(image).__name__}, not a numpy array, a tensor or a Pillow image")


def check_samples(pixels: Samples) -> None:
    """Raise ValueError for arrays that are no pixels."""
    if str(pixels.dtype) not in PEAK or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        found = f"{pixels.dtype} {pixels.shape}"
        raise ValueError(f"image is {found}, not uint8, uint16 or float32 of (h, w) or (h, w, c)")


def restore_tensor(model: Model, images: Tensor, choose: ChooseTiling, strength: float, on_tile: OnTile) -> Tensor:
    """Restore (b, c, h, w) in [0, 1] to (b, c, h·scale, w·scale) of the same dtype, on the same device."""
    if not images.is_floating_point() or images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"image is {images.dtype} {tuple(images.shape)}, not floating point of (b, c, h, w)")
    tiling = choose(max(images.shape[2:]))

    def restore_one(index: int, image: Tensor) -> Tensor:
        def report(done: int, total: int) -> None:
            on_tile(index * total + done, len(images) * total)

        pixels = image.detach().to("cpu", torch.float32).permute(1, 2, 0).numpy()
        out = restore_array(model, pixels, tiling, report, strength=strength)[0]
        return torch.from_numpy(out).permute(2, 0, 1).to(images.device, images.dtype)

    return torch.stack([restore_one(index, image) for index, image in enumerate(images)])


def restore_pillow(model: Model, image: Image, choose: ChooseTiling, strength: float, on_tile: OnTile) -> Image:
    """Restore a Pillow image, whose mode and information stay. Palettes become RGB, two levels become gray."""
    from PIL.Image import fromarray

    from restore_cli.image.formats.pillow import read_array
    from restore_cli.image.reasons import UnsupportedImage

    try:
        pixels = np.atleast_3d(np.asarray(image)) if image.mode in ("I;16", "F") else read_array(image.copy())
    except UnsupportedImage:
        raise ValueError(f"image has mode {image.mode}, expected L, LA, RGB, RGBA, P, 1, I;16 or F") from None
    check_samples(pixels)
    icc, tiling = image.info.get("icc_profile"), choose(max(image.size))
    out = restore_array(model, pixels, tiling, on_tile, icc=icc, strength=strength)[0]
    restored = fromarray(out[..., 0] if out.shape[2] == 1 else out)
    restored.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return restored


def stream_restored_rows(
    model: Model,
    rows: Samples | Iterable[Samples],
    height: int | None,
    choose: ChooseTiling,
    strength: float,
    on_tile: OnTile,
) -> Iterator[Samples]:
    """Return blocks of restored rows, (n, w·scale) or (n, w·scale, c), of an array or of blocks of `height` rows.

    Memory holds one row of tiles. If it runs out, no smaller tile is tried: rows cannot be taken back.

    Raises:
        OutOfMemory: from the iterator.
        UsageError: from the iterator; the channels do not fit the model.
        ValueError: the rows have another type or shape; from the iterator: they differ, or there are too few.
    """
    if isinstance(rows, np.ndarray):
        check_samples(rows)
        array = np.atleast_3d(rows)
        shape, dtype, axes = array.shape, array.dtype, rows.ndim
        picture = open_samples(shape, dtype, lambda: lambda top, bottom: array[top:bottom], strength=strength)
    else:
        blocks = iter(rows)
        first = next(blocks, None)
        if first is None or height is None or height < 1:
            raise ValueError(f"height is {height}: expected blocks of rows, and how many rows they have")
        check_samples(first)
        shape, dtype, axes = (height, *np.atleast_3d(first).shape[1:]), first.dtype, first.ndim
        twice = shape[2] in (2, 4) and model.contract.scale > 1  # the model restores alpha in a second pass
        readers = split_blocks(chain([first], blocks), 1 + twice)
        picture = open_samples(shape, dtype, lambda: fetch_blocks(readers.pop(), shape, dtype), strength=strength)
    tiling = choose(max(shape[:2]))

    def restore_blocks() -> Iterator[Samples]:
        with stating_lack_of_memory("cpu", f"tiles of {tiling.tile} px"):
            restored = picture.restore(model, Trace(tiling, on_tile=on_tile), dtype)
            for block in quantise_rows(restored, dtype, picture.alpha, dither=False):
                yield block if axes == 3 else block[..., 0]

    return restore_blocks()


def split_blocks(blocks: Iterator[Samples], count: int) -> list[Iterator[Samples]]:
    """Return iterators over the same blocks. A block is freed when all have read it; tee() would hold many more."""
    queues = [deque[Samples]() for _ in range(count)]

    def read(queue: deque[Samples]) -> Iterator[Samples]:
        while True:
            if not queue:
                block = next(blocks, None)
                if block is None:
                    return
                for each in queues:
                    each.append(block)
            yield queue.popleft()

    return [read(queue) for queue in queues]


def fetch_blocks(blocks: Iterator[Samples], shape: tuple[int, ...], dtype: np.dtype[Any]) -> FetchRows:
    """Return a function that reads the next rows of consecutive blocks, and raises ValueError if they do not fit."""
    queue = RowBuffer()

    def fetch(top: int, bottom: int) -> Samples:
        while queue.size < bottom - top:
            block = next(blocks, None)
            if block is None:
                raise ValueError(f"the rows end after {top + queue.size} of {shape[0]}")
            block = np.atleast_3d(block)
            if block.shape[1:] != shape[1:] or block.dtype != dtype:
                raise ValueError(
                    f"a block is {block.dtype} {block.shape}, expected {dtype} (n, {shape[1]}, {shape[2]})"
                )
            queue.push(block)
        return queue.pop(bottom - top)

    return fetch
