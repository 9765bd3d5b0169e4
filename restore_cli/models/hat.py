"""HAT: window attention, channel attention and overlapping cross-attention (Chen et al. 2022, arXiv:2205.04437)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from restore_cli.contract import Contract
from restore_cli.models.attention import overlapping_window_attention
from restore_cli.models.convolution import Conv2d
from restore_cli.models.layers import (
    ACTIVATION_FLOATS,
    DIV2K_MEAN,
    HEAD_WIDTH,
    BlockSequence,
    LayerNorm,
    Mlp,
    PatchNorm,
    WindowAttention,
    channels_first,
    channels_last,
    in_row_strips,
    linear,
    residual_in_chunks,
    to_residual_dtype,
    upsampler,
)
from restore_cli.weights.architectures import HATConfig

__all__ = ["HAT"]


class HAT(nn.Module):
    """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale); h and w are multiples of the window."""

    mean: Tensor

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.conv_first = Conv2d(3, dim, 3, padding=1)
        self.patch_embed = PatchNorm(dim)
        groups = zip(config.depths, config.heads, strict=True)
        self.layers = nn.ModuleList(ResidualHybridGroup(config, depth, heads) for depth, heads in groups)
        self.norm = LayerNorm(dim)
        self.conv_after_body = Conv2d(dim, dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(Conv2d(dim, HEAD_WIDTH, 3, padding=1), nn.LeakyReLU())
        self.upsample = upsampler(config.scale, HEAD_WIDTH)
        self.conv_last = Conv2d(HEAD_WIDTH, 3, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """Channel attention averages over the tile, so the tile should be large enough to represent the picture."""
        w, scale = self.config.window, self.config.scale
        floats = ACTIVATION_FLOATS * self.config.dim + HEAD_WIDTH * scale**2
        return Contract(
            scale,
            3,
            tile_multiple=w,
            pad_multiple=w,
            minimum=w,
            overlap=2 * w,
            tile=32 * w,
            activation_floats_per_px=floats,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale)."""
        shallow = self.conv_first(x - self.mean)
        deep = self.conv_after_body(self.body(to_residual_dtype(shallow))) + shallow
        return in_row_strips(self.reconstruct, deep, self.config.scale) + self.mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, 3, h·scale, w·scale)."""
        return self.conv_last(self.upsample(self.conv_before_upsample(x)))

    def body(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, dim, h, w)."""
        x = self.patch_embed(channels_last(x))
        for layer in self.layers:
            x = layer(x)
        return channels_first(self.norm(x))


class ResidualHybridGroup(nn.Module):
    """Hybrid blocks, one overlapping cross-attention, a convolution, and the sum with the input (section 3.2.1)."""

    def __init__(self, config: HATConfig, depth: int, heads: int) -> None:
        super().__init__()
        shifts = (config.window // 2 * (i % 2) for i in range(depth))
        self.residual_group = HybridBlocks(
            [HybridBlock(config, heads, shift) for shift in shifts], OverlappingCrossAttention(config, heads)
        )
        self.conv = Conv2d(config.dim, config.dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return x + channels_last(self.conv(channels_first(self.residual_group(x))))


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
        self.norm1 = LayerNorm(config.dim)
        self.attn = WindowAttention(config.dim, heads, config.window, shift)
        self.conv_block = ConvolutionBranch(config.dim, config.compress, config.squeeze)
        self.norm2 = LayerNorm(config.dim)
        self.mlp = Mlp(config.dim, int(config.dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        normed = self.norm1(x)
        x = torch.add(x + self.attn(normed), self.conv_block(normed), alpha=self.conv_scale)
        return residual_in_chunks(x, lambda part: self.mlp(self.norm2(part)))


class ConvolutionBranch(nn.Module):
    """Two convolutions and a channel attention (section 3.2.2, CAB)."""

    def __init__(self, dim: int, compress: int, squeeze: int) -> None:
        super().__init__()
        self.cab = nn.Sequential(
            Conv2d(dim, dim // compress, 3, padding=1),
            nn.GELU(),
            Conv2d(dim // compress, dim, 3, padding=1),
            ChannelAttention(dim, squeeze),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return channels_last(self.cab(channels_first(x)))


class ChannelAttention(nn.Module):
    """Weights channels by a function of their means over the picture (arXiv:1807.02758, section 3.2)."""

    def __init__(self, dim: int, squeeze: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            Conv2d(dim, dim // squeeze, 1),
            nn.ReLU(),
            Conv2d(dim // squeeze, dim, 1),
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

    bias: Tensor | None

    def __init__(self, config: HATConfig, heads: int) -> None:
        super().__init__()
        dim, self.window, self.heads = config.dim, config.window, heads
        self.wide = config.window + int(config.window * config.overlap_ratio)
        self.norm1 = LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((self.window + self.wide - 1) ** 2, heads))
        self.proj = nn.Linear(dim, dim)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.register_buffer("bias", None, persistent=False)

    def additive_bias(self) -> Tensor:
        """Return the relative position bias, (1, heads, window², wide²)."""
        index = overlapping_position_index(self.window, self.wide).to(self.relative_position_bias_table.device)
        return rearrange(self.relative_position_bias_table[index], "n m heads -> 1 heads n m")

    def prepare(self) -> None:
        """Compute the bias once, because the weights are final."""
        self.bias = self.additive_bias().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        split = "b h w (t heads d) -> t b h w heads d"
        qkv = rearrange(linear(self.norm1(x), self.qkv.weight, self.qkv.bias), split, t=3, heads=self.heads)
        bias = self.additive_bias() if self.bias is None else self.bias
        sides, margin = (self.window, self.window), (self.wide - self.window) // 2
        out = overlapping_window_attention(list(qkv), sides, margin, bias, scale=qkv.shape[-1] ** -0.5)
        x = x + linear(out.flatten(3), self.proj.weight, self.proj.bias)
        return residual_in_chunks(x, lambda part: self.mlp(self.norm2(part)))
