"""Pairs of degraded and clean patches for each task.

All random numbers come from the generator that is passed in, so a batch depends only on the seed and the step.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

import numpy as np
from PIL import Image

from restore_cli.evaluation.degrade import Subsampling, add_noise, compress_jpeg, imresize
from training.camera import add_camera_noise, gaussian_blur, resize
from training.data import Bytes, Floats, Pair, as_bytes, as_floats, crop, random_corner
from training.recipe import Recipe

__all__ = ["Compression", "Degradation", "LowResolution", "Noise", "SmallImages", "choose_degradation"]

RESAMPLINGS = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.BOX)
SUBSAMPLINGS: tuple[Subsampling, ...] = ("4:2:0", "4:2:2", "4:4:4")


class Degradation(Protocol):
    """A way to make the input of a network from a photograph."""

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the degradations that validation measures."""

    def make_pair(self, photo: Bytes, random: np.random.Generator) -> Pair:
        """A random patch of the photograph, degraded and clean."""

    def degrade_whole(self, photo: Bytes, level: str) -> Pair:
        """A whole photograph at one level, always degraded in the same way."""


def choose_degradation(recipe: Recipe) -> Degradation:
    """The degradation of the recipe's task."""
    if recipe.task == "sr":
        return LowResolution(recipe.scale, recipe.patch, recipe.strong)
    if recipe.task == "small":
        return SmallImages(recipe.patch, recipe.strong)
    return (Noise if recipe.task == "denoise" else Compression)(recipe.patch)


class Noise:
    """Camera noise in half of the patches, Gaussian noise of σ 0 to 60 in most others, and some clean patches."""

    levels = ("sigma0", "sigma15", "sigma25", "sigma50", "camera")

    def __init__(self, patch: int) -> None:
        self.patch = patch

    def make_pair(self, photo: Bytes, random: np.random.Generator) -> Pair:
        """One patch of twenty is clean. Many are compressed after the noise."""
        clean = random_crop(rescale(photo, random, self.patch, largest=1.8), self.patch, random)
        kind = random.random()
        if kind < 0.05:
            return as_floats(clean), as_floats(clean)
        if kind < 0.55:
            noisy = add_camera_noise(as_floats(clean), random)
            compressed, lowest = random.random() < 0.7, 50
        else:
            noisy = add_noise(clean, float(random.uniform(0, 60)), int(random.integers(2**32)))
            compressed, lowest = random.random() < 0.15, 60
        if compressed:
            noisy = compress(noisy, random, lowest, 100)
        return noisy, as_floats(clean)

    def degrade_whole(self, photo: Bytes, level: str) -> Pair:
        """`camera` is camera noise and JPEG, drawn from a seed that depends on the photograph."""
        clean = as_floats(photo)
        if level == "camera":
            random = np.random.default_rng(int(photo.sum()))
            return compress(add_camera_noise(clean, random), random, 80, 100), clean
        return add_noise(photo, int(level.removeprefix("sigma"))), clean


class Compression:
    """JPEG of quality 5 to 95 as in files: aligned or shifted blocks, compressed once or twice, resized between."""

    levels = ("q10", "q40", "clean")
    margin = 32

    def __init__(self, patch: int) -> None:
        self.patch = patch

    def make_pair(self, photo: Bytes, random: np.random.Generator) -> Pair:
        """Crop the patch out of a larger compressed one, so that its edges are like its inside."""
        side = self.patch + self.margin
        wide = random_crop(rescale(photo, random, side, largest=1.4), side, random)
        y, x = (16, 16) if random.random() < 0.7 else random.integers(0, self.margin + 1, 2).tolist()
        damaged = self.damage(wide, random)
        return as_floats(crop(damaged, y, x, self.patch)), as_floats(crop(wide, y, x, self.patch))

    def damage(self, wide: Bytes, random: np.random.Generator) -> Bytes:
        """Return the patch with one of several kinds of damage."""
        kind, quality = random.random(), int(random.integers(5, 96))
        if kind < 0.06:
            return wide
        if kind < 0.10:
            return damage_colour(wide, int(random.integers(5, 60)))
        if kind < 0.20:  # compressed before, with blocks elsewhere
            y, x = random.integers(0, 8, 2).tolist()
            first = compress_jpeg(np.roll(wide, (y, x), (0, 1)), int(random.integers(20, 96)))
            wide = np.roll(first, (-y, -x), (0, 1))
        elif kind < 0.27:  # compressed before, at another size
            size, factor = wide.shape[:2], random.uniform(0.6, 1.4)
            first = compress_jpeg(resize_bytes(wide, (round(size[0] * factor), round(size[1] * factor))), quality)
            wide, quality = resize_bytes(first, (size[0], size[1])), int(random.integers(50, 96))
        subsampling = SUBSAMPLINGS[int(random.choice(3, p=(0.8, 0.05, 0.15)))]
        return compress_jpeg(wide, quality, subsampling)

    def degrade_whole(self, photo: Bytes, level: str) -> Pair:
        """q10 and q40 are JPEG at that quality, 4:2:0."""
        return as_floats(photo if level == "clean" else compress_jpeg(photo, int(level[1:]))), as_floats(photo)


class LowResolution:
    """Small images as on the web: compressed, noisy, sometimes blurred and resized twice.

    Two rounds of blur, resizing, noise and JPEG in random order after BSRGAN (arXiv:2103.14006, section 3) and
    Real-ESRGAN (arXiv:2107.10833, section 3.1), with milder ranges and without their sinc filters.
    """

    levels = ("clean", "q75", "q40", "n10q10")

    def __init__(self, scale: int, patch: int, strong: float) -> None:
        """`strong` is the share of patches with strong noise and strong compression."""
        self.scale, self.patch, self.strong = scale, patch, strong

    def make_pair(self, photo: Bytes, random: np.random.Generator) -> Pair:
        """The small patch (patch, patch, 3) and the large one over the same place."""
        large = rescale(photo, random, self.patch * self.scale, largest=1.0)
        side = large.shape[0] // self.scale
        large = large[: side * self.scale, : side * self.scale]
        small = self.shrink(large, side, random)
        y, x = random_corner(random, small, self.patch)
        if random.random() < 0.8:  # blocks of JPEG where a whole file has them, of 16 px for colour in 4:2:0
            y, x = y // 16 * 16, x // 16 * 16
        clean = crop(large, y * self.scale, x * self.scale, self.patch * self.scale)
        return as_floats(crop(small, y, x, self.patch)), as_floats(clean)

    def shrink(self, large: Bytes, side: int, random: np.random.Generator) -> Bytes:
        """(side, side, 3) in one of four grades: clean, compressed, noisy and compressed, degraded twice."""
        strong, kind = random.random() < self.strong, random.random()
        if strong or kind < 0.82:
            plain = random.random() < 0.7
            small = imresize(large, Fraction(1, self.scale)) if plain else self.resample(large, side, random)
            if not strong and kind < 0.09:
                return small
            noisy, lowest, highest = as_floats(small), 8, 96
            if strong:
                noisy, highest = add_gaussian_noise(noisy, random.uniform(4, 14), random), 18
            elif kind < 0.27:
                noisy = add_some_noise(noisy, 14, random)
            elif kind < 0.64:  # the usual quality of small images on the web
                lowest, highest = 25, 80
            return as_bytes(compress(noisy, random, lowest, highest, mostly_420=True))
        image = as_floats(large)
        image = degrade_once(image, random, blur=0.5 * self.scale, sigma=15, lowest=40)
        image = degrade_once(image, random, blur=0.2 * self.scale, sigma=8, lowest=60, size=side)
        return as_bytes(compress(image, random, 10, 96, mostly_420=True))

    def resample(self, large: Bytes, side: int, random: np.random.Generator) -> Bytes:
        """(side, side, 3) by one of the filters that programs use."""
        return resize_bytes(large, (side, side), RESAMPLINGS[int(random.integers(len(RESAMPLINGS)))])

    def degrade_whole(self, photo: Bytes, level: str) -> Pair:
        """Bicubic, then JPEG 75, JPEG 40, or noise of σ 10 and JPEG 10; sides are cut to multiples of 8 · scale."""
        side = photo.shape[0] // (8 * self.scale) * 8 * self.scale
        large = photo[:side, :side]
        small = imresize(large, Fraction(1, self.scale))
        if level == "n10q10":
            small = as_bytes(add_noise(small, 10))
        if level != "clean":
            small = compress_jpeg(small, {"q75": 75, "q40": 40, "n10q10": 10}[level])
        return as_floats(small), as_floats(large)


class SmallImages(LowResolution):
    """The inputs of super-resolution ×4, and the same images without degradation, reduced by the bicubic filter."""

    def __init__(self, patch: int, strong: float) -> None:
        super().__init__(4, patch, strong)

    def make_pair(self, photo: Bytes, random: np.random.Generator) -> Pair:
        """(patch, patch, 3) each."""
        small, large = super().make_pair(photo, random)
        return small, as_floats(imresize(as_bytes(large), Fraction(1, self.scale)))

    def degrade_whole(self, photo: Bytes, level: str) -> Pair:
        """(h, w, 3) each."""
        small, large = super().degrade_whole(photo, level)
        return small, as_floats(imresize(as_bytes(large), Fraction(1, self.scale)))


def degrade_once(
    image: Floats, random: np.random.Generator, *, blur: float, sigma: float, lowest: int, size: int | None = None
) -> Floats:
    """One round of blur, resizing, noise and JPEG, in random order; `size` is the side that it must end with."""
    side = image.shape[0]
    target = size or max(16, round(side * random.uniform(0.5, 1.0)))
    method = RESAMPLINGS[int(random.integers(len(RESAMPLINGS)))]
    steps: list[Callable[[Floats], Floats]] = [
        lambda x: gaussian_blur(x, random.uniform(0.1, max(blur, 0.2))) if random.random() < 0.6 else x,
        lambda x: resize(x, (target, target), method),
        lambda x: add_some_noise(x, sigma, random) if random.random() < 0.6 else x,
        lambda x: compress(x, random, lowest, 96) if random.random() < 0.5 else x,
    ]
    for i in random.permutation(len(steps)):
        image = steps[i](image)
    return image


def add_some_noise(image: Floats, sigma: float, random: np.random.Generator) -> Floats:
    """Add Gaussian noise of σ up to `sigma` / 255, or camera noise, with equal probability."""
    if random.random() < 0.5:
        return add_camera_noise(image.clip(0, 1), random)
    return add_gaussian_noise(image, random.uniform(0, sigma), random)


def add_gaussian_noise(image: Floats, sigma: float, random: np.random.Generator) -> Floats:
    """Add Gaussian noise of σ / 255, in a third of the cases the same in all colours."""
    noise = random.standard_normal(image.shape, np.float32)
    if random.random() < 0.3:
        noise = np.repeat(noise[..., :1], 3, -1)
    return image + np.float32(sigma / 255) * noise


def compress(
    image: Floats, random: np.random.Generator, lowest: int, highest: int, *, mostly_420: bool = False
) -> Floats:
    """Compress the image as a JPEG of random quality and subsampling."""
    shares = (0.9, 0.03, 0.07) if mostly_420 else (0.6, 0.15, 0.25)
    subsampling = SUBSAMPLINGS[int(random.choice(3, p=shares))]
    return as_floats(compress_jpeg(as_bytes(image), int(random.integers(lowest, highest + 1)), subsampling))


def damage_colour(image: Bytes, quality: int) -> Bytes:
    """Compress the colour of the image and keep its lightness."""
    before, after = (np.asarray(Image.fromarray(x).convert("YCbCr")) for x in (image, compress_jpeg(image, quality)))
    mixed = np.concatenate([before[..., :1], after[..., 1:]], -1)
    return np.asarray(Image.fromarray(mixed, "YCbCr").convert("RGB"))


def rescale(photo: Bytes, random: np.random.Generator, least: int, largest: float) -> Bytes:
    """Resize half of the photographs at random: to at least `least` px and at most `largest` times their side.

    Reduced photographs are cleaner than their files. Enlarged ones are as soft as many photographs at 100 %.
    """
    side = photo.shape[0]
    if random.random() < 0.5:
        return photo
    to = round(side * random.uniform(max(0.4, least / side), largest))
    return resize_bytes(photo, (to, to))


def resize_bytes(image: Bytes, size: tuple[int, int], method: Image.Resampling = Image.Resampling.BICUBIC) -> Bytes:
    """Resize (h, w, 3) to (height, width), antialiased."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], method))


def random_crop(image: Bytes, side: int, random: np.random.Generator) -> Bytes:
    """Return a view of a random square of the image."""
    return crop(image, *random_corner(random, image, side), side)
