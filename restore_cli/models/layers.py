"""What the families share. Feature maps are (b, h, w, c)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.attention import windows_attention
from restore_cli.models.convolution import Conv2d

__all__ = [
    "BLOCKED",
    "DIV2K_MEAN",
    "FLOATS",
    "HEAD_WIDTH",
    "Activation",
    "Blocks",
    "LayerNorm",
    "Mlp",
    "PatchNorm",
    "WindowAttention",
    "channels_first",
    "channels_last",
    "fits_onednn",
    "in_float32",
    "in_row_strips",
    "linear",
    "product_dtype",
    "residual_in_chunks",
    "to_residual_dtype",
    "upsampler",
]

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of DIV2K in [0, 1]; the published checkpoints expect inputs without it."""

HEAD_WIDTH = 64
"""Channels between the body and the last convolution, in every published form."""

BLOCKED = -100.0
"""Added to the score of two pixels that are not neighbours in the picture; the published value."""

STRIP = 4096
"""Px that each thread takes from one end of a branch to the other at a time."""

ROWS, HALO = 64, 4
"""Rows that a head enlarges at a time, and the rows around them that it sees, input px."""

FLOATS = 20
"""Numbers that a transformer block of windows holds at a time for each px and channel, measured (decision 042)."""

Activation = Literal["none", "gelu", "swish"]


def channels_first(x: Tensor) -> Tensor:
    """(b, h, w, c) -> (b, c, h, w), a view."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h, w, c), a view."""
    return x.permute(0, 2, 3, 1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
    """(..., c) -> (..., len(weight)): x · weightᵀ + bias, then the activation.

    On a CPU oneDNN does both in one pass and with its widest vectors: two to three times as fast as PyTorch's own
    way, which asks MKL for the product. That pass has no gradient, so training takes the plain way.
    """
    dtype = product_dtype(x)
    if fits_onednn(x, dtype):
        kind = "none" if activation == "gelu" else ""  # of the two GELUs the exact one
        weight, bias = weight.to(dtype), bias if bias is None else bias.to(dtype)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias, activation, [], kind)
        return out
    out = F.linear(x, weight, bias)
    if activation == "none":
        return out
    return F.gelu(out) if activation == "gelu" else F.silu(out)


def product_dtype(x: Tensor) -> torch.dtype:
    """What its products are computed in on a CPU."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def residual_in_chunks(x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """(b, h, w, c) -> x + branch(x), where the branch treats each pixel by itself.

    On a CPU some pixels go all the way before the next ones come: what lies between the products stays in the cache.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x + branch(x)
    flat = x.flatten(0, 2)
    out = torch.empty_like(flat)
    step = STRIP * torch.get_num_threads()
    for part, target in zip(torch.split(flat, step), torch.split(out, step), strict=True):
        torch.add(part, branch(part), out=target)
    return out.view(x.shape)


def in_row_strips(head: Callable[[Tensor], Tensor], x: Tensor, scale: int) -> Tensor:
    """(b, c, h, w) -> head(x) (b, c', h·scale, w·scale), where no px of it depends on px more than HALO away.

    Enlarged maps are by far the largest of a network; in rows only a part of them is there at a time.
    """
    height = x.shape[2]
    if torch.is_grad_enabled() or height <= ROWS + 4 * HALO:
        return head(x)
    parts = []
    for top in range(0, height, ROWS):
        bottom = min(top + ROWS, height)
        first = max(0, top - HALO)
        out = head(x[:, :, first : bottom + HALO])
        parts.append(out[:, :, (top - first) * scale : (bottom - first) * scale].clone())
    return torch.cat(parts, 2)


def in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """The module in float32 under autocast too: for the convolutions where colours become features and back."""
    with torch.autocast(x.device.type, enabled=False):
        return module(x.float())


def to_residual_dtype(x: Tensor) -> Tensor:
    """The features that blocks add to, in float16 where autocast asks for that: half of what a GPU moves.

    bfloat16 has too few bits to add up in (decision 044).
    """
    kind = x.device.type
    halves = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return x.half() if halves else x


def fits_onednn(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused product is there for this tensor."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False  # the compiler cannot take it apart
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def relative_position_index(window: int) -> Tensor:
    """(n, n) rows of the bias table for each pair of the n = window² pixels (arXiv:2103.14030, section 3.2)."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def shift_mask(window: int, shift: int) -> Tensor:
    """(4, n, n) additive masks of a shifted grid's windows: interior, right edge, bottom edge, corner.

    After the roll the last `shift` rows (columns) come from the other side of the picture; they and
    the rest of their window do not see each other. All other windows are whole.
    """
    far = torch.arange(window) >= window - shift
    y, x = far[:, None].expand(window, window).flatten(), far[None].expand(window, window).flatten()
    across_y, across_x = y[:, None] != y[None], x[:, None] != x[None]
    kinds = torch.stack([torch.zeros_like(across_x), across_x, across_y, across_x | across_y])
    return torch.where(kinds, BLOCKED, 0.0)


class WindowAttention(nn.Module):
    """Self-attention inside (shifted) windows, with a learned bias per relative position.

    SwinIR (arXiv:2108.10257), section 3.2. Parameter names are the published checkpoints'.
    """

    bias: Tensor | None

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads")
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("bias", None, persistent=False)

    def additive_bias(self) -> Tensor:
        """(kinds of window, heads, n, n): relative position bias, and the mask where the grid is shifted."""
        index = relative_position_index(self.window).to(self.relative_position_bias_table.device)
        bias = rearrange(self.relative_position_bias_table[index], "n m heads -> 1 heads n m")
        if not self.shift:
            return bias
        return bias + shift_mask(self.window, self.shift).to(bias.device)[:, None]

    def prepare(self) -> None:
        """Compute the bias once, for weights that change no more."""
        self.bias = self.additive_bias().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c); h and w are multiples of the window."""
        biases = self.additive_bias() if self.bias is None else self.bias
        split = "b h w (t heads d) -> t b h w heads d"
        qkv = rearrange(linear(x, self.qkv.weight, self.qkv.bias), split, t=3, heads=self.heads)
        sides, shift = (self.window, self.window), (self.shift, self.shift)
        out = windows_attention(list(qkv), sides, shift, biases, scale=qkv.shape[-1] ** -0.5)
        return linear(out.flatten(3), self.proj.weight, self.proj.bias)


class LayerNorm(nn.LayerNorm):
    """Of float16 in float16, its sums in float32; autocast would make all of it float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        if x.dtype != torch.float16:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, self.normalized_shape, self.weight.half(), self.bias.half(), self.eps)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        hidden = linear(x, self.fc1.weight, self.fc1.bias, "gelu")
        return linear(hidden, self.fc2.weight, self.fc2.bias)


class PatchNorm(nn.Module):
    """The layer norm that the published checkpoints keep under `patch_embed`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return self.norm(x)


class Blocks(nn.Module):
    """Blocks in a row, under their published name."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        for block in self.blocks:
            x = block(x)
        return x


def upsampler(scale: int, dim: int) -> nn.Sequential:
    """Convolutions and pixel shuffles for ×2, ×3, ×4, ×8 (arXiv:1609.05158)."""
    if scale == 3:
        return nn.Sequential(Conv2d(dim, 9 * dim, 3, padding=1), nn.PixelShuffle(3))
    steps = int(math.log2(scale))
    if scale < 2 or 2**steps != scale:
        raise ValueError(f"scale {scale} is neither 3 nor a power of two")
    pairs = ((Conv2d(dim, 4 * dim, 3, padding=1), nn.PixelShuffle(2)) for _ in range(steps))
    return nn.Sequential(*(layer for pair in pairs for layer in pair))
