"""HAT: window attention, channel attention and overlapping cross-attention (Chen et al. 2022, arXiv:2205.04437)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from restore_cli.models.layers import (
    DIV2K_MEAN,
    HEAD_WIDTH,
    BlockSequence,
    Mlp,
    PatchNorm,
    WindowAttention,
    split_heads,
    upsampler,
)
from restore_cli.models.ops.attention import overlapping_window_attention
from restore_cli.weights.architectures import HATConfig

__all__ = ["HAT", "HybridBlock", "OverlappingCrossAttention"]


class HAT(nn.Module):
    """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale); h and w are multiples of the window."""

    mean: Tensor

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, dim, 3, padding=1)
        self.patch_embed = PatchNorm(dim)
        groups = zip(config.depths, config.heads, strict=True)
        self.layers = nn.ModuleList(ResidualHybridGroup(config, depth, heads) for depth, heads in groups)
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, HEAD_WIDTH, 3, padding=1), nn.LeakyReLU())
        self.upsample = upsampler(config.scale, HEAD_WIDTH)
        self.conv_last = nn.Conv2d(HEAD_WIDTH, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale)."""
        shallow = self.conv_first(x - self.mean)
        deep = self.conv_after_body(self.body(shallow)) + shallow
        return self.reconstruct(deep) + self.mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, 3, h·scale, w·scale)."""
        return self.conv_last(self.upsample(self.conv_before_upsample(x)))

    def body(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, dim, h, w)."""
        x = self.patch_embed(rearrange(x, "b c h w -> b h w c"))
        for layer in self.layers:
            x = layer(x)
        return rearrange(self.norm(x), "b h w c -> b c h w")


class ResidualHybridGroup(nn.Module):
    """Hybrid blocks, one overlapping cross-attention, a convolution, and the sum with the input (section 3.2.1)."""

    def __init__(self, config: HATConfig, depth: int, heads: int) -> None:
        super().__init__()
        shifts = (config.window // 2 * (i % 2) for i in range(depth))
        self.residual_group = HybridBlocks(
            [HybridBlock(config, heads, shift) for shift in shifts], OverlappingCrossAttention(config, heads)
        )
        self.conv = nn.Conv2d(config.dim, config.dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        deep = self.conv(rearrange(self.residual_group(x), "b h w c -> b c h w"))
        return x + rearrange(deep, "b c h w -> b h w c")


class HybridBlocks(BlockSequence):
    """Hybrid blocks, then the cross-attention, under their published names."""

    def __init__(self, blocks: list[HybridBlock], overlap_attn: OverlappingCrossAttention) -> None:
        super().__init__(blocks)
        self.overlap_attn = overlap_attn

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return self.overlap_attn(super().forward(x))


class HybridBlock(nn.Module):
    """Window attention and a convolution branch side by side, then an MLP (section 3.2.2, HAB)."""

    def __init__(self, config: HATConfig, heads: int, shift: int) -> None:
        super().__init__()
        self.conv_scale = config.conv_scale
        self.norm1 = nn.LayerNorm(config.dim)
        self.attn = WindowAttention(config.dim, heads, config.window, shift)
        self.conv_block = ConvolutionBranch(config.dim, config.compress, config.squeeze)
        self.norm2 = nn.LayerNorm(config.dim)
        self.mlp = Mlp(config.dim, int(config.dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        normed = self.norm1(x)
        x = x + self.attn(normed) + self.conv_scale * self.conv_block(normed)
        return x + self.mlp(self.norm2(x))


class ConvolutionBranch(nn.Module):
    """Two convolutions and a channel attention (section 3.2.2, CAB)."""

    def __init__(self, dim: int, compress: int, squeeze: int) -> None:
        super().__init__()
        self.cab = nn.Sequential(
            nn.Conv2d(dim, dim // compress, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(dim // compress, dim, 3, padding=1),
            ChannelAttention(dim, squeeze),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return rearrange(self.cab(rearrange(x, "b h w c -> b c h w")), "b c h w -> b h w c")


class ChannelAttention(nn.Module):
    """Weights channels by a function of their means over the picture (arXiv:1807.02758, section 3.3)."""

    def __init__(self, dim: int, squeeze: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, dim // squeeze, 1),
            nn.ReLU(),
            nn.Conv2d(dim // squeeze, dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return x * self.attention(x)


def overlapping_position_index(window: int, wide: int) -> Tensor:
    """Return (window², wide²) row indices of the bias table for each query px and each key px.

    With the published offset some indices are negative. They count from the end of the table, as in Python.
    """
    near = torch.arange(window)
    far = torch.arange(wide)
    offset, span = window - wide + 1, window + wide - 1
    delta = far[None] - near[:, None] + offset
    index = rearrange(delta, "y Y -> y 1 Y 1") * span + rearrange(delta, "x X -> 1 x 1 X")
    return rearrange(index, "y x Y X -> (y x) (Y X)") % span**2


class OverlappingCrossAttention(nn.Module):
    """Queries of a window attend to keys of a larger window around it; then an MLP (section 3.2.3, OCAB)."""

    def __init__(self, config: HATConfig, heads: int) -> None:
        super().__init__()
        dim, self.window, self.heads = config.dim, config.window, heads
        self.wide = config.window + int(config.window * config.overlap_ratio)
        if (self.wide - self.window) % 2:
            raise ValueError(f"overlap_ratio {config.overlap_ratio:g} does not surround {config.window} px evenly")
        self.margin = (self.wide - self.window) // 2
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((self.window + self.wide - 1) ** 2, heads))
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def position_bias(self) -> Tensor:
        """Return the relative position bias, (1, heads, window², wide²)."""
        index = overlapping_position_index(self.window, self.wide).to(self.relative_position_bias_table.device)
        return rearrange(self.relative_position_bias_table[index], "n m heads -> 1 heads n m")

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = x + self.cross_attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def cross_attention(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        attended = self.attend(split_heads(self.qkv(x), self.heads))
        return self.proj(rearrange(attended, "b h w heads d -> b h w (heads d)"))

    def attend(self, qkv: list[Tensor]) -> Tensor:
        """Return softmax(q·kᵀ/√d + bias)·v: three (b, h, w, heads, d) -> (b, h, w, heads, d)."""
        sides, scale = (self.window, self.window), qkv[0].shape[-1] ** -0.5
        return overlapping_window_attention(qkv, sides, self.margin, self.position_bias(), scale)
