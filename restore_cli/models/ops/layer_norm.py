"""Layer norms over the last axis, with sums in float32. float16 stays float16: autocast would return float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["layer_norm"]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Return (x - mean) / sqrt(variance + epsilon)·weight + bias: (..., c) -> (..., c).

    Without a bias, the mean is not subtracted, except in the variance.
    """
    if x.dtype != torch.float16:
        return normalise(x, weight, bias, epsilon)
    with torch.autocast(x.device.type, enabled=False):
        return normalise(x, weight.half(), None if bias is None else bias.half(), epsilon)


def normalise(x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Return the layer norm in the dtype of the weight, or what autocast makes of it."""
    if bias is not None:
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)
    # torch.var reads channels one by one; these two passes are vectorised
    centred = x - x.mean(-1, keepdim=True)
    deviation = torch.linalg.vector_norm(centred, dim=-1, keepdim=True, dtype=torch.float32)
    return x * torch.rsqrt(deviation.square() / x.shape[-1] + epsilon).to(weight.dtype) * weight
