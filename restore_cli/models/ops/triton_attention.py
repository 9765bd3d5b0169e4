"""Window attention in one Triton kernel, which reads queries, keys and values directly from the feature map.

Nothing is rolled, cut into windows, padded or masked before: shift, windows and bias are arithmetic on addresses.
Scores never leave the chip: the softmax is computed in blocks with running sums (arXiv:2205.14135, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import e, log2, prod

import torch
from torch import Tensor

__all__ = ["launch_config", "triton_attention"]

MIN_DOT_SIDE = 16
"""Smallest side of a matrix product in Triton."""


def triton_attention(
    qkv: Sequence[Tensor],
    window: tuple[int, int],
    shift: tuple[int, int],
    margin: int,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Attend within windows: queries, keys and values (b, h, w, heads, d) each -> (b, h, w, heads, d).

    With two tensors, the first is both queries and keys. The windows begin at `shift` px and wrap around the edges.
    Keys reach `margin` px beyond their window, with zeros outside the map. The bias is (kinds, heads, i·j, keys), with
    kinds as in `window_attention`. Raises ImportError without Triton, and the errors of Triton.
    """
    from restore_cli.models.ops.triton_kernel import window_attention_kernel  # only PyTorch for CUDA includes Triton

    qkv = with_equal_strides(qkv)
    q, k, v = qkv[0], qkv[-2], qkv[-1]
    b, height, width, heads, d = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if bias is not None and q.dtype == torch.float16:  # halves the memory traffic; bfloat16 would be too coarse
        bias = bias.half()
    constants = launch_config(window, margin, d, q.dtype)
    windows = b * (height // window[0]) * (width // window[1])
    programs = windows * heads * -(-prod(window) // constants["QUERIES"])
    with torch.cuda.device(q.device) if q.is_cuda else nullcontext():
        window_attention_kernel[(programs,)](
            q, k, v, q if bias is None else bias.contiguous(), out,
            height, width, *shift, scale * log2(e),
            BIASED=bias is not None, KINDS=1 if bias is None else len(bias), MARGIN=margin,
            HEADS=heads, D=d, PIXEL=q.stride(2), **constants,
        )  # fmt: skip
    return out


def launch_config(window: tuple[int, int], margin: int, d: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the constants of the kernel for a window: its sides, the sizes of the blocks, warps and stages.

    The block sizes spill no registers, and on compute capability 8.0 and 9.0 they let enough programs share a
    multiprocessor to hide their reads (docs/decisions/043).
    """
    small = prod(window) <= 64
    queries, keys, warps = (64, 64, 4) if small else (128, 32, 8)
    if dtype == torch.float32:  # products without tensor cores need more registers, on AMD GPUs twice as many
        queries, keys, warps = 32, 32, 4 if torch.version.hip is None else 8
    return {
        "WIDE_D": max(MIN_DOT_SIDE, next_power_of_two(d)),
        "HIGH": window[0],
        "WIDE": window[1],
        "KEY_HIGH": window[0] + 2 * margin,
        "KEY_WIDE": window[1] + 2 * margin,
        "QUERIES": min(queries, max(MIN_DOT_SIDE, next_power_of_two(prod(window)))),
        "KEYS": keys,
        "num_warps": warps,
        "num_stages": 2,
    }


def with_equal_strides(qkv: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the tensors, or contiguous copies if their strides differ or are not those that the kernel reads."""
    width, d = qkv[0].shape[2], qkv[0].shape[4]
    row, pixel = qkv[0].stride()[1:3]
    wanted = (qkv[0].shape[1] * row, width * pixel, pixel, d, 1)
    return qkv if all(part.stride() == wanted for part in qkv) else [part.contiguous() for part in qkv]


def next_power_of_two(least: int) -> int:
    """Return the smallest power of two that is at least `least`."""
    return 1 << (least - 1).bit_length()
