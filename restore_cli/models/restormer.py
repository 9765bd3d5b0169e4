"""Restormer: attention across channels in a U-shaped network (Zamir et al. 2021, arXiv:2111.09881)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.weights.architectures import RestormerConfig

__all__ = ["ChannelNorm", "GatedFeedForward", "Level", "Restormer", "TransformerBlock", "TransposedAttention"]

LAYER_NORM_EPSILON = 1e-5
"""Added to the variance under the root of the layer norm; the published value."""


class Restormer(nn.Module):
    """(b, c, h, w) in [0, 1] -> (b, channels_out, h, w); h and w are multiples of 8."""

    def __init__(self, config: RestormerConfig) -> None:
        super().__init__()
        self.config = config
        dim, blocks, heads = config.dim, config.blocks, config.heads

        def level(width: int, count: int, heads: int) -> Level:
            return Level(*(TransformerBlock(width, heads, config.expansion, config.norm_bias) for _ in range(count)))

        self.patch_embed = PatchEmbedding(config.channels_in, dim)
        self.encoder_level1 = level(dim, blocks[0], heads[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = level(2 * dim, blocks[1], heads[1])
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = level(4 * dim, blocks[2], heads[2])
        self.down3_4 = Downsample(4 * dim)
        self.latent = level(8 * dim, blocks[3], heads[3])
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=False)
        self.decoder_level3 = level(4 * dim, blocks[2], heads[2])
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=False)
        self.decoder_level2 = level(2 * dim, blocks[1], heads[1])
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = level(2 * dim, blocks[0], heads[0])
        self.refinement = level(2 * dim, config.refinement, heads[0])
        self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=False) if config.dual_pixel else None
        self.output = nn.Conv2d(2 * dim, config.channels_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) in [0, 1] -> (b, channels_out, h, w)."""
        if self.skip_conv is None:
            return x + self.output(self.refinement(self.body(self.patch_embed(x))))
        shallow = self.patch_embed(x)
        return self.output(self.refinement(self.body(shallow)) + self.skip_conv(shallow))

    def body(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, 2·dim, h, w): four levels down and up again, with a shortcut at each."""
        skips = [self.encoder_level1(x)]
        skips.append(self.encoder_level2(self.down1_2(skips[-1])))
        skips.append(self.encoder_level3(self.down2_3(skips[-1])))
        x = self.latent(self.down3_4(skips[-1]))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(x), skips.pop()], 1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), skips.pop()], 1)))
        return self.decoder_level1(torch.cat([self.up2_1(x), skips.pop()], 1))


class PatchEmbedding(nn.Module):
    """The first convolution, under its published name."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, dim, h, w)."""
        return self.proj(x)


class Downsample(nn.Module):
    """(b, c, h, w) -> (b, 2·c, h/2, w/2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, 2·c, h/2, w/2)."""
        return self.body(x)


class Upsample(nn.Module):
    """(b, c, h, w) -> (b, c/2, 2·h, 2·w)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c/2, 2·h, 2·w)."""
        return self.body(x)


class Level(nn.Sequential):
    """Transformer blocks at one resolution: (b, c, h, w) -> (b, c, h, w)."""


class TransformerBlock(nn.Module):
    """Channel attention, then a gated feed-forward part, each after a layer norm and with a shortcut."""

    def __init__(self, dim: int, heads: int, expansion: float, norm_bias: bool) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim, norm_bias)
        self.attn = TransposedAttention(dim, heads)
        self.norm2 = ChannelNorm(dim, norm_bias)
        self.ffn = GatedFeedForward(dim, int(dim * expansion))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel. The published checkpoints keep its parameters under `body`."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.body = Affine(dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w). Without a bias the mean is not subtracted, except in the variance."""
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        deviation = (variance + LAYER_NORM_EPSILON).sqrt()
        weight, bias = self.body.weight[:, None, None], self.body.bias
        return x / deviation * weight if bias is None else (x - mean) / deviation * weight + bias[:, None, None]


class Affine(nn.Module):
    """A weight and an optional bias for each channel."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None


class TransposedAttention(nn.Module):
    """Attention between channels. The score of two channels is their cosine over all px (section 3.1, MDTA)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        split = "b (t heads c) h w -> t b heads c (h w)"
        q, k, v = rearrange(self.qkv_dwconv(self.qkv(x)), split, t=3, heads=self.heads)
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        out = (cosines * self.temperature).softmax(-1) @ v
        return self.project_out(rearrange(out, "b heads c (h w) -> b (heads c) h w", h=x.shape[2]))


class GatedFeedForward(nn.Module):
    """Two depthwise branches, of which one gates the other (section 3.2, GDFN)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(gate) * value)
