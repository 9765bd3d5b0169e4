"""Attention inside the windows of a feature map, shifted or not: references, and the choice of a backend.

A CPU computes some windows at a time with oneDNN. A GPU uses the Triton kernel if that is correct on it. Everything
else uses PyTorch's attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from restore_cli.models.ops.chunked_attention import chunked_attention, onednn_is_exact, split_windows
from restore_cli.models.ops.kernel_trial import has_matrix_units, kernels_agree
from restore_cli.models.ops.triton_attention import triton_attention

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
    the map. The bias is (kinds, heads, i·j, i·j). With a shift the kinds are windows inside the map, and windows that
    wrap to the right, to the bottom, and to both; without a shift there is one kind.
    """
    sides = dict(zip("ij", window, strict=True))
    moved = [part.roll((-shift[0], -shift[1]), (1, 2)) for part in qkv]
    parts = [rearrange(part, "b (y i) (x j) heads d -> b y x heads (i j) d", **sides) for part in moved]
    scores = scale * parts[0] @ parts[-2].transpose(-2, -1)
    if bias is not None:
        down, across = (torch.arange(count, device=bias.device) == count - 1 for count in scores.shape[1:3])
        scores = scores + bias[(2 * down[:, None] + across) % len(bias)]
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


def to_windows(x: Tensor, i: int, j: int) -> Tensor:
    """Return a view of (b, h, w, heads, d) in windows of i·j px, (b, y, x, heads, i, j, d)."""
    return rearrange(x, "b (y i) (x j) heads d -> b y x heads i j d", i=i, j=j)


def to_overlapping_windows(x: Tensor, window: tuple[int, int], margin: int) -> Tensor:
    """Convert (b, h, w, heads, d) to (b, y, x, heads, i + 2·margin, j + 2·margin, d), with zeros outside the map."""
    x = F.pad(x, (0, 0, 0, 0, margin, margin, margin, margin))
    for dim, side in enumerate(window, 1):
        x = x.unfold(dim, side + 2 * margin, side)
    return rearrange(x, "b y x heads d i j -> b y x heads i j d")


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


def fast_overlapping_window_attention(
    qkv: Sequence[Tensor], window: tuple[int, int], margin: int, bias: Tensor, scale: float
) -> Tensor:
    """Compute `overlapping_window_attention` with the fastest backend of the device."""
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
