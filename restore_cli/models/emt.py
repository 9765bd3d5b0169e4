"""EMT: striped-window attention mixed with shifts of pixels (Zheng et al. 2023, arXiv:2305.11403)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.contract import Contract
from restore_cli.models.attention import window_attention
from restore_cli.models.convolution import Conv2d, convolve
from restore_cli.models.layers import (
    ACTIVATION_FLOATS,
    Activation,
    channels_first,
    channels_last,
    in_float32,
    linear,
    to_residual_dtype,
)
from restore_cli.weights.architectures import EMTConfig

__all__ = ["EMT"]

DF2K_MEAN = (0.4690, 0.4490, 0.4036)
"""Mean RGB of DF2K in [0, 1]; the published checkpoints expect inputs without it."""

BATCH_NORM_EPSILON = 1e-5
"""Added to the variance under the root of the batch norm; the published value."""


class EMT(nn.Module):
    """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale). The published weights expect values of 0 to 255."""

    mean: Tensor

    def __init__(self, config: EMTConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", 255 * torch.tensor(DF2K_MEAN, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.head = Conv2d(3, config.dim, 3, padding=1)
        self.body = nn.Sequential(*(MixedBlock(config) for _ in range(config.blocks)))
        self.tail = nn.Sequential(
            Conv2d(config.dim, 3 * config.scale**2, 3, padding=1),
            nn.PixelShuffle(config.scale),
        )

    @property
    def contract(self) -> Contract:
        """Windows wrap around the edges of a tile, so tiles need context that is discarded.

        The attention pads its features to whole windows by reflection, which needs more than half a window.
        """
        longest = max(side for window in self.config.windows for side in window)
        scale, least = self.config.scale, longest // 2 + 1
        floats = ACTIVATION_FLOATS * self.config.dim + 3 * scale**2
        return Contract(
            scale,
            3,
            longest,
            pad_multiple=1,
            minimum=least,
            overlap=longest,
            tile=None,
            activation_floats_per_px=floats,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale)."""
        shallow = in_float32(self.head, 255 * x - self.mean)
        deep = channels_first(self.body(channels_last(to_residual_dtype(shallow)).contiguous()))
        return (in_float32(self.tail, deep + shallow) + self.mean) / 255


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
        """(b, h, w, c) -> (b, h, w, c)."""
        for mix, mlp in zip(self.sa_list, self.mlp_list, strict=True):
            x = mlp(mix(x))
        return x


def affine_of_norm(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the (scale, offset) that a batch norm with final statistics applies to each channel."""
    scale = norm.get_parameter("weight") * torch.rsqrt(norm.get_buffer("running_var") + BATCH_NORM_EPSILON)
    return scale, norm.get_parameter("bias") - norm.get_buffer("running_mean") * scale


class StripedAttention(nn.Module):
    """Self-attention in striped windows with a shortcut (section 3.3, SWSA).

    Each window form gets an equal share of the channels. Queries are also the keys. Scores have no scale and no bias,
    and shifted windows wrap around without a mask.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, config: EMTConfig, shifted: bool) -> None:
        super().__init__()
        dim, shares = config.dim, len(config.windows)
        if dim % (shares * config.heads):
            raise ValueError(f"dim {dim} does not divide into {shares} windows of {config.heads} heads")
        self.heads, self.windows, self.shifted = config.heads, config.windows, shifted
        self.attn = nn.Sequential(Conv2d(dim, 2 * dim, 1), nn.BatchNorm2d(2 * dim))
        self.proj = nn.Sequential(Conv2d(dim, dim, 1))
        self.register_buffer("weight", None, persistent=False)
        self.register_buffer("bias", None, persistent=False)

    def fold_weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights (2·c, c) and biases (2·c,) of the first convolution with the batch norm folded in."""
        scale, offset = affine_of_norm(self.attn[1])
        weight = self.attn.get_parameter("0.weight")[..., 0, 0] * scale[:, None]
        return weight, self.attn.get_parameter("0.bias") * scale + offset

    def prepare(self) -> None:
        """Fold the weights once, because they are final."""
        self.weight, self.bias = self.fold_weights()

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        weight, bias = self.fold_weights() if self.weight is None else (self.weight, self.bias)
        shares = linear(x, weight, bias).chunk(len(self.windows), -1)
        mixed = torch.cat([self.attend(*share) for share in zip(shares, self.windows, strict=True)], -1)
        return x + linear(mixed, self.proj.get_parameter("0.weight")[..., 0, 0], self.proj.get_parameter("0.bias"))

    def attend(self, qv: Tensor, window: tuple[int, int]) -> Tensor:
        """Attend in windows: (b, h, w, 2·heads·d) -> (b, h, w, heads·d). As published, reflection pads the sides."""
        h, w = qv.shape[1:3]
        i, j = window
        if h % i or w % j:
            qv = channels_last(F.pad(channels_first(qv), (0, -w % j, 0, -h % i), mode="reflect"))
        shift = (i // 2, j // 2) if self.shifted else (0, 0)
        parts = rearrange(qv, "b h w (t heads d) -> t b h w heads d", t=2, heads=self.heads)
        return window_attention(list(parts), window, shift, None, scale=1.0).flatten(3)[:, :h, :w]


DIRECTIONS = slice(0, None, 5), slice(1, None, 5), slice(2, None, 5), slice(3, None, 5)
"""The channels that PixelMixer shifts left, right, up and down."""


class PixelMixer(nn.Module):
    """Shifts a fifth of the channels by one px left, right, up, down each, around the edges (section 3.4, PM).

    The shift, the difference with the input, the batch norm and the shortcut are one depthwise convolution.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 5:
            raise ValueError(f"dim {dim} does not divide into five directions")
        self.norm = nn.BatchNorm2d(dim)
        self.register_buffer("weight", None, persistent=False)
        self.register_buffer("bias", None, persistent=False)

    def fold_weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights (c, 1, 3, 3) and biases (c,) of the depthwise convolution."""
        scale, offset = affine_of_norm(self.norm)
        weight = torch.zeros(len(scale), 1, 3, 3, device=scale.device)
        for channels, (y, x) in zip(DIRECTIONS, [(1, 2), (1, 0), (2, 1), (0, 1)], strict=True):
            weight[channels, 0, y, x] = scale[channels]
            weight[channels, 0, 1, 1] = -scale[channels]
        weight[:, :, 1, 1] += 1
        return weight, offset

    def prepare(self) -> None:
        """Fold the weights once, because they are final."""
        self.weight, self.bias = self.fold_weights()

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c), with the shortcut."""
        weight, bias = self.fold_weights() if self.weight is None else (self.weight, self.bias)
        out = channels_last(convolve(channels_first(x), weight, bias, groups=x.shape[-1]))
        # the convolution shifts zeros in, where pixels of the opposite edge belong
        left, right, up, down = DIRECTIONS
        out[:, :, -1, left] += weight[left, 0, 1, 2] * x[:, :, 0, left]
        out[:, :, 0, right] += weight[right, 0, 1, 0] * x[:, :, -1, right]
        out[:, -1, :, up] += weight[up, 0, 2, 1] * x[:, 0, :, up]
        out[:, 0, :, down] += weight[down, 0, 0, 1] * x[:, -1, :, down]
        return out


class ShiftMlp(nn.Module):
    """Two shift convolutions with a SiLU between them, and a shortcut."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = ShiftConvolution(dim, hidden)
        self.fc2 = ShiftConvolution(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return x + self.fc2(self.fc1(x, "swish"))


class ShiftConvolution(nn.Conv2d):
    """A 1×1 convolution of channels that were shifted left, right, up and down (ELAN, arXiv:2203.06697)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """(b, h, w, channels_in) -> (b, h, w, channels_out)."""
        return linear(shift_channels(x), self.weight[..., 0, 0], self.bias, activation)


def shift_channels(x: Tensor) -> Tensor:
    """Shift a fifth of the channels by one px left, right, up, down each, and fill with zeros: (b, h, w, c)."""
    fifth = x.shape[-1] // 5
    left, right, up, down = (slice(way * fifth, (way + 1) * fifth) for way in range(4))
    out = torch.empty_like(x)
    out[:, :, :-1, left], out[:, :, -1, left] = x[:, :, 1:, left], 0
    out[:, :, 1:, right], out[:, :, 0, right] = x[:, :, :-1, right], 0
    out[:, :-1, :, up], out[:, -1, :, up] = x[:, 1:, :, up], 0
    out[:, 1:, :, down], out[:, 0, :, down] = x[:, :-1, :, down], 0
    out[..., 4 * fifth :] = x[..., 4 * fifth :]
    return out
