"""Window attention as one kernel of a GPU, which reads queries, keys and values where they lie in the feature map.

Nothing is rolled, cut into windows, padded or masked beforehand: shift, partition and bias are arithmetic on addresses,
and no score leaves the chip; the sums of a row are kept while its parts come (arXiv:2205.14135, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import e, log2, prod

import torch
from torch import Tensor

__all__ = ["launch_config", "triton_attention"]

LEAST = 16
"""Sides of the smallest product of a tensor core."""


def triton_attention(
    qkv: Sequence[Tensor],
    window: tuple[int, int],
    shift: tuple[int, int],
    margin: int,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Queries, keys and values (b, h, w, heads, d) each -> (b, h, w, heads, d); two of them: queries serve as keys.

    The grid of windows begins at `shift` px and wraps around. Keys reach `margin` px beyond their window, as zeros
    outside the map. The bias is (kinds, heads, i·j, keys); four kinds of window are those that lie inside, wrap to the
    right, to the bottom, and to both. Raises ImportError without Triton, and what Triton raises where it fails.
    """
    from restore_cli.models.triton_kernel import window_attention  # Triton comes with PyTorch for CUDA alone

    qkv = read_together(qkv)
    q, k, v = qkv[0], qkv[-2], qkv[-1]
    b, height, width, heads, d = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if bias is not None and q.dtype == torch.float16:  # half of the bytes; bfloat16 would be too coarse for scores
        bias = bias.half()
    words = launch_config(window, margin, d, q.dtype)
    windows = b * (height // window[0]) * (width // window[1])
    programs = windows * heads * -(-prod(window) // words["QUERIES"])
    with torch.cuda.device(q.device) if q.is_cuda else nullcontext():
        window_attention[(programs,)](
            q, k, v, q if bias is None else bias.contiguous(), out,
            height, width, *shift, scale * log2(e),
            BIASED=bias is not None, KINDS=1 if bias is None else len(bias), MARGIN=margin,
            HEADS=heads, D=d, PIXEL=q.stride(2), **words,
        )  # fmt: skip
    return out


def launch_config(window: tuple[int, int], margin: int, d: int, dtype: torch.dtype) -> dict[str, int]:
    """Words of the kernel that follow from the window: its sides, and how much one program takes at a time.

    Chosen by what the compiler says for compute capability 8.0 and 9.0: no spilled registers, and enough programs on a
    multiprocessor at a time to hide their reads (docs/decisions/043). Of newer GPUs and AMD's only the first is known.
    """
    small = prod(window) <= 64
    queries, keys, warps = (64, 64, 4) if small else (128, 32, 8)
    if dtype == torch.float32:  # no tensor cores: the products take more registers, of AMD's GPUs twice as many
        queries, keys, warps = 32, 32, 4 if torch.version.hip is None else 8
    return {
        "WIDE_D": max(LEAST, power_of_two(d)),
        "HIGH": window[0],
        "WIDE": window[1],
        "KEY_HIGH": window[0] + 2 * margin,
        "KEY_WIDE": window[1] + 2 * margin,
        "QUERIES": min(queries, max(LEAST, power_of_two(prod(window)))),
        "KEYS": keys,
        "num_warps": warps,
        "num_stages": 2,
    }


def read_together(qkv: Sequence[Tensor]) -> Sequence[Tensor]:
    """The parts as they are where the kernel can read them: alike, pixel after pixel; else copies that are."""
    width, d = qkv[0].shape[2], qkv[0].shape[4]
    row, pixel = qkv[0].stride()[1:3]
    wanted = (qkv[0].shape[1] * row, width * pixel, pixel, d, 1)
    return qkv if all(part.stride() == wanted for part in qkv) else [part.contiguous() for part in qkv]


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below `least`."""
    return 1 << (least - 1).bit_length()
