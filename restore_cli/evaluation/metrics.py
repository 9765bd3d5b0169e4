"""Measures of image quality: PSNR, SSIM, PSNR-B, and the visibility of seams between tiles.

Images are numpy arrays, (h, w) or (h, w, c), on 0..`peak`. `border` pixels are cut from each side first. All sums are
float64. Functions raise ValueError for images that they cannot compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["luma", "psnr", "psnr_b", "seam", "ssim"]

Image = NDArray[Any]
Floats = NDArray[np.float64]

_BT601 = np.array([65.481, 128.553, 24.966]) / 255


def luma(rgb: Image) -> Floats:
    """Return the luma of an image: (h, w, 3) on 0..255 -> Y, (h, w) on 16..235, not rounded.

    This is ITU-R BT.601 with studio range, like MATLAB's rgb2ycbcr on floats. In gray images, (h, w) or (h, w, 1),
    R = G = B.
    """
    image = np.asarray(rgb, dtype=np.float64)
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"luma: expected (h, w, 3), found {image.shape}")
    y: Floats = 16 + image @ _BT601
    return y


def psnr(image: Image, reference: Image, *, border: int = 0, peak: float = 255) -> float:
    """Return the peak signal-to-noise ratio over all samples in dB: 10 log10(peak² / MSE), inf for equal images."""
    a, b = _crop_pair(image, reference, border)
    return _to_decibel(float(np.mean((a - b) ** 2)), peak)


def ssim(image: Image, reference: Image, *, border: int = 0, peak: float = 255) -> float:
    """Return the structural similarity, at most 1: the mean over the map and the channels.

    Wang et al. 2004 (doi:10.1109/TIP.2003.819861) with an 11×11 Gaussian window of σ 1.5, K1 = 0.01, K2 = 0.03. The map
    has only the places where the window is fully inside the image ('valid').
    """
    a, b = _crop_pair(image, reference, border)
    taps = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    if min(a.shape[:2]) < len(taps):
        raise ValueError(f"ssim: expected sides of at least 11 px inside the border, found {a.shape[0]}×{a.shape[1]}")
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_a, mean_b = _filter_valid(a, taps), _filter_valid(b, taps)
    variance_a = _filter_valid(a * a, taps) - mean_a**2
    variance_b = _filter_valid(b * b, taps) - mean_b**2
    covariance = _filter_valid(a * b, taps) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float(np.mean(luminance * structure))


def psnr_b(image: Image, reference: Image, *, border: int = 0, peak: float = 255, block: int = 8) -> float:
    """Return PSNR-B in dB, the mean over the channels: the blocking effect of `image` counts as an error.

    Yim & Bovik 2011 (doi:10.1109/TIP.2010.2060206). It is not symmetric: only `image` is searched for blocks. The first
    block begins at the corner inside the border, so `border` should be a multiple of `block`.
    """
    a, b = _crop_pair(image, reference, border)
    if min(a.shape[:2]) <= block:
        raise ValueError(f"psnr_b: expected sides of more than {block} px, found {a.shape[0]}×{a.shape[1]}")
    errors = np.mean((a - b) ** 2, axis=(0, 1))
    channels = range(a.shape[2])
    return float(np.mean([_to_decibel(float(errors[i]) + _measure_blocking(a[..., i], block), peak) for i in channels]))


def seam(image: Image, across: Sequence[tuple[int, int]], down: Sequence[tuple[int, int]]) -> float:
    """Return the mean step between neighbouring pixels where tiles meet, divided by the mean step elsewhere.

    About 1 means that no seam is visible. `across` and `down` are the (first, end) columns and rows of the image in
    which one tile fades into the next, and the step to the first belongs to them. `across` has steps between columns.
    """
    pixels = np.atleast_3d(np.asarray(image)).astype(np.float64)
    at, elsewhere = [], []
    for axis, spans in ((1, across), (0, down)):
        steps = np.abs(np.diff(pixels, axis=axis)).mean(axis=(1 - axis, 2))
        inside = np.zeros(steps.size, bool)
        for first, end in spans:
            inside[max(0, first - 1) : end] = True
        if spans:  # without borders there is nothing to compare
            at.append(steps[inside])
            elsewhere.append(steps[~inside])
    if not at or not sum(part.size for part in elsewhere):
        raise ValueError("seam: expected at least one border, and pixels beside it")
    found, beside = float(np.concatenate(at).mean()), float(np.concatenate(elsewhere).mean())
    return found / beside if beside else math.inf if found else 1.0


def _measure_blocking(image: Floats, block: int) -> float:
    """Return the blocking effect factor, 0 or more: how far squared steps at block edges exceed those elsewhere."""
    across, down = np.diff(image, axis=1) ** 2, np.diff(image, axis=0).T ** 2
    edges = [steps[:, block - 1 :: block] for steps in (across, down)]
    count = sum(e.size for e in edges)
    at_edges = sum(float(e.sum()) for e in edges)
    elsewhere = float(across.sum() + down.sum()) - at_edges
    excess = at_edges / count - elsewhere / (across.size + down.size - count)
    return math.log2(block) / math.log2(min(image.shape)) * max(0.0, excess)


def _to_decibel(error: float, peak: float) -> float:
    return 10 * math.log10(peak**2 / error) if error else math.inf


def _crop_pair(image: Image, reference: Image, border: int) -> tuple[Floats, Floats]:
    """Return both images as float64 (h, w, c) without the border. Raises ValueError."""
    if image.shape != reference.shape:
        raise ValueError(f"images differ in shape: {image.shape} and {reference.shape}")
    if image.ndim not in (2, 3):
        raise ValueError(f"expected (h, w) or (h, w, c), found {image.shape}")
    if border < 0 or min(image.shape[:2]) <= 2 * border:
        raise ValueError(f"a border of {border} px leaves nothing of {image.shape[0]}×{image.shape[1]} px")
    inside = slice(border, -border or None)
    a, b = (np.atleast_3d(x)[inside, inside].astype(np.float64) for x in (image, reference))
    return a, b


def _filter_valid(image: Floats, taps: Floats) -> Floats:
    """Convolve with `taps` along both axes ('valid'): (h, w, c) -> (h - n + 1, w - n + 1, c).

    The separable form takes 2 n products for each pixel, a square window n².
    """
    height, width = (side - len(taps) + 1 for side in image.shape[:2])
    rows = sum((tap * image[i : i + height] for i, tap in enumerate(taps)), np.zeros(()))
    return np.asarray(sum((tap * rows[:, i : i + width] for i, tap in enumerate(taps)), np.zeros(())))
