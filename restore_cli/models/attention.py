"""Attention inside the windows of a feature map, shifted or not, with a backend for each device.

A CPU computes some windows at a time with oneDNN. A GPU uses the Triton kernel if that is correct on it. Everything
else uses PyTorch's attention.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil, e, log2, prod
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from restore_cli.errors import is_out_of_memory
from restore_cli.models.triton_attention import triton_attention
from restore_cli.shared_context import SharedContext

__all__ = ["overlapping_window_attention", "window_attention"]

LOG = logging.getLogger(__name__)

CHUNK_BYTES = 4 * 2**20
"""Bytes of scores per thread and chunk: enough work for a matrix product, small enough for the cache."""

FP32_TOLERANCE = 1e-5
"""Relative error allowed between two float32 results whose sums have another order, as in the tests of networks."""

MAX_WINDOWS = 65535
"""Windows per call of PyTorch's attention. CUDA cannot launch more blocks along that axis."""

MATRIX_GPUS = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
"""Prefixes of the names of AMD GPUs with matrix units."""

MIN_WEIGHT_SUM, MAX_WEIGHT_SUM = 2.0**-64, 2.0**96
"""If the weights of a row sum up to a value between these, there was no underflow or overflow."""


@dataclass(frozen=True)
class AxisPart:
    """A part of one axis of a map: all windows inside it, or the one window that wraps around its end."""

    dim: int
    window: int
    shift: int
    wraps: bool

    def pieces(self, x: Tensor) -> list[Tensor]:
        """Return the views of the map that make the part, in order."""
        length = x.shape[self.dim]
        if not self.wraps:
            return [x.narrow(self.dim, self.shift, length - self.window)]
        before = self.window - self.shift
        return [x.narrow(self.dim, length - before, before), x.narrow(self.dim, 0, self.shift)]

    def read(self, x: Tensor) -> Tensor:
        """Return the part: a view, or a copy if it wraps."""
        pieces = self.pieces(x)
        return torch.cat(pieces, self.dim) if self.wraps else pieces[0]

    def write(self, x: Tensor, part: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of a view of the map and the piece of the part that belongs there."""
        pieces = self.pieces(x)
        return list(zip(pieces, torch.split(part, [piece.shape[self.dim] for piece in pieces], self.dim), strict=True))


def to_windows(x: Tensor, i: int, j: int) -> Tensor:
    """Return a view of (b, h, w, heads, d) in windows of i·j px, (b, y, x, heads, i, j, d)."""
    return rearrange(x, "b (y i) (x j) heads d -> b y x heads i j d", i=i, j=j)


def window_attention(
    qkv: Sequence[Tensor], window: tuple[int, int], shift: tuple[int, int], bias: Tensor | None, scale: float
) -> Tensor:
    """Attend within windows: queries, keys and values (b, h, w, heads, d) each -> (b, h, w, heads, d).

    With two tensors, the first is both queries and keys. The windows begin at `shift` px and wrap around the edges of
    the map. The bias is (kinds, heads, i·j, i·j). With a shift the kinds are windows inside the map, and windows that
    wrap to the right, to the bottom, and to both; without a shift there is one kind.
    """
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.restore.windows_attention(list(qkv), window, shift, bias, scale)
        return found
    if can_use_kernel(qkv, window, shift, 0, bias):
        return triton_attention(qkv, window, shift, 0, bias, scale)
    out = torch.empty_like(qkv[0], memory_format=torch.contiguous_format)
    biases: Sequence[Tensor | None] = [None] * 4 if bias is None else list(bias)
    if not any(shift):
        attend([to_windows(part, *window) for part in qkv], biases[0], scale, to_windows(out, *window))
        return out
    for kind, added in zip(product((False, True), repeat=2), biases, strict=True):
        down, across = (AxisPart(axis + 1, window[axis], shift[axis], kind[axis]) for axis in (0, 1))
        parts = [across.read(down.read(part)) for part in qkv]
        if parts[0].numel():
            found = across.read(down.read(out)) if not any(kind) else torch.empty(parts[0].shape).to(out)
            attend([to_windows(part, *window) for part in parts], added, scale, to_windows(found, *window))
            for rows, strip in down.write(out, found) if any(kind) else ():
                for target, piece in across.write(rows, strip):
                    target.copy_(piece)
    return out


def overlapping_window_attention(
    qkv: Sequence[Tensor], window: tuple[int, int], margin: int, bias: Tensor, scale: float
) -> Tensor:
    """Attend from windows to keys and values that reach `margin` px beyond each window, with zeros outside the map.

    Tensors are as in `window_attention`. The bias is (1, heads, i·j, (i + 2·margin)·(j + 2·margin)).
    """
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.restore.surrounded_attention(list(qkv), window, margin, bias, scale)
        return found
    if can_use_kernel(qkv, window, (0, 0), margin, bias):
        return triton_attention(qkv, window, (0, 0), margin, bias, scale)
    out = torch.empty_like(qkv[0], memory_format=torch.contiguous_format)
    wide = [to_overlapping_windows(part, window, margin) for part in qkv[1:]]
    attend([to_windows(qkv[0], *window), *wide], bias[0], scale, to_windows(out, *window))
    return out


@torch.library.custom_op(
    "restore::windows_attention",
    mutates_args=(),
    schema="(Tensor[] qkv, int[] window, int[] shift, Tensor? bias, float scale) -> Tensor",
)
def opaque_window_attention(
    qkv: list[Tensor], window: Sequence[int], shift: Sequence[int], bias: Tensor | None, scale: float
) -> Tensor:
    """`window_attention` as a single operator for PyTorch's compiler."""
    return window_attention(qkv, (window[0], window[1]), (shift[0], shift[1]), bias, scale)


@torch.library.custom_op(
    "restore::surrounded_attention",
    mutates_args=(),
    schema="(Tensor[] qkv, int[] window, int margin, Tensor bias, float scale) -> Tensor",
)
def opaque_overlapping_window_attention(
    qkv: list[Tensor], window: Sequence[int], margin: int, bias: Tensor, scale: float
) -> Tensor:
    """`overlapping_window_attention` as a single operator for PyTorch's compiler."""
    return overlapping_window_attention(qkv, (window[0], window[1]), margin, bias, scale)


@opaque_window_attention.register_fake
@opaque_overlapping_window_attention.register_fake
def fake_output(qkv: list[Tensor], *_: object) -> Tensor:
    """Return an empty tensor with the shape and layout of the result."""
    return torch.empty_like(qkv[0], memory_format=torch.contiguous_format)


def to_overlapping_windows(x: Tensor, window: tuple[int, int], margin: int) -> Tensor:
    """Convert (b, h, w, heads, d) to (b, y, x, heads, i + 2·margin, j + 2·margin, d), with zeros outside the map."""
    x = F.pad(x, (0, 0, 0, 0, margin, margin, margin, margin))
    for dim, side in enumerate(window, 1):
        x = x.unfold(dim, side + 2 * margin, side)
    return rearrange(x, "b y x heads d i j -> b y x heads i j d")


def can_use_kernel(
    qkv: Sequence[Tensor], window: tuple[int, int], shift: tuple[int, int], margin: int, bias: Tensor | None
) -> bool:
    """Return whether `triton_attention` may run: on a GPU with matrix units where it is correct, without gradients."""
    q = qkv[0]
    if q.device.type != "cuda" or torch.is_grad_enabled() or not has_matrix_units(q.device):
        return False
    heads, d = q.shape[3:]
    return kernel_is_correct(q.device, q.dtype, (len(qkv), heads, d), window, any(shift), margin, bias is not None)


@cache
def has_matrix_units(device: torch.device) -> bool:
    """Return whether Triton uses the matrix units of a GPU: NVIDIA's from compute capability 8.0 on, and AMD's by name.

    On other GPUs its products are slow, or it ends the process, as Triton 3.2 does at 7.0 and from 10.0 on.
    """
    if torch.version.hip is not None:
        name: str = torch.cuda.get_device_properties(device).gcnArchName
        return name.startswith(MATRIX_GPUS)
    capability = torch.cuda.get_device_capability(device)
    return capability >= (8, 0) and not (capability >= (10, 0) and triton_is_older_than(3, 3))


def triton_is_older_than(*version: int) -> bool:
    """Return whether Triton is installed in an older version than this one."""
    try:
        import triton
    except ImportError:
        return False
    return tuple(int(part) for part in triton.__version__.split(".")[:2]) < version


@cache
def kernel_is_correct(
    device: torch.device,
    dtype: torch.dtype,
    parts: tuple[int, int, int],
    window: tuple[int, int],
    shifted: bool,
    margin: int,
    biased: bool,
) -> bool:
    """Return whether the Triton kernel runs here and agrees with plain attention on a map of four windows.

    Each form is tried once. `parts` holds the number of tensors (2 or 3), of heads, and of channels per head.
    """
    count, heads, d = parts
    (i, j), shift = window, (window[0] // 2 * shifted, window[1] // 2 * shifted)
    steps = torch.arange(4 * i * j * count * heads * d, device=device).view(1, 2 * i, 2 * j, count, heads, d)
    qkv = list((steps % 7919).float().sin().to(dtype).movedim(3, 0))
    pairs = (4 if shifted else 1, heads, i * j, (i + 2 * margin) * (j + 2 * margin))
    bias = torch.arange(prod(pairs), device=device).view(pairs).float().cos() if biased else None
    try:
        found = triton_attention(qkv, window, shift, margin, bias, 0.5)
    except Exception as error:  # no Triton, no C compiler, an unsupported GPU: many types
        if is_out_of_memory(error):
            raise  # the kernel may still be correct
        warn_without_kernel(device, (str(error).splitlines() or [type(error).__name__])[0][:200])
        return False
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):  # plain attention
        exact = [part.float() for part in qkv]
        if bias is not None and margin:
            expected = overlapping_window_attention(exact, window, margin, bias, 0.5)
        else:
            expected = window_attention(exact, window, shift, bias, 0.5)
    difference = float((found.float() - expected).norm() / expected.norm())
    correct = difference < max(8 * torch.finfo(dtype).eps, FP32_TOLERANCE)
    if not correct:
        warn_without_kernel(device, "its results are wrong on this device")
    return correct


@cache
def warn_without_kernel(device: torch.device, reason: str) -> None:
    """Log once per device that the kernel is not used, and why."""
    LOG.warning("attention runs without its fused kernel on %s, and takes longer: %s", device, reason)


def attend(qkv: Sequence[Tensor], bias: Tensor | None, scale: float, out: Tensor) -> None:
    """Write softmax(q·kᵀ·scale + bias)·v to `out`.

    q and out are (b, y, x, heads, i, j, d), k and v are (b, y, x, heads, I, J, d), in any layout. With two tensors, q
    is also k. The bias (heads, i·j, I·J) is the same for every window.
    """
    if out.device.type == "cpu" and not torch.is_grad_enabled() and onednn_is_exact():
        with torch.autocast("cpu", enabled=False):
            chunked_attention(qkv, bias, scale, out)
        return
    mask = None if bias is None else bias[None].to(out.dtype)
    for box in split_windows((out.shape[0], out.shape[1], out.shape[2]), MAX_WINDOWS):
        flat = [part[box].flatten(4, 5).flatten(0, 2) for part in qkv]
        if out.device.type == "cuda":  # for other widths PyTorch keeps all scores in memory
            flat = [F.pad(part, (0, -part.shape[-1] % 8)) for part in flat]
        found = F.scaled_dot_product_attention(flat[0], flat[-2], flat[-1], attn_mask=mask, scale=scale)
        out[box].copy_(found[..., : out.shape[-1]].reshape(out[box].shape))


def chunked_attention(qkv: Sequence[Tensor], bias: Tensor | None, scale: float, out: Tensor) -> None:
    """Compute `attend` in float32 on a CPU, some windows at a time.

    PyTorch's power of two is four times as fast as its exponential, so scores are scaled for that. A column of ones
    beside the values makes the matrix product sum the weights, and the small result is divided by the sums at the end.
    """
    q, k, v = qkv[0], qkv[-2], qkv[-1]
    heads, d, n, m = q.shape[3], q.shape[6], prod(q.shape[4:6]), prod(k.shape[4:6])
    most = max(1, torch.get_num_threads() * CHUNK_BYTES // (4 * heads * n * m))
    count = min(most, prod(q.shape[:3]))
    scores, values = torch.empty(count, heads, n, m), torch.ones(count, heads, m, d + 1)
    queries = torch.empty(count, heads, n, d)
    keys = queries if k is q else torch.empty(count, heads, m, d)
    factor = (scale * log2(e)) ** (0.5 if k is q else 1.0)
    bias = None if bias is None else bias.float() * log2(e)
    for box in split_windows((q.shape[0], q.shape[1], q.shape[2]), most):
        c = prod(q[box].shape[:3])
        queries[:c].view(q[box].shape).copy_(pack(q[box]))
        queries[:c] *= factor
        if k is not q:
            keys[:c].view(k[box].shape).copy_(pack(k[box]))
        values[:c].view(*v[box].shape[:6], d + 1)[..., :d].copy_(pack(v[box]))
        sums = weigh_values(queries[:c], keys[:c], values[:c], bias, scores[:c]).view(*q[box].shape[:6], d + 1)
        torch.div(sums[..., :d], sums[..., d:], out=out[box])


def pack(x: Tensor) -> Tensor:
    """Make half-precision tensors contiguous. Doing that and converting to float32 in one pass takes longer."""
    return x if x.dtype == torch.float32 else x.contiguous()


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
