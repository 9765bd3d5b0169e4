"""Attention inside the windows of a feature map, shifted or not: references, and the choice of a backend.

A CPU computes some windows at a time with oneDNN. A GPU uses the Triton kernel if that is correct on it. Everything
else uses PyTorch's attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from restore_cli.models.ops.chunked_attention import chunked_attention, onednn_is_exact, split_windows
from restore_cli.models.ops.kernel_trial import has_matrix_units, kernels_agree
from restore_cli.models.ops.triton_attention import triton_attention
from restore_cli.models.ops.windows import split_axis, to_overlapping_windows, to_windows

__all__ = [
    "fast_overlapping_window_attention",
    "fast_window_attention",
    "overlapping_window_attention",
    "window_attention",
]

MAX_WINDOWS = 65535
"""Windows per call of PyTorch's attention. CUDA cannot launch more blocks along that axis."""


def window_attention(
    qkv: Sequence[Tensor], window: tuple[int, int], shift: tuple[int, int], bias: Tensor | None, scale: float
) -> Tensor:
    """Return softmax(q·kᵀ·scale + bias)·v within windows: three tensors (b, h, w, heads, d) -> (b, h, w, heads, d).

    With two tensors, the first is both queries and keys. The windows begin at `shift` px and wrap around the edges of
    the map. The bias is (kinds, heads, i·j, i·j). The kinds are windows inside the map, and windows that wrap to the
    right, to the bottom, and to both. Without a shift down, the first two are enough, and without any shift the first.
    """
    sides = dict(zip("ij", window, strict=True))
    moved = [part.roll((-shift[0], -shift[1]), (1, 2)) for part in qkv]
    parts = [rearrange(part, "b (y i) (x j) heads d -> b y x heads (i j) d", **sides) for part in moved]
    scores = scale * parts[0] @ parts[-2].transpose(-2, -1)
    if bias is not None:
        down, across = (
            (torch.arange(count, device=bias.device) == count - 1) & (side > 0)
            for count, side in zip(scores.shape[1:3], shift, strict=True)
        )
        scores = scores + bias[2 * down[:, None] + across]
    out = rearrange(scores.softmax(-1) @ parts[-1], "b y x heads (i j) d -> b (y i) (x j) heads d", **sides)
    return out.roll(shift, (1, 2))


def overlapping_window_attention(
    qkv: Sequence[Tensor], window: tuple[int, int], margin: int, bias: Tensor, scale: float
) -> Tensor:
    """Attend from windows to keys and values that reach `margin` px beyond each window, with zeros outside the map.

    Tensors are as in `window_attention`. The bias is (1, heads, i·j, (i + 2·margin)·(j + 2·margin)).
    """
    q = to_windows(qkv[0], *window)
    k, v = (to_overlapping_windows(part, window, margin).flatten(4, 5) for part in qkv[1:])
    out = (scale * q.flatten(4, 5) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
    return rearrange(out.view(q.shape), "b y x heads i j d -> b (y i) (x j) heads d")


def fast_window_attention(
    qkv: Sequence[Tensor], window: tuple[int, int], shift: tuple[int, int], bias: Tensor | None, scale: float
) -> Tensor:
    """Compute `window_attention` with the fastest backend of the device."""
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.restore.windows_attention(list(qkv), window, shift, bias, scale)
        return found
    if can_use_kernel(qkv, window, shift, 0, bias):
        return triton_attention(qkv, window, shift, 0, bias, scale)
    out = torch.empty_like(qkv[0], memory_format=torch.contiguous_format)
    down, across = (list(split_axis(out.shape[axis], window[axis - 1], shift[axis - 1], axis)) for axis in (1, 2))
    for rows in down:
        strips = [rows.read(part) for part in qkv]
        strip = out.new_empty(strips[0].shape) if rows.wraps else rows.read(out)
        for columns in across:
            parts = [columns.read(part) for part in strips]
            found = out.new_empty(parts[0].shape) if columns.wraps else columns.read(strip)
            added = None if bias is None else bias[2 * rows.wraps + columns.wraps]
            attend([to_windows(part, *window) for part in parts], added, scale, to_windows(found, *window))
            if columns.wraps:
                columns.write(strip, found)
        if rows.wraps:
            rows.write(out, strip)
    return out


def fast_overlapping_window_attention(
    qkv: Sequence[Tensor],
    window: tuple[int, int],
    margin: int,
    bias: Tensor,
    scale: float,
    rows: slice = slice(None),
) -> Tensor:
    """Compute `overlapping_window_attention` with the fastest backend of the device.

    On a CPU the tensors may be some rows of a map, of which only `rows` are computed. A side with fewer than `margin`
    rows around them is an end of the map.
    """
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.restore.surrounded_attention(list(qkv), window, margin, bias, scale)
        return found
    q = qkv[0][:, rows]
    if q.shape == qkv[0].shape and can_use_kernel(qkv, window, (0, 0), margin, bias):
        return triton_attention(qkv, window, (0, 0), margin, bias, scale)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    wide = [to_overlapping_windows(part, window, margin, rows) for part in qkv[1:]]
    attend([to_windows(q, *window), *wide], bias[0], scale, to_windows(out, *window))
    return out


@torch.library.custom_op(
    "restore::windows_attention",
    mutates_args=(),
    schema="(Tensor[] qkv, int[] window, int[] shift, Tensor? bias, float scale) -> Tensor",
)
def opaque_window_attention(
    qkv: list[Tensor], window: Sequence[int], shift: Sequence[int], bias: Tensor | None, scale: float
) -> Tensor:
    """`fast_window_attention` as a single operator for PyTorch's compiler."""
    return fast_window_attention(qkv, (window[0], window[1]), (shift[0], shift[1]), bias, scale)


@torch.library.custom_op(
    "restore::surrounded_attention",
    mutates_args=(),
    schema="(Tensor[] qkv, int[] window, int margin, Tensor bias, float scale) -> Tensor",
)
def opaque_overlapping_window_attention(
    qkv: list[Tensor], window: Sequence[int], margin: int, bias: Tensor, scale: float
) -> Tensor:
    """`fast_overlapping_window_attention` as a single operator for PyTorch's compiler."""
    return fast_overlapping_window_attention(qkv, (window[0], window[1]), margin, bias, scale)


@opaque_window_attention.register_fake
@opaque_overlapping_window_attention.register_fake
def fake_output(qkv: list[Tensor], *_: object) -> Tensor:
    """Return an empty tensor with the shape and layout of the result."""
    return torch.empty_like(qkv[0], memory_format=torch.contiguous_format)


def can_use_kernel(
    qkv: Sequence[Tensor], window: tuple[int, int], shift: tuple[int, int], margin: int, bias: Tensor | None
) -> bool:
    """Return whether `triton_attention` may run: on a GPU with matrix units where it is correct."""
    q = qkv[0]
    if q.device.type != "cuda" or not has_matrix_units(q.device):
        return False
    heads, d = q.shape[3:]
    return kernel_is_correct(q.device, q.dtype, (len(qkv), heads, d), window, any(shift), margin, bias is not None)


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
    """Return whether the Triton kernel runs here and agrees with the reference on a map of four windows.

    Each form is tried once. `parts` holds the number of tensors (2 or 3), of heads, and of channels per head.
    """
    count, heads, d = parts
    (i, j), shift = window, (window[0] // 2 * shifted, window[1] // 2 * shifted)
    steps = torch.arange(4 * i * j * count * heads * d, device=device).view(1, 2 * i, 2 * j, count, heads, d)
    qkv = list((steps % 7919).float().sin().to(dtype).movedim(3, 0))
    pairs = (4 if shifted else 1, heads, i * j, (i + 2 * margin) * (j + 2 * margin))
    bias = torch.arange(prod(pairs), device=device).view(pairs).float().cos() if biased else None

    def expect() -> Tensor:
        exact = [part.double() for part in qkv]  # no TF32
        if bias is not None and margin:
            return overlapping_window_attention(exact, window, margin, bias, 0.5)
        return window_attention(exact, window, shift, bias, 0.5)

    return kernels_agree(
        "attention",
        device,
        dtype,
        lambda: [triton_attention(qkv, window, shift, margin, bias, 0.5)],
        lambda: [expect()],
    )


def attend(qkv: Sequence[Tensor], bias: Tensor | None, scale: float, out: Tensor) -> None:
    """Write softmax(q·kᵀ·scale + bias)·v to `out`.

    q and out are (b, y, x, heads, i, j, d), k and v are (b, y, x, heads, I, J, d), in any layout. With two tensors, q
    is also k. The bias (heads, i·j, I·J) is the same for every window.
    """
    if out.device.type == "cpu" and onednn_is_exact():
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
