"""Convolutions in IEEE 754 float32, also on a GPU.

By default PyTorch lets cuDNN round the factors of a float32 convolution to the ten bits of TF32. The flag that forbids
this is process-wide and belongs to the host program, so here each call forbids it for itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["convolve", "gated_depthwise"]


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


def gated_depthwise(gate: Tensor, value: Tensor, weights: Tensor) -> Tensor:
    """Return gelu(conv(gate))·conv(value) with depthwise convolutions by oneDNN on a CPU, which takes two passes.

    The maps are (b, n, h, w), and the weights of both convolutions (2, n, 1, 3, 3).
    """
    first, second = weights.to(gate.dtype)
    ones, groups = [1, 1], len(first)
    exact = "none"  # the exact GELU, not the tanh approximation
    gate = torch.ops.mkldnn._convolution_pointwise(gate, first, None, ones, ones, ones, groups, "gelu", [], exact)
    gated: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        value, gate, second, None, ones, ones, ones, groups, "mul", 1.0, None, [], None
    )
    return gated
