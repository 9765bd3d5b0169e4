"""The standard degradations of image restoration: bicubic downscaling (MATLAB's imresize), Gaussian noise, JPEG.

Images are uint8, (h, w) or (h, w, c). `restore eval` and the training recipes use the same functions.
"""

from __future__ import annotations

import io
import math
from fractions import Fraction
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["add_noise", "compress_jpeg", "imresize"]

Bytes = NDArray[np.uint8]
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


def imresize(image: Bytes, to: Fraction | float | tuple[int, int]) -> Bytes:
    """Resize like MATLAB's imresize on uint8, bit for bit: bicubic, antialiased, with a symmetric border.

    `to` is a factor or the new (height, width). With a factor the sides are rounded up: Fraction(1, 3) of 256 px is
    86 px. As in MATLAB, the vertical pass comes first unless the width shrinks more, and each pass rounds to uint8.
    Raises ValueError.
    """
    sides = image.shape[:2]
    if isinstance(to, tuple):
        sizes = to
        factors = [out / side for out, side in zip(to, sides, strict=True)]
    else:
        exact = Fraction(to).limit_denominator(1_000_000)  # the float 1 / 3 must not turn 85.0…01 px into 86 px
        sizes = (math.ceil(sides[0] * exact), math.ceil(sides[1] * exact))
        factors = [float(exact)] * 2
    refuse_other_types(image)
    if min(*sides, *sizes) < 1:
        raise ValueError(f"imresize: expected sides of at least 1 px, found {sides} -> {sizes}")
    for axis in sorted((0, 1), key=lambda a: factors[a]):
        image = _resize_axis(image, axis, sizes[axis], factors[axis])
    return image


def _resize_axis(image: Bytes, axis: int, size: int, factor: float) -> Bytes:
    """Resize one axis; round half up and clip to uint8."""
    indices, weights = _compute_taps(image.shape[axis], size, factor)
    lines = np.moveaxis(image, axis, 0).astype(np.float64)
    out = np.zeros((size, *lines.shape[1:]))
    for index, weight in zip(indices.T, weights.T, strict=True):
        out += weight.reshape(-1, *[1] * (lines.ndim - 1)) * lines[index]
    rounded = np.clip(np.floor(out + 0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, axis))


@cache
def _compute_taps(side: int, size: int, factor: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the source indices and the weights of each output line, both (size, n). Each row of weights sums to 1.

    For antialiasing, a factor below 1 stretches the kernel by 1 / factor.
    """
    stretch = min(factor, 1.0)
    width = 4 / stretch
    centre = (np.arange(size) + 0.5) / factor - 0.5
    first = np.floor(centre - width / 2).astype(np.intp)
    positions = first[:, None] + np.arange(math.ceil(width) + 2)
    weights = _cubic_kernel((centre[:, None] - positions) * stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    mirrored = positions % (2 * side)
    indices = np.where(mirrored < side, mirrored, 2 * side - 1 - mirrored)
    return indices[:, used], weights[:, used]


def _cubic_kernel(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = −0.5 (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def add_noise(image: Bytes, sigma: float, seed: int = 0) -> NDArray[np.float32]:
    """Return the image on 0..1 plus Gaussian noise of σ `sigma` / 255, not rounded and not clipped.

    As in the test sets of KAIR and Restormer, the samples come from numpy's legacy generator with the same seed for
    each image, in the order (h, w, c) with c red, green, blue. SwinIR's script uses the order blue, green, red, which
    gives other samples with the same statistics. Raises ValueError.
    """
    refuse_other_types(image)
    noise = np.random.RandomState(seed).normal(0, sigma / 255, image.shape)
    return (image.astype(np.float32) / 255 + noise).astype(np.float32)


def compress_jpeg(image: Bytes, quality: int, subsampling: Subsampling = "4:2:0") -> Bytes:
    """Compress the image as a JPEG of `quality` 1..100 with libjpeg, and decode it. Raises ValueError.

    The official test scripts write with OpenCV, whose default is 4:2:0. Gray images have no chroma.
    """
    refuse_other_types(image)
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality: expected 1..100, found {quality}")
    gray = image.ndim == 3 and image.shape[2] == 1
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if gray else image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file)).reshape(image.shape)


def refuse_other_types(image: NDArray[Any]) -> None:
    """Raise ValueError for another type than uint8, because the peak of all values is taken as 255."""
    if image.dtype != np.uint8:
        raise ValueError(f"expected uint8, found {image.dtype}")
