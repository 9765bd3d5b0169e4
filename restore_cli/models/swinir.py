"""SwinIR: image restoration with shifted-window attention (Liang et al. 2021, arXiv:2108.10257)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.contract import Contract
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
    in_float32,
    in_row_strips,
    residual_in_chunks,
    to_residual_dtype,
    upsampler,
)
from restore_cli.weights.architectures import SwinIRConfig

__all__ = ["SwinIR"]


class SwinIR(nn.Module):
    """(b, c, h, w) in [0, 1] -> (b, c, h·scale, w·scale); h and w are multiples of the window."""

    mean: Tensor

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        self.config = config
        dim, channels = config.dim, config.channels
        mean = DIV2K_MEAN if channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean, device="cpu").view(1, channels, 1, 1), persistent=False)
        self.conv_first = Conv2d(channels, dim, 3, padding=1)
        self.patch_embed = PatchNorm(dim)
        groups = zip(config.depths, config.heads, strict=True)
        self.layers = nn.ModuleList(ResidualTransformerBlock(config, depth, heads) for depth, heads in groups)
        self.norm = LayerNorm(dim)
        self.conv_after_body = residual_convolution(config)
        self.add_head(config)

    def add_head(self, config: SwinIRConfig) -> None:
        """Add the layers after the body, under their published names. Raises ValueError for an unknown head."""
        scale, dim, channels = config.scale, config.dim, config.channels
        if config.head in ("pixelshuffle", "nearest+conv"):
            self.conv_before_upsample = nn.Sequential(Conv2d(dim, HEAD_WIDTH, 3, padding=1), nn.LeakyReLU())
        if config.head == "pixelshuffle":
            self.upsample = upsampler(scale, HEAD_WIDTH)
        elif config.head == "pixelshuffledirect":
            self.upsample = nn.Sequential(Conv2d(dim, scale**2 * channels, 3, padding=1), nn.PixelShuffle(scale))
        elif config.head == "nearest+conv":
            if scale not in (2, 4):
                raise ValueError(f"head nearest+conv at ×{scale}: expected ×2 or ×4")
            self.conv_up1 = Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1)
            self.conv_up2 = Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1) if scale == 4 else None
            self.conv_hr = Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1)
        elif config.head or scale != 1:
            raise ValueError(f"head {config.head!r} at ×{scale} is not a published combination")
        if config.head != "pixelshuffledirect":
            self.conv_last = Conv2d(HEAD_WIDTH if config.head else dim, channels, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """Windows shift within the picture, so tiles need context, but no particular size."""
        c = self.config
        w = c.window
        head = c.channels if c.head == "pixelshuffledirect" else HEAD_WIDTH
        floats = ACTIVATION_FLOATS * c.dim + head * c.scale**2
        return Contract(
            c.scale,
            c.channels,
            tile_multiple=w,
            pad_multiple=w,
            minimum=w,
            overlap=4 * w,
            tile=None,
            activation_floats_per_px=floats,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) in [0, 1] -> (b, c, h·scale, w·scale)."""
        x = (x - self.mean) * self.config.value_range
        shallow = in_float32(self.conv_first, x)
        deep = in_float32(self.conv_after_body, self.body(to_residual_dtype(shallow))) + shallow
        out = (
            in_row_strips(self.reconstruct, deep, self.config.scale)
            if self.config.head
            else x + in_float32(self.conv_last, deep)
        )
        return out / self.config.value_range + self.mean

    def body(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, dim, h, w)."""
        x = self.patch_embed(channels_last(x))
        for layer in self.layers:
            x = layer(x)
        return channels_first(self.norm(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, c, h·scale, w·scale)."""
        if self.config.head == "pixelshuffledirect":
            return in_float32(self.upsample, x)
        x = self.conv_before_upsample(x)
        if self.config.head == "pixelshuffle":
            x = self.upsample(x)
        else:
            for convolution in filter(None, (self.conv_up1, self.conv_up2)):
                x = F.leaky_relu(convolution(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
            x = F.leaky_relu(self.conv_hr(x), 0.2)
        return self.conv_last(x)


def residual_convolution(config: SwinIRConfig) -> nn.Module:
    """Return one convolution, or the three of the large model, (b, dim, h, w) -> (b, dim, h, w)."""
    dim = config.dim
    if config.residual == "1conv":
        return Conv2d(dim, dim, 3, padding=1)
    if config.residual != "3conv":
        raise ValueError(f"residual {config.residual!r}: expected 1conv or 3conv")
    return nn.Sequential(
        Conv2d(dim, dim // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        Conv2d(dim // 4, dim, 3, padding=1),
    )


class ResidualTransformerBlock(nn.Module):
    """Transformer blocks, a convolution, and the sum with the input (section 3.2, RSTB)."""

    def __init__(self, config: SwinIRConfig, depth: int, heads: int) -> None:
        super().__init__()
        shifts = (config.window // 2 * (i % 2) for i in range(depth))
        self.residual_group = BlockSequence(TransformerLayer(config, heads, shift) for shift in shifts)
        self.conv = residual_convolution(config)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return x + channels_last(self.conv(channels_first(self.residual_group(x))))


class TransformerLayer(nn.Module):
    """Window attention, then an MLP, each after a layer norm and with a shortcut (section 3.2, STL)."""

    def __init__(self, config: SwinIRConfig, heads: int, shift: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.dim)
        self.attn = WindowAttention(config.dim, heads, config.window, shift)
        self.norm2 = LayerNorm(config.dim)
        self.mlp = Mlp(config.dim, int(config.dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = x + self.attn(self.norm1(x))
        return residual_in_chunks(x, lambda part: self.mlp(self.norm2(part)))
