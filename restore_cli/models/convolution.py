"""Convolutions whose float32 is that of IEEE 754 on a GPU too.

By default PyTorch lets cuDNN round the factors of a float32 convolution to the ten bits of TF32. The flag against it
counts for the whole process and belongs to the host program, so it is given with each call here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv2d", "convolve"]


class Conv2d(nn.Conv2d):
    """A convolution of stride 1, padded by half of its kernel, that `convolve` computes."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, out, h, w)."""
        return convolve(x, self.weight, self.bias, self.groups)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
    """(b, c, h, w) -> (b, out, h, w), padded by half of the kernel. What runs in float32 is not rounded to TF32."""
    if not may_round(x):
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)
    if torch.compiler.is_compiling():  # which would forget the flag
        found: Tensor = torch.ops.restore.convolution(x, weight, bias, groups)
        return found
    return convolve_exactly(x, weight, bias, groups)


def may_round(x: Tensor) -> bool:
    """Whether it is float32 on a GPU, where cuDNN may take TF32. Training goes its usual way."""
    halves = torch.is_autocast_enabled("cuda")
    return x.device.type == "cuda" and x.dtype == torch.float32 and not halves and not torch.is_grad_enabled()


def convolve_exactly(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """`convolve` without TF32. What else cuDNN may do stays the host program's choice."""
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
    """`convolve_exactly` as PyTorch's compiler sees it: one step that it leaves as it is."""
    return convolve_exactly(x, weight, bias, groups)


@opaque_convolution.register_fake
def shaped(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """What it gives, without its numbers."""
    return convolve_exactly(x, weight, bias, groups)
