"""Convolutions in IEEE 754 float32, also on a GPU.

By default PyTorch lets cuDNN round the factors of a float32 convolution to the ten bits of TF32. The flag that forbids
this is process-wide and belongs to the host program, so here each call forbids it for itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["convolve", "gated_depthwise", "gelu_depthwise"]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
    """Convolve (b, c, h, w) to (b, out, h, w), padded by half of the kernel. float32 is never rounded to TF32."""
    if not may_use_tf32(x):
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)
    if torch.compiler.is_compiling():  # the compiler would drop the flag
        found: Tensor = torch.ops.restore.convolution(x, weight, bias, groups)
        return found
    return convolve_ieee(x, weight, bias, groups)


def may_use_tf32(x: Tensor) -> bool:
    """Return whether cuDNN may use TF32: in float32 on a GPU."""
    return x.device.type == "cuda" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cuda")


def convolve_ieee(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Convolve without TF32. All other settings of cuDNN are those of the host program."""
    cudnn, half = torch.backends.cudnn, weight.shape[-1] // 2
    return torch._convolution(
        x, weight, bias,
        stride=(1, 1), padding=(half, half), dilation=(1, 1), transposed=False, output_padding=(0, 0), groups=groups,
        benchmark=cudnn.benchmark, deterministic=cudnn.deterministic or torch.are_deterministic_algorithms_enabled(),
        cudnn_enabled=cudnn.enabled, allow_tf32=False,
    )  # fmt: skip


@torch.library.custom_op(
    "restore::convolution", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor? bias, int groups) -> Tensor"
)
def opaque_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """`convolve_ieee` as a single operator for PyTorch's compiler."""
    return convolve_ieee(x, weight, bias, groups)


@opaque_convolution.register_fake
def fake_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Return the result as a tensor without values."""
    return convolve_ieee(x, weight, bias, groups)


def gelu_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Return gelu(conv(x)), (b, n, h, w), for a depthwise convolution (n, 1, 3, 3), in one pass of oneDNN on a CPU."""
    ones, groups = [1, 1], len(weight)
    exact = "none"  # the exact GELU, not the tanh approximation
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight.to(x.dtype), None, ones, ones, ones, groups, "gelu", [], exact
    )
    return out


def gated_depthwise(x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
    """Return conv(x)·gate, (b, n, h, w), for a depthwise convolution (n, 1, 3, 3), in one pass of oneDNN on a CPU."""
    ones, groups = [1, 1], len(weight)
    out: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        x, gate, weight.to(x.dtype), None, ones, ones, ones, groups, "mul", 1.0, None, [], None
    )
    return out
