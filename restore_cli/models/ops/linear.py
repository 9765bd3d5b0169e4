"""Linear layers with an activation, and 1×1 convolutions, which are linear layers of each pixel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Activation", "can_use_onednn", "channels_first", "channels_last", "linear", "pointwise", "product_dtype"]

Activation = Literal["none", "gelu", "swish"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
    """Return activation(x·weightᵀ + bias): (..., c) -> (..., len(weight)).

    On a CPU oneDNN computes all of it in one pass, two to three times as fast as PyTorch, which uses MKL for the
    product. That pass has no gradient.
    """
    dtype = product_dtype(x)
    if can_use_onednn(x, dtype):
        kind = "none" if activation == "gelu" else ""  # the exact GELU, not the tanh approximation
        weight, bias = weight.to(dtype), bias if bias is None else bias.to(dtype)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias, activation, [], kind)
        return out
    out = F.linear(x, weight, bias)
    if activation == "none":
        return out
    return F.gelu(out) if activation == "gelu" else F.silu(out)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 1×1 convolution with weights (out, c, 1, 1) as a linear layer: (b, c, h, w) -> (b, out, h, w)."""
    return channels_first(linear(channels_last(x), weight[..., 0, 0], bias))


def channels_first(x: Tensor) -> Tensor:
    """Return a view of (b, h, w, c) as (b, c, h, w)."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """Return a view of (b, c, h, w) as (b, h, w, c)."""
    return x.permute(0, 2, 3, 1)


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which a CPU computes matrix products with this tensor."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def can_use_onednn(x: Tensor, dtype: torch.dtype) -> bool:
    """Return whether oneDNN's fused product can compute this tensor in this dtype."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False  # the compiler cannot optimize the fused operator
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
