"""Colours that spread under transparent px, so that what a model sees there is like what it sees beside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restore_cli.image.picture import Samples

__all__ = ["BLEED_MARGIN", "bleed_colours"]

RADII = (1, 2, 4, 8, 16)
BLEED_MARGIN = sum(RADII)
"""px around a place that can change what it gets"""


def bleed_colours(colours: Samples, alpha: Samples) -> Samples:
    """(n, w, c) float32 and (n, w): where alpha is 0 the mean of the visible colours near by, else as it was.

    What is nearer comes first: squares of 3, 5, 9 … px grow around each other. Farther px keep their own colour.
    """
    seen = alpha > 0
    if seen.all() or not seen.any():
        return colours
    out = colours.copy()
    known = seen.copy()
    for radius in RADII:
        weight = sum_boxes(known[..., None].astype(np.float64), radius)[..., 0]
        reached = ~known & (weight > 0.5)  # at least one known px; sums of ones, so a half is safe
        if reached.any():
            sums = sum_boxes(np.where(known[..., None], out, 0).astype(np.float64), radius)
            out[reached] = (sums[reached] / weight[reached, None]).astype(np.float32)
            known |= reached
    return out


def sum_boxes(values: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Sums over squares of 2·radius + 1 px, cut off at the borders."""
    for axis in (0, 1):
        length = values.shape[axis]
        total = np.cumsum(values, axis)
        total = np.concatenate([np.zeros_like(np.take(total, [0], axis)), total], axis)
        high = np.minimum(np.arange(length) + radius + 1, length)
        low = np.maximum(np.arange(length) - radius, 0)
        values = np.take(total, high, axis) - np.take(total, low, axis)
    return values
