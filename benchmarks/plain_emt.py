"""EMT as in its paper (arXiv:2305.11403): masks as convolutions, attention in three passes. The peer of our EMT.

Parameters have the names of the published checkpoints, so one state dict fits both.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.emt import DF2K_MEAN
from restore_cli.weights.architectures import EMTConfig

__all__ = ["PlainEMT"]

MOVES = ((1, 2), (1, 0), (2, 1), (0, 1), (1, 1))
"""(row, column) of the single 1 in a 3×3 mask: move left, right, up, down, or not at all."""


class PlainEMT(nn.Module):
    """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale)."""

    mean: Tensor

    def __init__(self, config: EMTConfig) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(DF2K_MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Conv2d(3, config.dim, 3, padding=1)
        self.body = nn.Sequential(*(PlainBlock(config) for _ in range(config.blocks)))
        self.tail = nn.Sequential(
            nn.Conv2d(config.dim, 3 * config.scale**2, 3, padding=1), nn.PixelShuffle(config.scale)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale)."""
        shallow = self.head(255 * x - self.mean)
        out: Tensor = (self.tail(self.body(shallow) + shallow) + self.mean) / 255
        return out


class PlainBlock(nn.Module):
    """Section 3.2: the mixed transformer block (MTB)."""

    def __init__(self, config: EMTConfig) -> None:
        super().__init__()
        self.sa_list = nn.ModuleList(
            PlainAttention(config, i % 2 == 1) if i < config.attention_layers else PlainMixer(config.dim)
            for i in range(config.layers)
        )
        hidden = int(config.dim * config.mlp_ratio)
        self.mlp_list = nn.ModuleList(PlainMlp(config.dim, hidden) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        for mix, mlp in zip(self.sa_list, self.mlp_list, strict=True):
            x = x + mix(x)
            x = x + mlp(x)
        return x


class PlainAttention(nn.Module):
    """Section 3.3: SWSA. Scores, softmax and sum are three passes. Sides must be multiples of the windows."""

    def __init__(self, config: EMTConfig, shifted: bool) -> None:
        super().__init__()
        self.heads, self.windows, self.shifted = config.heads, config.windows, shifted
        self.attn = nn.Sequential(nn.Conv2d(config.dim, 2 * config.dim, 1), nn.BatchNorm2d(2 * config.dim))
        self.proj = nn.Sequential(nn.Conv2d(config.dim, config.dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        shares = self.attn(x).chunk(len(self.windows), 1)
        mixed = [self.attend(share, *window) for share, window in zip(shares, self.windows, strict=True)]
        out: Tensor = self.proj(torch.cat(mixed, 1))
        return out

    def attend(self, qv: Tensor, i: int, j: int) -> Tensor:
        """(b, 2·c, h, w) -> (b, c, h, w)."""
        if self.shifted:
            qv = qv.roll((i // 2, j // 2), (2, 3))
        q, v = rearrange(qv, "b (t heads d) (y i) (x j) -> t (b y x) heads (i j) d", t=2, heads=self.heads, i=i, j=j)
        out: Tensor = (q @ q.mT).softmax(-1) @ v
        grid = {"y": qv.shape[2] // i, "x": qv.shape[3] // j, "i": i}
        out = rearrange(out, "(b y x) heads (i j) d -> b (heads d) (y i) (x j)", **grid)
        if self.shifted:
            out = out.roll((-(i // 2), -(j // 2)), (2, 3))
        return out


class PlainMixer(nn.Module):
    """Section 3.4: the pixel mixer (PM), a depthwise convolution with constant masks."""

    mask: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)
        self.register_buffer("mask", make_masks(dim, torch.arange(dim) % 5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        around = F.pad(x, (1, 1, 1, 1), mode="circular")
        out: Tensor = self.norm(F.conv2d(around, self.mask, groups=x.shape[1]) - x)
        return out


class PlainMlp(nn.Module):
    """Two shift convolutions with a SiLU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = PlainShift(dim, hidden), PlainShift(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        out: Tensor = self.fc2(F.silu(self.fc1(x)))
        return out


class PlainShift(nn.Conv2d):
    """A depthwise convolution with constant masks, then a 1×1 convolution (arXiv:2203.06697)."""

    mask: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)
        ways = (torch.arange(channels_in) // (channels_in // 5)).clamp(max=4)
        self.register_buffer("mask", make_masks(channels_in, ways), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels_in, h, w) -> (b, channels_out, h, w)."""
        return super().forward(F.conv2d(x, self.mask, padding=1, groups=self.in_channels))


def make_masks(channels: int, ways: Tensor) -> Tensor:
    """Return masks (channels, 1, 3, 3), each with a single 1. `ways` gives its index in MOVES for each channel."""
    mask = torch.zeros(channels, 1, 3, 3)
    for channel, way in enumerate(ways.tolist()):
        y, x = MOVES[way]
        mask[channel, 0, y, x] = 1
    return mask
