"""Cosines of the channels of a feature map, the scores of Restormer's attention."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["channel_cosines", "divide_by_norms", "multiply_channels", "sum_squares"]

SPLIT = "b n (t heads c) -> t b heads n c"
"""Queries and keys of each head."""

MIN_SQUARED_NORM = 1e-24
"""Lower bound of squared channel norms: the square of that of F.normalize."""


def channel_cosines(qk: Tensor, heads: int) -> Tensor:
    """Return the cosines of query and key channels over all px: (b, n, 2·c) -> (b, heads, c/heads, c/heads).

    The products are divided by the norms. In float16, queries and keys are divided before, as sums may overflow.
    """
    if qk.dtype == torch.float16:
        return multiply_channels(normalise_channels(qk), heads)
    return divide_by_norms(multiply_channels(qk, heads), sum_squares(qk), heads)


def multiply_channels(qk: Tensor, heads: int) -> Tensor:
    """Return the products of query and key channels, (b, n, 2·c) -> (b, heads, c/heads, c/heads)."""
    q, k = rearrange(qk, SPLIT, t=2, heads=heads)
    return q.mT @ k


def sum_squares(qk: Tensor) -> Tensor:
    """Return the squared norm of each channel in float32, (b, n, 2·c) -> (b, 1, 2·c)."""
    return (qk * qk).sum(1, keepdim=True, dtype=torch.float32)  # F.normalize takes four times as long


def divide_by_norms(products: Tensor, squares: Tensor, heads: int) -> Tensor:
    """Return the cosines, (b, heads, c/heads, c/heads), of `multiply_channels` and `sum_squares`."""
    lengths = rearrange(squares.clamp_min(MIN_SQUARED_NORM).sqrt(), SPLIT, t=2, heads=heads)
    return products / (lengths[0].mT * lengths[1])


def normalise_channels(qk: Tensor) -> Tensor:
    """Divide each channel by its norm over all px, (b, n, c) -> (b, n, c), in float32 without a copy in float32.

    Under autocast, F.normalize would write one, and a second one for the result.
    """
    with torch.autocast(qk.device.type, enabled=False):
        norms = torch.linalg.vector_norm(qk, dim=1, keepdim=True, dtype=torch.float32)
        return torch.div(qk, norms.clamp_min(MIN_SQUARED_NORM**0.5), out=torch.empty_like(qk))
