"""How files keep samples otherwise than as RGB of 8 or 16 bits with alpha apart, and back."""

from __future__ import annotations

import numpy as np

from restore_cli.image.picture import PEAK, Pixels, Samples

__all__ = ["round_to_8_bits", "unpremultiply", "widen_to_16_bits", "ycbcr_to_rgb"]


def ycbcr_to_rgb(rows: Samples, luma: tuple[float, ...], levels: tuple[float, ...]) -> Samples:
    """(n, w, 3) uint8 -> RGB, rounded once (TIFF 6.0, sections 20 and 21)."""
    black, white = np.reshape(levels, (3, 2)).T
    y, cb, cr = np.moveaxis((rows - black) * np.array([255, 127, 127]) / (white - black), -1, 0)
    red, blue = y + (2 - 2 * luma[0]) * cr, y + (2 - 2 * luma[2]) * cb
    green = (y - luma[0] * red - luma[2] * blue) / luma[1]
    rgb: Samples = np.rint(np.stack([red, green, blue], -1).clip(0, 255)).astype(np.uint8)
    return rgb


def unpremultiply(rows: Samples, white_is_zero: bool = False) -> Samples:
    """(n, w, c + alpha): colours divided by alpha; black where nothing is left to divide.

    With `white_is_zero` the colours are the inverse of what was multiplied: they are divided as they were stored.
    """
    peak = PEAK[str(rows.dtype)]
    alpha = rows[..., -1:].astype(np.float64)
    stored = rows[..., :-1].astype(np.float64)
    stored = peak - stored if white_is_zero else stored
    colours = np.divide(stored * peak, alpha, out=np.zeros(stored.shape), where=alpha > 0)
    colours = peak - colours if white_is_zero else colours
    if rows.dtype != np.float32:
        colours = np.rint(colours.clip(0, peak))
    with np.errstate(over="ignore"):  # float32 ends before the quotient does: infinite values are refused later
        return np.concatenate([colours.astype(rows.dtype), rows[..., -1:]], 2)


def widen_to_16_bits(rows: Samples, bits: int) -> Samples:
    """Integers of so many bits -> 16 bits, where white stays white."""
    peak = 2**bits - 1
    wide: Samples = (rows.astype(np.uint32) * 65535 + peak // 2) // peak
    return wide.astype(np.uint16)


def round_to_8_bits(samples: Samples) -> Pixels:
    """uint8, uint16 or float32 as an 8-bit file would hold them: on 0..255 by their peak, clipped, half to even."""
    if samples.dtype == np.uint8:
        return samples
    rounded: Pixels = np.rint((samples / PEAK[str(samples.dtype)]).clip(0, 1) * 255).astype(np.uint8)
    return rounded
