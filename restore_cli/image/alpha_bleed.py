"""Alpha bleeding: visible colours spread into transparent pixels, so that the model sees no hidden colours."""

from __future__ import annotations

import numpy as np

from restore_cli.image.picture import Floats, Samples

__all__ = ["BLEED_MARGIN", "bleed_colours"]

RADII = (1, 2, 4, 8, 16)
BLEED_MARGIN = sum(RADII)
"""A pixel's result depends on pixels at most this far away, in px."""


def bleed_colours(colours: Samples, alpha: Samples) -> Samples:
    """Replace the colour of transparent pixels by the mean of visible colours nearby.

    `colours` are (n, w, c) float32, `alpha` is (n, w); pixels with alpha 0 are transparent. Pixels are filled from
    squares of 3, 5, 9, 17 and 33 px in turn, so that near colours come first. Pixels farther from all visible ones keep
    their colour.
    """
    visible = alpha > 0
    if visible.all() or not visible.any():
        return colours
    out = colours.copy()
    known = visible.copy()
    for radius in RADII:
        weight = sum_boxes(known[..., None].astype(np.float64), radius)[..., 0]
        reached = ~known & (weight > 0.5)  # weight counts known pixels; 0.5 allows for rounding
        if reached.any():
            sums = sum_boxes(np.where(known[..., None], out, 0).astype(np.float64), radius)
            out[reached] = (sums[reached] / weight[reached, None]).astype(np.float32)
            known |= reached
    return out


def sum_boxes(values: Floats, radius: int) -> Floats:
    """Return the sums over squares of 2·radius + 1 px around each pixel, cut off at the borders."""
    for axis in (0, 1):
        length = values.shape[axis]
        total = np.cumsum(values, axis)
        total = np.concatenate([np.zeros_like(np.take(total, [0], axis)), total], axis)
        high = np.minimum(np.arange(length) + radius + 1, length)
        low = np.maximum(np.arange(length) - radius, 0)
        values = np.take(total, high, axis) - np.take(total, low, axis)
    return values
