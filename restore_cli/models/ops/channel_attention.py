"""Cosines of the channels of a feature map, the scores of Restormer's attention."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["channel_cosines"]

MIN_SQUARED_NORM = 1e-24
"""Lower bound of squared channel norms: the square of that of F.normalize."""


def channel_cosines(qk: Tensor, heads: int) -> Tensor:
    """Return the cosines of query and key channels over all px: (b, n, 2·c) -> (b, heads, c/heads, c/heads).

    The products are divided by the norms. In float16, queries and keys are divided before, as sums may overflow.
    """
    split = "b n (t heads c) -> t b heads n c"
    if qk.dtype == torch.float16:
        q, k = rearrange(normalise_channels(qk), split, t=2, heads=heads)
        return q.mT @ k
    q, k = rearrange(qk, split, t=2, heads=heads)
    squares = (qk * qk).sum(1, keepdim=True, dtype=torch.float32)  # F.normalize takes four times as long
    lengths = rearrange(squares.clamp_min(MIN_SQUARED_NORM).sqrt(), split, t=2, heads=heads)
    return q.mT @ k / (lengths[0].mT * lengths[1])


def normalise_channels(qk: Tensor) -> Tensor:
    """Divide each channel by its norm over all px, (b, n, c) -> (b, n, c), in float32 without a copy in float32.

    Under autocast, F.normalize would write one, and a second one for the result.
    """
    with torch.autocast(qk.device.type, enabled=False):
        norms = torch.linalg.vector_norm(qk, dim=1, keepdim=True, dtype=torch.float32)
        return torch.div(qk, norms.clamp_min(MIN_SQUARED_NORM**0.5), out=torch.empty_like(qk))
