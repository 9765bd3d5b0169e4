"""The field's standard ways to spoil an image: MATLAB's bicubic `imresize`, Gaussian noise, JPEG.

Images are uint8 (h, w) or (h, w, c). `restore eval` and the training recipes use these same functions.
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

__all__ = ["add_noise", "imresize", "jpeg"]

Bytes = NDArray[np.uint8]
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


def imresize(image: Bytes, to: Fraction | float | tuple[int, int]) -> Bytes:
    """The image resized as MATLAB's imresize does it on uint8, bit for bit: bicubic, antialiased, symmetric border.

    `to` is a factor (sides round up: Fraction(1, 3) of 256 px is 86 px) or the (height, width) wanted. The vertical
    pass comes first unless the width shrinks more, as MATLAB orders them; each pass rounds to uint8.
    """
    sides = image.shape[:2]
    if isinstance(to, tuple):
        sizes = to
        factors = [out / side for out, side in zip(to, sides, strict=True)]
    else:
        exact = Fraction(to).limit_denominator(1_000_000)  # 1 / 3 as a float must not make 85.0…01 px into 86
        sizes = (math.ceil(sides[0] * exact), math.ceil(sides[1] * exact))
        factors = [float(exact)] * 2
    check_bytes(image)
    if min(*sides, *sizes) < 1:
        raise ValueError(f"imresize wants sides of at least 1 px, found {sides} -> {sizes}")
    for axis in sorted((0, 1), key=lambda a: factors[a]):
        image = _resize_axis(image, axis, sizes[axis], factors[axis])
    return image


def _resize_axis(image: Bytes, axis: int, size: int, factor: float) -> Bytes:
    """One pass, rounded half up and clipped to uint8."""
    indices, weights = _taps(image.shape[axis], size, factor)
    lines = np.moveaxis(image, axis, 0).astype(np.float64)
    out = np.zeros((size, *lines.shape[1:]))
    for index, weight in zip(indices.T, weights.T, strict=True):
        out += weight.reshape(-1, *[1] * (lines.ndim - 1)) * lines[index]
    rounded = np.clip(np.floor(out + 0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, axis))


@cache
def _taps(side: int, size: int, factor: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(size, n) source indices and weights of each output line; rows of weights sum to 1.

    Below 1 the kernel is stretched by 1 / factor, which is the antialiasing.
    """
    stretch = min(factor, 1.0)
    width = 4 / stretch
    centre = (np.arange(size) + 0.5) / factor - 0.5
    first = np.floor(centre - width / 2).astype(np.intp)
    positions = first[:, None] + np.arange(math.ceil(width) + 2)
    weights = _cubic((centre[:, None] - positions) * stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    mirrored = positions % (2 * side)
    indices = np.where(mirrored < side, mirrored, 2 * side - 1 - mirrored)
    return indices[:, used], weights[:, used]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = −0.5 (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def add_noise(image: Bytes, sigma: float, seed: int = 0) -> NDArray[np.float32]:
    """The image on 0..1 plus Gaussian noise of σ `sigma` / 255, neither rounded nor clipped.

    Drawn from numpy's legacy generator, seeded anew for each image, in the order (h, w, c) with c red, green, blue: the
    test sets of KAIR and Restormer. (SwinIR's script draws for blue, green, red: the same statistics, other samples.)
    """
    check_bytes(image)
    noise = np.random.RandomState(seed).normal(0, sigma / 255, image.shape)
    return (image.astype(np.float32) / 255 + noise).astype(np.float32)


def jpeg(image: Bytes, quality: int, subsampling: Subsampling = "4:2:0") -> Bytes:
    """The image after libjpeg at `quality` 1..100 and back.

    4:2:0 is what OpenCV writes unless told, and so what the official test scripts measure. Gray has no chroma.
    """
    check_bytes(image)
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality is 1..100, found {quality}")
    gray = image.ndim == 3 and image.shape[2] == 1
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if gray else image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file)).reshape(image.shape)


def check_bytes(image: NDArray[Any]) -> None:
    """ValueError for another kind than uint8: its values would be taken for parts of 255."""
    if image.dtype != np.uint8:
        raise ValueError(f"expected uint8, found {image.dtype}")
