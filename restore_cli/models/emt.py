"""EMT: striped-window attention mixed with pixel moves (Zheng et al. 2023, arXiv:2305.11403)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.contract import Contract

__all__ = ["EMT", "EMTConfig"]

DF2K_MEAN = (0.4690, 0.4490, 0.4036)
"""Mean RGB of DF2K in [0, 1]; the published checkpoints expect inputs without it."""


@dataclass(frozen=True)
class EMTConfig:
    """Hyperparameters of a published form."""

    scale: int
    dim: int
    blocks: int
    layers: int
    """layers per block"""
    attention_layers: int
    """the first layers of a block attend to windows, the rest move pixels"""
    heads: int
    mlp_ratio: float
    windows: tuple[tuple[int, int], ...]
    """sides (h, w) of the windows; the channels are shared out between them"""


class EMT(nn.Module):
    """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale); the published weights work on 0..255."""

    mean: Tensor

    def __init__(self, config: EMTConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", 255 * torch.tensor(DF2K_MEAN, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.head = nn.Conv2d(3, config.dim, 3, padding=1)
        self.body = nn.Sequential(*(MixedBlock(config) for _ in range(config.blocks)))
        self.tail = nn.Sequential(
            nn.Conv2d(config.dim, 3 * config.scale**2, 3, padding=1),
            nn.PixelShuffle(config.scale),
        )

    @property
    def contract(self) -> Contract:
        """Windows roll around the tile's edges, so tiles need context to throw away.

        The attention reflects its features up to whole windows: less than half a window would be too few.
        """
        grid = max(side for window in self.config.windows for side in window)
        return Contract(self.config.scale, 3, grid, multiple=1, minimum=grid // 2 + 1, overlap=grid, tile=None)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale)."""
        shallow = self.head(255 * x - self.mean)
        return (self.tail(self.body(shallow) + shallow) + self.mean) / 255


class MixedBlock(nn.Module):
    """Layers that mix pixels, by attention or by moves, each followed by an MLP (section 3.2, MTB)."""

    def __init__(self, config: EMTConfig) -> None:
        super().__init__()
        self.sa_list = nn.ModuleList(
            StripedAttention(config, shifted=i % 2 == 1) if i < config.attention_layers else PixelMixer(config.dim)
            for i in range(config.layers)
        )
        hidden = int(config.dim * config.mlp_ratio)
        self.mlp_list = nn.ModuleList(ShiftMlp(config.dim, hidden) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        for mix, mlp in zip(self.sa_list, self.mlp_list, strict=True):
            x = x + mix(x)
            x = x + mlp(x)
        return x


class StripedAttention(nn.Module):
    """Self-attention in striped windows, queries serving as keys, one share of the channels per window form.

    Section 3.3, SWSA. Scores are neither scaled nor biased; shifted windows wrap around unmasked.
    """

    def __init__(self, config: EMTConfig, shifted: bool) -> None:
        super().__init__()
        dim, shares = config.dim, len(config.windows)
        if dim % (shares * config.heads):
            raise ValueError(f"dim {dim} does not divide into {shares} windows of {config.heads} heads")
        self.heads, self.windows, self.shifted = config.heads, config.windows, shifted
        self.attn = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.BatchNorm2d(2 * dim))
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        shares = self.attn(x).chunk(len(self.windows), 1)
        mixed = [self.attend(share, window) for share, window in zip(shares, self.windows, strict=True)]
        return self.proj(torch.cat(mixed, 1))

    def attend(self, qv: Tensor, window: tuple[int, int]) -> Tensor:
        """(b, 2·c, h, w) -> (b, c, h, w); sides are reflected up to whole windows, as published."""
        h, w = qv.shape[-2:]
        i, j = window
        if h % i or w % j:
            qv = F.pad(qv, (0, -w % j, 0, -h % i), mode="reflect")
        if self.shifted:
            qv = qv.roll((i // 2, j // 2), (2, 3))
        split = "b (t heads d) (y i) (x j) -> t (b y x) heads (i j) d"
        q, v = rearrange(qv, split, t=2, heads=self.heads, i=i, j=j)
        out = F.scaled_dot_product_attention(q, q, v, scale=1.0)
        grid = {"y": qv.shape[-2] // i, "x": qv.shape[-1] // j, "i": i}
        out = rearrange(out, "(b y x) heads (i j) d -> b (heads d) (y i) (x j)", **grid)
        if self.shifted:
            out = out.roll((-(i // 2), -(j // 2)), (2, 3))
        return out[..., :h, :w]


class PixelMixer(nn.Module):
    """Every fifth channel moves by a pixel left, right, up, down, or not at all, around the edges (section 3.4, PM)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 5:
            raise ValueError(f"dim {dim} does not divide into five directions")
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        left, right, up, down, still = rearrange(x, "b (c way) h w -> way b c h w", way=5)
        moved = (left.roll(-1, 3), right.roll(1, 3), up.roll(-1, 2), down.roll(1, 2), still)
        return self.norm(torch.stack(moved, 2).flatten(1, 2) - x)


class ShiftMlp(nn.Module):
    """Two shift convolutions with a SiLU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = ShiftConvolution(dim, hidden)
        self.fc2 = ShiftConvolution(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return self.fc2(F.silu(self.fc1(x)))


class ShiftConvolution(nn.Conv2d):
    """A 1×1 convolution after a fifth of the channels each moved left, right, up, down (ELAN, arXiv:2203.06697)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels_in, h, w) -> (b, channels_out, h, w); zeros move in."""
        fifth = self.in_channels // 5
        left, right, up, down, still = torch.split(x, [fifth] * 4 + [self.in_channels - 4 * fifth], 1)
        moved = [
            F.pad(left, (-1, 1, 0, 0)),
            F.pad(right, (1, -1, 0, 0)),
            F.pad(up, (0, 0, -1, 1)),
            F.pad(down, (0, 0, 1, -1)),
            still,
        ]
        return super().forward(torch.cat(moved, 1))
