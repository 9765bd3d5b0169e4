"""Window attention on a CPU: products of oneDNN over some windows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import product
from math import ceil, e, log2, prod
from typing import Any

import torch
from torch import Tensor

from restore_cli.models.ops.linear import can_use_onednn
from restore_cli.shared_context import SharedContext

__all__ = ["ONEDNN_PRODUCTS", "chunked_attention", "onednn_is_exact", "split_windows"]

CHUNK_BYTES = 4 * 2**20
"""Bytes of scores per thread and chunk: enough work for a matrix product, small enough for the cache."""

MIN_WEIGHT_SUM, MAX_WEIGHT_SUM = 2.0**-64, 2.0**96
"""If the weights of a row sum up to a value between these, there was no underflow or overflow."""


def chunked_attention(qkv: Sequence[Tensor], bias: Tensor | None, scale: float, out: Tensor) -> None:
    """Compute `attend` on a CPU, some windows at a time: bfloat16 tensors in bfloat16, others in float32.

    PyTorch's power of two is four times as fast as its exponential, so scores are scaled for that. A column of ones
    beside the values makes the matrix product sum the weights, and the small result is divided by the sums at the end.
    """
    q, k, v = qkv[0], qkv[-2], qkv[-1]
    heads, d, n, m = q.shape[3], q.shape[6], prod(q.shape[4:6]), prod(k.shape[4:6])
    dtype = q.dtype if can_use_onednn(q, q.dtype) else torch.float32
    most = max(1, torch.get_num_threads() * CHUNK_BYTES // (dtype.itemsize * heads * n * m))
    count = min(most, prod(q.shape[:3]))
    scores, values = torch.empty(count, heads, n, m, dtype=dtype), torch.ones(count, heads, m, d + 1, dtype=dtype)
    queries = torch.empty(count, heads, n, d, dtype=dtype)
    keys = queries if k is q else torch.empty(count, heads, m, d, dtype=dtype)
    factor = (scale * log2(e)) ** (0.5 if k is q else 1.0)
    bias = None if bias is None else (bias.float() * log2(e)).to(dtype)
    for box in split_windows((q.shape[0], q.shape[1], q.shape[2]), most):
        c = prod(q[box].shape[:3])
        queries[:c].view(q[box].shape).copy_(pack(q[box], dtype))
        queries[:c] *= factor
        if k is not q:
            keys[:c].view(k[box].shape).copy_(pack(k[box], dtype))
        values[:c].view(*v[box].shape[:6], d + 1)[..., :d].copy_(pack(v[box], dtype))
        sums = weigh_values(queries[:c], keys[:c], values[:c], bias, scores[:c]).view(*q[box].shape[:6], d + 1)
        if dtype == torch.float32:
            torch.div(sums[..., :d], sums[..., d:], out=out[box])
        else:  # PyTorch divides bfloat16 slowly
            sums = sums.float()
            out[box].copy_((sums[..., :d] / sums[..., d:]).to(out.dtype))


def pack(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Make tensors of another dtype contiguous. Doing that and converting them in one pass takes longer."""
    return x if x.dtype == dtype else x.contiguous()


def split_windows(counts: tuple[int, int, int], most: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield index boxes of at most `most` of the (b, y, x) windows, as equal in size as possible."""
    sizes = [1, 1, 1]
    for axis in (2, 1, 0):
        fit = max(1, most // prod(sizes))
        sizes[axis] = ceil(counts[axis] / ceil(counts[axis] / fit))
    for first in product(*(range(0, count, size) for count, size in zip(counts, sizes, strict=True))):
        b, y, x = (slice(at, at + size) for at, size in zip(first, sizes, strict=True))
        yield b, y, x


def weigh_values(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scores: Tensor) -> Tensor:
    """Return 2^(q·kᵀ + bias)·v: (c, heads, n, d), (c, heads, m, d), (c, heads, m, e) -> (c·heads, n, e).

    The last column of v is ones, so the last column of the result holds the sums of the weights. The largest score of
    each row is subtracted only if a first try underflows or overflows.
    """
    q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    for shift in (False, True):
        if bias is not None and scores.dtype == torch.bfloat16:  # one rounding instead of two
            scores.copy_(bias).flatten(0, 1).baddbmm_(q, k.mT)
        else:
            with ONEDNN_PRODUCTS:
                torch.bmm(q, k.mT, out=scores.flatten(0, 1))
            if bias is not None:
                scores += bias
        if shift:
            scores -= scores.amax(-1, keepdim=True)
        scores.exp2_()
        with ONEDNN_PRODUCTS:
            sums = torch.bmm(scores.flatten(0, 1), v)
        low, high = sums[..., -1].aminmax()
        if low > MIN_WEIGHT_SUM and high < MAX_WEIGHT_SUM:
            break
    return sums


@contextmanager
def allow_bfloat16_products() -> Iterator[None]:
    """Allow oneDNN to round float32 products to bfloat16, in the whole process, and restore the setting afterwards."""
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made when it is imported
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = "none"  # inherit, as it may have been before
        if matmul.fp32_precision != before:
            matmul.fp32_precision = before


ONEDNN_PRODUCTS = SharedContext(allow_bfloat16_products)
"""Computes batched float32 products with oneDNN instead of MKL. PyTorch uses it only where it may round them."""


@cache
def onednn_is_exact() -> bool:
    """Whether oneDNN is here and makes no use of that: rounding pays only where the processor has a matrix unit."""
    here = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not here or not hasattr(torch.backends.mkldnn, "matmul"):  # PyTorch before 2.9 cannot be asked
        return False
    steps = torch.arange(2.0 * 64 * 64).view(2, 64, 64)
    a, b = steps.sin(), steps.cos()
    with torch.autocast("cpu", enabled=False), ONEDNN_PRODUCTS:
        found = torch.bmm(a, b)
    exact = a.double() @ b.double()
    return float((found - exact).norm() / exact.norm()) < 1e-6
