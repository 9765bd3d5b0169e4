"""Photographs in memory, and batches of spoiled and clean patches of them.

A batch is a function of the seed and the step alone, so a resumed run sees what an undisturbed one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from restore_cli.degrade import add_noise, imresize, jpeg
from restore_cli.errors import UsageError
from training.recipe import Recipe

__all__ = ["Batch", "Spoiling", "batches", "read_photos", "spoiling", "to_tensor"]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Pair = tuple[Floats, Floats]
"""Spoiled and clean, (h, w, 3) on 0..1; the clean one is `scale` times as large."""


def read_photos(folder: Path) -> Bytes:
    """All photographs of a folder, in the order of their names: (n, h, w, 3).

    They must be of one size. Folders under one named `bench` are refused: what measures must not teach.
    """
    if "bench" in folder.resolve().parts:
        raise UsageError(f"{folder} lies under a folder named bench: benchmarks are never trained on")
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise UsageError(f"no photographs (jpg, png) in {folder}", hint="--photos FOLDER")
    photos = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    for file, photo in zip(files, photos, strict=True):
        if photo.shape != photos[0].shape:
            raise UsageError(f"{file} is {photo.shape[:2]} px, the first photograph is {photos[0].shape[:2]}")
    return np.stack(photos)


class Spoiling(Protocol):
    """A way to make the input of a network from a photograph."""

    levels: dict[str, int]
    """what validation measures: name of the measure -> scale, σ or quality"""

    def pair(self, random: np.random.Generator, scale: int) -> Pair:
        """A random patch."""

    def whole(self, photo: Bytes, level: int) -> Pair:
        """A whole photograph, always spoiled in the same way."""


def spoiling(recipe: Recipe, photos: Bytes) -> Spoiling:
    """The recipe's task, on these photographs."""
    if recipe.task == "sr":
        return Shrinking(photos, recipe.scales, recipe.patch)
    kind = Noise if recipe.task == "denoise" else Compression
    return kind(photos, recipe.patch)


class Shrinking:
    """Bicubic super-resolution. Each photograph is shrunk once, whole; patches are cut from both."""

    def __init__(self, photos: Bytes, scales: tuple[int, ...], patch: int) -> None:
        self.photos, self.patch = photos, patch
        self.levels = {f"x{scale}": scale for scale in scales}
        self.small = {scale: np.stack([self.shrink(photo, scale) for photo in photos]) for scale in scales}

    def shrink(self, photo: Bytes, scale: int) -> Bytes:
        """The largest part whose sides the scale divides, 1 / scale as large."""
        height, width = (side - side % scale for side in photo.shape[:2])
        return imresize(photo[:height, :width], Fraction(1, scale))

    def pair(self, random: np.random.Generator, scale: int) -> Pair:
        """A small patch and the large one over the same place."""
        index = int(random.integers(len(self.photos)))
        small = self.small[scale][index]
        y, x = corner(random, small, self.patch)
        clean = cut(self.photos[index], y * scale, x * scale, self.patch * scale)
        return as_floats(cut(small, y, x, self.patch)), as_floats(clean)

    def whole(self, photo: Bytes, level: int) -> Pair:
        """The scale is the level. Sides are cut to multiples of 8 input px, which every window here divides."""
        side = min(photo.shape[:2]) // level // 8 * 8
        clean = photo[: side * level, : side * level]
        return as_floats(imresize(clean, Fraction(1, level))), as_floats(clean)


class Noise:
    """Colour noise of σ 0 to 60; one patch in four is noisy as a file is: clipped, rounded, mildly compressed."""

    def __init__(self, photos: Bytes, patch: int) -> None:
        self.photos, self.patch = photos, patch
        self.levels = {"sigma0": 0, "sigma15": 15, "sigma25": 25, "sigma50": 50}

    def pair(self, random: np.random.Generator, scale: int) -> Pair:
        """A patch of σ uniform in 0..60."""
        photo = self.photos[int(random.integers(len(self.photos)))]
        clean = cut(photo, *corner(random, photo, self.patch), self.patch)
        noisy = add_noise(clean, float(random.uniform(0, 60)), int(random.integers(2**32)))
        if random.random() < 0.25:
            noisy = as_floats(jpeg(np.rint(noisy.clip(0, 1) * 255).astype(np.uint8), int(random.integers(60, 101))))
        return noisy, as_floats(clean)

    def whole(self, photo: Bytes, level: int) -> Pair:
        """σ is the level."""
        return add_noise(photo, level), as_floats(photo)


class Compression:
    """JPEG of quality 5 to 95. Mostly a patch starts where blocks start, as in a file; else anywhere."""

    def __init__(self, photos: Bytes, patch: int) -> None:
        self.photos, self.patch = photos, patch
        self.levels = {"q10": 10, "q40": 40, "clean": 0}

    def pair(self, random: np.random.Generator, scale: int) -> Pair:
        """A patch out of a compressed larger one, so that nothing is special about its edges."""
        photo = self.photos[int(random.integers(len(self.photos)))]
        wide = cut(photo, *corner(random, photo, self.patch + 32), self.patch + 32)
        y, x = (16, 16) if random.random() < 0.75 else random.integers(0, 33, 2).tolist()
        clean = as_floats(cut(wide, y, x, self.patch))
        if random.random() < 0.03:
            return clean, clean
        return as_floats(cut(jpeg(wide, int(random.integers(5, 96))), y, x, self.patch)), clean

    def whole(self, photo: Bytes, level: int) -> Pair:
        """The quality is the level, 0 for an untouched photograph."""
        return as_floats(jpeg(photo, level) if level else photo), as_floats(photo)


@dataclass(frozen=True)
class Batch:
    """Patches of one step: (b, 3, h, w) and (b, 3, h·scale, w·scale) on 0..1."""

    scale: int
    spoiled: Tensor
    clean: Tensor


def batches(recipe: Recipe, source: Spoiling, first: int, seed: int = 0) -> Iterator[Batch]:
    """The batches of step `first` and all after it; each is made in a thread while the one before is learnt from."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(batch, recipe, source, first, seed)
        while True:
            first += 1
            ready, coming = coming, thread.submit(batch, recipe, source, first, seed)
            yield ready.result()


def batch(recipe: Recipe, source: Spoiling, step: int, seed: int) -> Batch:
    """The batch of a step, each patch in one of its eight orientations."""
    random = np.random.default_rng((seed, step))
    scale = recipe.scales[step % len(recipe.scales)]
    pairs = [turned(source.pair(random, scale), int(random.integers(8))) for _ in range(recipe.batch)]
    spoiled, clean = zip(*pairs, strict=True)
    return Batch(scale, to_tensor(np.stack(spoiled)), to_tensor(np.stack(clean)))


def turned(pair: Pair, way: int) -> Pair:
    """Both turned by way % 4 quarters and, from 4 on, mirrored."""
    spoiled, clean = (np.rot90(x[:, ::-1] if way > 3 else x, way % 4) for x in pair)
    return spoiled, clean


def to_tensor(images: Floats) -> Tensor:
    """(b, h, w, 3) -> (b, 3, h, w), contiguous."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def corner(random: np.random.Generator, image: Bytes, side: int) -> tuple[int, int]:
    """Top and left of a random square that lies inside."""
    height, width = image.shape[:2]
    return int(random.integers(height - side + 1)), int(random.integers(width - side + 1))


def cut(image: Bytes, y: int, x: int, side: int) -> Bytes:
    """A square of the image, a view."""
    return image[y : y + side, x : x + side]


def as_floats(image: Bytes) -> Floats:
    """0..255 -> 0..1."""
    return np.divide(image, 255, dtype=np.float32)
