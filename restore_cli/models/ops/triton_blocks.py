"""Layer norms and the ends of transformer blocks in one Triton kernel each. Rows may be wider than their channels."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from restore_cli.models.ops.triton_attention import MIN_DOT_SIDE, next_power_of_two

__all__ = ["MAX_TAIL_WIDTH", "TailWeights", "block_tail_config", "triton_block_tail", "triton_layer_norm"]

NORM_ROWS = 8
"""Rows of a layer norm per program."""

MAX_TAIL_WIDTH = 256
"""Most channels of a row that the registers of a program can hold."""


class TailWeights(NamedTuple):
    """Weights of everything in a block after its attention. Channels beyond the c counted ones are zeros."""

    projection: Tensor
    """(c, width), transposed"""
    projection_bias: Tensor
    """(width,)"""
    norm_weight: Tensor
    """(width,)"""
    norm_bias: Tensor
    """(width,)"""
    into: Tensor
    """first layer of the MLP, (hidden, width)"""
    into_bias: Tensor
    """(hidden,)"""
    back: Tensor
    """second layer of the MLP, (hidden, width), transposed"""
    back_bias: Tensor
    """(width,)"""


def triton_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, channels: int) -> Tensor:
    """Normalise the first `channels` channels, and set the others to zero: (b, h, w, width) -> (b, h, w, width).

    Sums are float32. Raises ImportError without Triton, and the errors of Triton.
    """
    from restore_cli.models.ops.triton_block_kernels import layer_norm_kernel  # only PyTorch for CUDA includes Triton

    x, width = x.contiguous(), x.shape[-1]
    out, rows = torch.empty_like(x), x.shape[:-1].numel()
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        layer_norm_kernel[(-(-rows // NORM_ROWS),)](
            x, weight, bias, out, rows, epsilon,
            CHANNELS=channels, STRIDE=width, WIDE=next_power_of_two(width), ROWS=NORM_ROWS, num_warps=4,
        )  # fmt: skip
    return out


def triton_block_tail(
    x: Tensor, attended: Tensor, branch: Tensor | None, gate: Tensor | None, weights: TailWeights, epsilon: float
) -> Tensor:
    """Compute `block_tail` in one pass: x (b, h, w, width) and attended (b, h, w, c) -> (b, h, w, width).

    Raises ImportError without Triton, and the errors of Triton.
    """
    from restore_cli.models.ops.triton_block_kernels import block_tail_kernel  # only PyTorch for CUDA includes Triton

    x, attended, width = x.contiguous(), attended.contiguous(), x.shape[-1]
    gated = branch is not None and gate is not None
    added = (branch.contiguous(), gate.contiguous()) if branch is not None and gate is not None else (x, x)
    out, rows = torch.empty_like(x), x.shape[:-1].numel()
    constants = block_tail_config(width)
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        block_tail_kernel[(-(-rows // constants["ROWS"]),)](
            x, attended, *added, *weights, out, rows, rows // len(x), epsilon,
            GATED=gated, CHANNELS=attended.shape[-1], STRIDE=width, HIDDEN=len(weights.into), **constants,
        )  # fmt: skip
    return out


def block_tail_config(width: int) -> dict[str, int]:
    """Return the constants of `block_tail_kernel` for rows of this width.

    With them, no register is spilled on compute capability 8.0 and 9.0 (docs/decisions/056). The channels are in two
    parts if that computes less: 128 and 64 instead of 256 for 184.
    """
    whole = max(MIN_DOT_SIDE, next_power_of_two(width))
    right = max(MIN_DOT_SIDE, next_power_of_two(width - whole // 2))
    parts = (whole, 0) if whole // 2 + right >= whole else (whole // 2, right)
    rows = 128 if sum(parts) <= 192 else 64
    return {"LEFT": parts[0], "RIGHT": parts[1], "ROWS": rows, "CHUNK": 16, "num_warps": 8, "num_stages": 3}
