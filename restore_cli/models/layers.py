"""Published layers that SwinIR and HAT share. Feature maps are (b, h, w, c)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.ops.attention import window_attention

__all__ = [
    "DIV2K_MEAN",
    "HEAD_WIDTH",
    "BlockSequence",
    "Mlp",
    "PatchNorm",
    "WindowAttention",
    "shift_mask",
    "split_heads",
    "upsampler",
]

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of DIV2K in [0, 1]; the published checkpoints expect inputs without it."""

HEAD_WIDTH = 64
"""Channels between the body and the last convolution, in all published variants that have such a head."""

MASKED_SCORE = -100.0
"""Added to the score of two pixels that are in one shifted window but not neighbours; the published value."""


def relative_position_index(window: int) -> Tensor:
    """Return (n, n) rows of the bias table for each pair of the n = window² px (arXiv:2103.14030, section 3.2)."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def shift_mask(window: int, shift: int) -> Tensor:
    """Return (4, 1, n, n) additive masks for shifted windows: interior, right edge, bottom edge, corner.

    After the roll, the last `shift` rows or columns of an edge window come from the opposite edge of the picture. They
    and the rest of the window must not attend to each other.
    """
    far = torch.arange(window) >= window - shift
    y, x = far[:, None].expand(window, window).flatten(), far[None].expand(window, window).flatten()
    across_y, across_x = y[:, None] != y[None], x[:, None] != x[None]
    kinds = torch.stack([torch.zeros_like(across_x), across_x, across_y, across_x | across_y])
    return torch.where(kinds[:, None], MASKED_SCORE, 0.0)


def split_heads(qkv: Tensor, heads: int) -> list[Tensor]:
    """Return queries, keys and values: (b, h, w, 3·heads·d) -> three (b, h, w, heads, d)."""
    return list(rearrange(qkv, "b h w (t heads d) -> t b h w heads d", t=3, heads=heads))


class WindowAttention(nn.Module):
    """Self-attention inside (shifted) windows with a learned relative position bias.

    SwinIR (arXiv:2108.10257), section 3.2. Parameter names are those of the published checkpoints.
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads")
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def position_bias(self) -> Tensor:
        """Return the relative position bias, (1, heads, n, n)."""
        index = relative_position_index(self.window).to(self.relative_position_bias_table.device)
        return rearrange(self.relative_position_bias_table[index], "n m heads -> 1 heads n m")

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows: (b, h, w, c) -> (b, h, w, c); h and w are multiples of the window."""
        attended = self.attend(split_heads(self.qkv(x), self.heads))
        return self.proj(rearrange(attended, "b h w heads d -> b h w (heads d)"))

    def attend(self, qkv: list[Tensor]) -> Tensor:
        """Return softmax(q·kᵀ/√d + bias)·v: three (b, h, w, heads, d) -> (b, h, w, heads, d)."""
        sides, shift, bias = (self.window, self.window), (self.shift, self.shift), self.position_bias()
        if self.shift:
            bias = bias + shift_mask(self.window, self.shift).to(bias.device)
        return window_attention(qkv, sides, shift, bias, scale=qkv[0].shape[-1] ** -0.5)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        return self.fc2(F.gelu(self.fc1(x)))


class PatchNorm(nn.Module):
    """A layer norm under the name `patch_embed` of the published checkpoints."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

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
        return nn.Sequential(nn.Conv2d(dim, 9 * dim, 3, padding=1), nn.PixelShuffle(3))
    steps = int(math.log2(scale))
    if scale < 2 or 2**steps != scale:
        raise ValueError(f"scale {scale}: expected 3 or a power of two")
    pairs = ((nn.Conv2d(dim, 4 * dim, 3, padding=1), nn.PixelShuffle(2)) for _ in range(steps))
    return nn.Sequential(*(layer for pair in pairs for layer in pair))
