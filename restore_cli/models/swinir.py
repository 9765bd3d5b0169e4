"""SwinIR: image restoration with shifted-window attention (Liang et al. 2021, arXiv:2108.10257)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import (
    DIV2K_MEAN,
    HEAD_WIDTH,
    BlockSequence,
    Mlp,
    PatchNorm,
    WindowAttention,
    upsampler,
)
from restore_cli.weights.architectures import SwinIRConfig

__all__ = ["SwinIR", "TransformerLayer"]


class SwinIR(nn.Module):
    """(b, c, h, w) in [0, 1] -> (b, c, h·scale, w·scale); h and w are multiples of the window."""

    mean: Tensor

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        self.config = config
        dim, channels = config.dim, config.channels
        mean = DIV2K_MEAN if channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean, device="cpu").view(1, channels, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(channels, dim, 3, padding=1)
        self.patch_embed = PatchNorm(dim)
        groups = zip(config.depths, config.heads, strict=True)
        self.layers = nn.ModuleList(ResidualTransformerBlock(config, depth, heads) for depth, heads in groups)
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = residual_convolution(config)
        self.add_head(config)

    def add_head(self, config: SwinIRConfig) -> None:
        """Add the layers after the body, under their published names. Raises ValueError for an unknown head."""
        scale, dim, channels = config.scale, config.dim, config.channels
        if config.head in ("pixelshuffle", "nearest+conv"):
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, HEAD_WIDTH, 3, padding=1), nn.LeakyReLU())
        if config.head == "pixelshuffle":
            self.upsample = upsampler(scale, HEAD_WIDTH)
        elif config.head == "pixelshuffledirect":
            self.upsample = nn.Sequential(nn.Conv2d(dim, scale**2 * channels, 3, padding=1), nn.PixelShuffle(scale))
        elif config.head == "nearest+conv":
            if scale not in (2, 4):
                raise ValueError(f"head nearest+conv at ×{scale}: expected ×2 or ×4")
            self.conv_up1 = nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1)
            self.conv_up2 = nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1) if scale == 4 else None
            self.conv_hr = nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1)
        elif config.head or scale != 1:
            raise ValueError(f"head {config.head!r} at ×{scale} is not a published combination")
        if config.head != "pixelshuffledirect":
            self.conv_last = nn.Conv2d(HEAD_WIDTH if config.head else dim, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) in [0, 1] -> (b, c, h·scale, w·scale)."""
        x = (x - self.mean) * self.config.value_range
        shallow = self.conv_first(x)
        deep = self.conv_after_body(self.body(shallow)) + shallow
        out = self.reconstruct(deep) if self.config.head else x + self.conv_last(deep)
        return out / self.config.value_range + self.mean

    def body(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, dim, h, w)."""
        x = self.patch_embed(rearrange(x, "b c h w -> b h w c"))
        for layer in self.layers:
            x = layer(x)
        return rearrange(self.norm(x), "b h w c -> b c h w")

    def reconstruct(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, c, h·scale, w·scale)."""
        if self.config.head == "pixelshuffledirect":
            return self.upsample(x)
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
        return nn.Conv2d(dim, dim, 3, padding=1)
    if config.residual != "3conv":
        raise ValueError(f"residual {config.residual!r}: expected 1conv or 3conv")
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, padding=1),
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
        deep = self.conv(rearrange(self.residual_group(x), "b h w c -> b c h w"))
        return x + rearrange(deep, "b c h w -> b h w c")


class TransformerLayer(nn.Module):
    """Window attention, then an MLP, each after a layer norm and with a shortcut (section 3.2, STL)."""

    def __init__(self, config: SwinIRConfig, heads: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attn = WindowAttention(config.dim, heads, config.window, shift)
        self.norm2 = nn.LayerNorm(config.dim)
        self.mlp = Mlp(config.dim, int(config.dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
