"""EMT: striped-window attention mixed with shifts of pixels (Zheng et al. 2023, arXiv:2305.11403).

Parameter names are those of the published checkpoints. Masks of the authors' convolutions are written as shifts.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.ops.attention import window_attention
from restore_cli.weights.architectures import EMTConfig

__all__ = ["EMT", "MixedBlock", "PixelMixer", "ShiftMlp", "StripedAttention"]

DF2K_MEAN = (0.4690, 0.4490, 0.4036)
"""Mean RGB of DF2K in [0, 1]; the published checkpoints expect inputs without it."""


class EMT(nn.Module):
    """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale). The published weights expect values of 0 to 255."""

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

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale)."""
        shallow = self.head(255 * x - self.mean)
        deep = self.body(shallow)
        return (self.tail(deep + shallow) + self.mean) / 255


class MixedBlock(nn.Module):
    """Attention and pixel mixers, each followed by an MLP (section 3.2, MTB)."""

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
            x = mlp(mix(x))
        return x


class StripedAttention(nn.Module):
    """Self-attention in striped windows with a shortcut (section 3.3, SWSA).

    Each window form gets an equal share of the channels. Queries are also the keys. Scores have no scale and no bias,
    and shifted windows wrap around without a mask.
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
        return x + self.proj(torch.cat(mixed, 1))

    def attend(self, qv: Tensor, window: tuple[int, int]) -> Tensor:
        """Return softmax(q·qᵀ)·v: (b, 2·heads·d, h, w) -> (b, heads·d, h, w). Reflection pads to whole windows."""
        (h, w), (i, j) = qv.shape[2:], window
        qv = F.pad(qv, (0, -w % j, 0, -h % i), mode="reflect")
        parts = rearrange(qv, "b (t heads d) h w -> t b h w heads d", t=2, heads=self.heads)
        shift = (i // 2, j // 2) if self.shifted else (0, 0)
        out = window_attention(list(parts), window, shift, bias=None, scale=1.0)
        return rearrange(out, "b h w heads d -> b (heads d) h w")[..., :h, :w]


class PixelMixer(nn.Module):
    """Moves four fifths of the channels by one px, around the edges, with a shortcut (section 3.4, PM)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 5:
            raise ValueError(f"dim {dim} does not divide into five directions")
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        left, right, up, down, rest = rearrange(x, "b (c five) h w -> five b c h w", five=5)
        moved = [left.roll(-1, 3), right.roll(1, 3), up.roll(-1, 2), down.roll(1, 2), rest]
        return x + self.norm(rearrange(moved, "five b c h w -> b (c five) h w") - x)


class ShiftMlp(nn.Module):
    """Two shift convolutions with a SiLU between them, and a shortcut."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = ShiftConvolution(dim, hidden)
        self.fc2 = ShiftConvolution(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return x + self.fc2(F.silu(self.fc1(x)))


class ShiftConvolution(nn.Conv2d):
    """Moves channels by one px, fills with zeros, then convolves with 1×1 (ELAN, arXiv:2203.06697)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels_in, h, w) -> (b, channels_out, h, w)."""
        fifth = self.in_channels // 5
        left, right, up, down, rest = torch.split(x, [fifth] * 4 + [self.in_channels - 4 * fifth], 1)
        left, right = F.pad(left, (-1, 1, 0, 0)), F.pad(right, (1, -1, 0, 0))
        up, down = F.pad(up, (0, 0, -1, 1)), F.pad(down, (0, 0, 1, -1))
        return super().forward(torch.cat([left, right, up, down, rest], 1))
