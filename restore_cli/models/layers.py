"""Layers that several families share. Feature maps are (b, h, w, c)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.attention import window_attention
from restore_cli.models.convolution import Conv2d

__all__ = [
    "ACTIVATION_FLOATS",
    "DIV2K_MEAN",
    "HEAD_WIDTH",
    "MASKED_SCORE",
    "Activation",
    "BlockSequence",
    "LayerNorm",
    "Mlp",
    "PatchNorm",
    "WindowAttention",
    "can_use_onednn",
    "channels_first",
    "channels_last",
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
"""Channels between the body and the last convolution, in all published variants."""

MASKED_SCORE = -100.0
"""Added to the score of two pixels that are in one shifted window but not neighbours; the published value."""

CHUNK_PIXELS = 4096
"""Px per thread and chunk of a residual branch."""

STRIP_ROWS, HALO = 64, 4
"""Rows that a head enlarges at a time, and the context rows that it reads above and below, input px."""

ACTIVATION_FLOATS = 20
"""Floats that a transformer block with windows holds at the same time per px and channel, measured (decision 042)."""

Activation = Literal["none", "gelu", "swish"]


def channels_first(x: Tensor) -> Tensor:
    """Return a view of (b, h, w, c) as (b, c, h, w)."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """Return a view of (b, c, h, w) as (b, h, w, c)."""
    return x.permute(0, 2, 3, 1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
    """Return activation(x·weightᵀ + bias): (..., c) -> (..., len(weight)).

    On a CPU oneDNN computes all of it in one pass, two to three times as fast as PyTorch, which uses MKL for the
    product. That pass has no gradient, so training uses PyTorch's functions.
    """
    dtype = product_dtype(x)
    if can_use_onednn(x, dtype):
        kind = "none" if activation == "gelu" else ""  # the exact GELU, not the tanh approximation
        weight, bias = weight.to(dtype), bias if bias is None else bias.to(dtype)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias, activation, [], kind)
        return out
    out = F.linear(x, weight, bias)
    if activation == "none":
        return out
    return F.gelu(out) if activation == "gelu" else F.silu(out)


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which a CPU computes matrix products with this tensor."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def residual_in_chunks(x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x + branch(x), (b, h, w, c), for a branch that treats each pixel independently.

    On a CPU the branch runs on one chunk of pixels after the other, so that intermediate results stay in the cache.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x + branch(x)
    flat = x.flatten(0, 2)
    out = torch.empty_like(flat)
    step = CHUNK_PIXELS * torch.get_num_threads()
    for part, target in zip(torch.split(flat, step), torch.split(out, step), strict=True):
        torch.add(part, branch(part), out=target)
    return out.view(x.shape)


def in_row_strips(head: Callable[[Tensor], Tensor], x: Tensor, scale: int) -> Tensor:
    """Return head(x), (b, c, h, w) -> (b, c', h·scale, w·scale), for a head that sees at most HALO px to each side.

    Enlarged maps are by far the largest of a network. In strips of rows, only a part of them is in memory at a time.
    """
    height = x.shape[2]
    if torch.is_grad_enabled() or height <= STRIP_ROWS + 4 * HALO:
        return head(x)
    parts = []
    for top in range(0, height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, height)
        first = max(0, top - HALO)
        out = head(x[:, :, first : bottom + HALO])
        parts.append(out[:, :, (top - first) * scale : (bottom - first) * scale].clone())
    return torch.cat(parts, 2)


def in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """Run the module in float32, also under autocast, as the convolutions between colours and features need it."""
    with torch.autocast(x.device.type, enabled=False):
        return module(x.float())


def to_residual_dtype(x: Tensor) -> Tensor:
    """Convert the features that residual blocks add to: float16 under autocast to float16, otherwise unchanged.

    float16 halves the memory traffic of a GPU. bfloat16 has too few bits for sums (decision 044).
    """
    kind = x.device.type
    halves = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return x.half() if halves else x


def can_use_onednn(x: Tensor, dtype: torch.dtype) -> bool:
    """Return whether oneDNN's fused product can compute this tensor in this dtype."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False  # the compiler cannot optimize the fused operator
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def relative_position_index(window: int) -> Tensor:
    """Return (n, n) rows of the bias table for each pair of the n = window² px (arXiv:2103.14030, section 3.2)."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def shift_mask(window: int, shift: int) -> Tensor:
    """Return (4, n, n) additive masks for shifted windows: interior, right edge, bottom edge, corner.

    After the roll, the last `shift` rows or columns of an edge window come from the opposite edge of the picture. They
    and the rest of the window must not attend to each other.
    """
    far = torch.arange(window) >= window - shift
    y, x = far[:, None].expand(window, window).flatten(), far[None].expand(window, window).flatten()
    across_y, across_x = y[:, None] != y[None], x[:, None] != x[None]
    kinds = torch.stack([torch.zeros_like(across_x), across_x, across_y, across_x | across_y])
    return torch.where(kinds, MASKED_SCORE, 0.0)


class WindowAttention(nn.Module):
    """Self-attention inside (shifted) windows with a learned relative position bias.

    SwinIR (arXiv:2108.10257), section 3.2. Parameter names are those of the published checkpoints.
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
        """Return the relative position bias plus the mask of shifted windows, (kinds of window, heads, n, n)."""
        index = relative_position_index(self.window).to(self.relative_position_bias_table.device)
        bias = rearrange(self.relative_position_bias_table[index], "n m heads -> 1 heads n m")
        if not self.shift:
            return bias
        return bias + shift_mask(self.window, self.shift).to(bias.device)[:, None]

    def prepare(self) -> None:
        """Compute the bias once, because the weights are final."""
        self.bias = self.additive_bias().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows: (b, h, w, c) -> (b, h, w, c); h and w are multiples of the window."""
        biases = self.additive_bias() if self.bias is None else self.bias
        split = "b h w (t heads d) -> t b h w heads d"
        qkv = rearrange(linear(x, self.qkv.weight, self.qkv.bias), split, t=3, heads=self.heads)
        sides, shift = (self.window, self.window), (self.shift, self.shift)
        out = window_attention(list(qkv), sides, shift, biases, scale=qkv.shape[-1] ** -0.5)
        return linear(out.flatten(3), self.proj.weight, self.proj.bias)


class LayerNorm(nn.LayerNorm):
    """Layer norm that keeps float16, with its sums in float32. Autocast would convert the result to float32."""

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
    """A layer norm under the name `patch_embed` of the published checkpoints."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return self.norm(x)


class BlockSequence(nn.Module):
    """A sequence of blocks, under its published name."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        for block in self.blocks:
            x = block(x)
        return x


def upsampler(scale: int, dim: int) -> nn.Sequential:
    """Return convolutions and pixel shuffles that enlarge by 2, 3, 4 or 8 (arXiv:1609.05158). Raises ValueError."""
    if scale == 3:
        return nn.Sequential(Conv2d(dim, 9 * dim, 3, padding=1), nn.PixelShuffle(3))
    steps = int(math.log2(scale))
    if scale < 2 or 2**steps != scale:
        raise ValueError(f"scale {scale}: expected 3 or a power of two")
    pairs = ((Conv2d(dim, 4 * dim, 3, padding=1), nn.PixelShuffle(2)) for _ in range(steps))
    return nn.Sequential(*(layer for pair in pairs for layer in pair))
