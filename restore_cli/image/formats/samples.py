"""Conversions of stored samples: YCbCr to RGB, premultiplied colours, bit depths."""

from __future__ import annotations

import numpy as np

from restore_cli.image.picture import PEAK, Pixels, Samples

__all__ = ["round_to_8_bits", "unpremultiply", "widen_to_16_bits", "ycbcr_to_rgb"]


def ycbcr_to_rgb(rows: Samples, luma: tuple[float, ...], levels: tuple[float, ...]) -> Samples:
    """Convert (n, w, 3) uint8 YCbCr to RGB, rounded once (TIFF 6.0, sections 20 and 21).

    `luma` are the YCbCrCoefficients (red, green, blue). `levels` are ReferenceBlackWhite, two values per channel.
    """
    black, white = np.reshape(levels, (3, 2)).T
    y, cb, cr = np.moveaxis((rows - black) * np.array([255, 127, 127]) / (white - black), -1, 0)
    red, blue = y + (2 - 2 * luma[0]) * cr, y + (2 - 2 * luma[2]) * cb
    green = (y - luma[0] * red - luma[2] * blue) / luma[1]
    rgb: Samples = np.rint(np.stack([red, green, blue], -1).clip(0, 255)).astype(np.uint8)
    return rgb


def unpremultiply(rows: Samples, white_is_zero: bool = False) -> Samples:
    """Divide the colours of (n, w, c + alpha) by alpha. Colours of transparent pixels become black.

    With `white_is_zero` the file stores inverted gray, and it was the inverted value that was multiplied by alpha.
    """
    peak = PEAK[str(rows.dtype)]
    alpha = rows[..., -1:].astype(np.float64)
    stored = rows[..., :-1].astype(np.float64)
    stored = peak - stored if white_is_zero else stored
    colours = np.divide(stored * peak, alpha, out=np.zeros(stored.shape), where=alpha > 0)
    colours = peak - colours if white_is_zero else colours
    if rows.dtype != np.float32:
        colours = np.rint(colours.clip(0, peak))
    with np.errstate(over="ignore"):  # a quotient beyond float32 becomes infinite and is refused later
        return np.concatenate([colours.astype(rows.dtype), rows[..., -1:]], 2)


def widen_to_16_bits(rows: Samples, bits: int) -> Samples:
    """Scale integers of `bits` bits to uint16. White stays white."""
    peak = 2**bits - 1
    wide: Samples = (rows.astype(np.uint32) * 65535 + peak // 2) // peak
    return wide.astype(np.uint16)


def round_to_8_bits(samples: Samples) -> Pixels:
    """Scale uint8, uint16 or float32 samples from [0, PEAK] to uint8, clipped and rounded half to even."""
    if samples.dtype == np.uint8:
        return samples
    rounded: Pixels = np.rint((samples / PEAK[str(samples.dtype)]).clip(0, 1) * 255).astype(np.uint8)
    return rounded
