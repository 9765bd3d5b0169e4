"""Photographs in memory, and batches of degraded and clean patches of them.

A batch depends only on the seed and the step, so a resumed run sees the same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from restore_cli.errors import UsageError

__all__ = ["Batch", "Bytes", "Floats", "Pair", "as_bytes", "as_floats", "batches", "crop", "make_batch", "read_photos"]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Pair = tuple[Floats, Floats]
"""Degraded and clean, (h, w, 3) on 0..1; the clean one is `scale` times as large."""
MakePair = Callable[[Bytes, np.random.Generator], Pair]


def read_photos(folder: Path) -> Bytes:
    """Return all photographs of a folder as (n, h, w, 3), in the order of their names.

    Raises UsageError if their sizes differ, or if a folder in the path is named `bench`, because it holds benchmarks.
    """
    if "bench" in folder.resolve().parts:
        raise UsageError(f"{folder} is inside a folder named bench: benchmarks are never trained on")
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise UsageError(f"no photographs (jpg, png) in {folder}", hint="--photos FOLDER")
    photos = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    for file, photo in zip(files, photos, strict=True):
        if photo.shape != photos[0].shape:
            raise UsageError(f"{file} is {photo.shape[:2]} px, the first photograph is {photos[0].shape[:2]}")
    return np.stack(photos)


@dataclass(frozen=True)
class Batch:
    """Patches of one step: (b, 3, h, w) and (b, 3, h·scale, w·scale) on 0..1."""

    degraded: Tensor
    clean: Tensor


def batches(photos: Bytes, make_pair: MakePair, size: int, first: int, seed: int = 0) -> Iterator[Batch]:
    """Yield the batches from step `first` on. A thread makes each one during the step before it."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(make_batch, photos, make_pair, size, first, seed)
        while True:
            first += 1
            ready, coming = coming, thread.submit(make_batch, photos, make_pair, size, first, seed)
            yield ready.result()


def make_batch(photos: Bytes, make_pair: MakePair, size: int, step: int, seed: int) -> Batch:
    """Return the batch of a step: `size` patches, each in a random one of eight orientations."""
    random = np.random.default_rng((seed, step))
    pairs = []
    for _ in range(size):
        pair = make_pair(photos[int(random.integers(len(photos)))], random)
        pairs.append(orient(pair, int(random.integers(8))))
    degraded, clean = zip(*pairs, strict=True)
    return Batch(to_tensor(np.stack(degraded)), to_tensor(np.stack(clean)))


def orient(pair: Pair, way: int) -> Pair:
    """Turn both by `way % 4` quarters, mirrored if `way` is 4 or more."""
    degraded, clean = (np.rot90(x[:, ::-1] if way > 3 else x, way % 4) for x in pair)
    return degraded, clean


def to_tensor(images: Floats) -> Tensor:
    """(b, h, w, 3) -> (b, 3, h, w), contiguous."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32))


def random_corner(random: np.random.Generator, image: Bytes, side: int) -> tuple[int, int]:
    """Return the top and left of a random square inside the image."""
    height, width = image.shape[:2]
    return int(random.integers(height - side + 1)), int(random.integers(width - side + 1))


def crop(image: Bytes, y: int, x: int, side: int) -> Bytes:
    """Return a view of a square of the image."""
    return image[y : y + side, x : x + side]


def as_floats(image: Bytes) -> Floats:
    """0..255 -> 0..1."""
    return np.divide(image, 255, dtype=np.float32)


def as_bytes(image: Floats) -> Bytes:
    """0..1 -> 0..255, clipped and rounded."""
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)
