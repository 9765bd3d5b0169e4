"""Cosines of the channels of a feature map, the scores of Restormer's attention."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["channel_cosines"]

MIN_SQUARED_NORM = 1e-24
"""Lower bound of squared channel norms: the square of that of F.normalize."""


def channel_cosines(qk: Tensor, heads: int) -> Tensor:
    """Return the cosines of query and key channels over all px: (b, n, 2·c) -> (b, heads, c/heads, c/heads).

    The products are divided by the norms. In float16, queries and keys are divided before, as sums may overflow.
    """
    split = "b n (t heads c) -> t b heads n c"
    if qk.dtype == torch.float16:
        q, k = rearrange(F.normalize(qk, dim=1), split, t=2, heads=heads)
        return q.mT @ k
    q, k = rearrange(qk, split, t=2, heads=heads)
    squares = (qk * qk).sum(1, keepdim=True, dtype=torch.float32)  # F.normalize takes four times as long
    lengths = rearrange(squares.clamp_min(MIN_SQUARED_NORM).sqrt(), split, t=2, heads=heads)
    return q.mT @ k / (lengths[0].mT * lengths[1])
