"""Restormer: attention across channels in a U-shaped network (Zamir et al. 2021, arXiv:2111.09881)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.contract import Contract
from restore_cli.models.convolution import Conv2d
from restore_cli.models.layers import (
    can_use_onednn,
    channels_first,
    channels_last,
    in_float32,
    linear,
    product_dtype,
    to_residual_dtype,
)
from restore_cli.weights.architectures import RestormerConfig

__all__ = ["Restormer"]

ACTIVATION_FLOATS = 40
"""Floats that a block holds at the same time per px and channel, measured (decision 042)."""

CHANNEL_MULTIPLE = 16
"""Hidden channels are padded to multiples of this: depthwise convolutions of 255 take twice as long as of 256."""

MIN_SQUARED_NORM = 1e-24
"""Lower bound of squared channel norms, as published."""

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
        self.reduce_chan_level3 = Conv2d(8 * dim, 4 * dim, 1, bias=False)
        self.decoder_level3 = level(4 * dim, blocks[2], heads[2])
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = Conv2d(4 * dim, 2 * dim, 1, bias=False)
        self.decoder_level2 = level(2 * dim, blocks[1], heads[1])
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = level(2 * dim, blocks[0], heads[0])
        self.refinement = level(2 * dim, config.refinement, heads[0])
        self.skip_conv = Conv2d(dim, 2 * dim, 1, bias=False) if config.dual_pixel else None
        self.output = Conv2d(2 * dim, config.channels_out, 3, padding=1, bias=False)

    @property
    def contract(self) -> Contract:
        """Attention weighs channels by their covariance over the tile, so the tile should be large."""
        c = self.config
        widest = 2 * c.dim if c.blocks[0] + c.refinement else c.dim // 2  # channels at full resolution
        return Contract(
            1,
            c.channels_in,
            8,
            pad_multiple=8,
            minimum=8,
            overlap=48,
            tile=512,
            activation_floats_per_px=ACTIVATION_FLOATS * widest,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) in [0, 1] -> (b, channels_out, h, w)."""
        shallow = in_float32(self.patch_embed, x)
        deep = self.refinement(self.body(to_residual_dtype(shallow)))
        if self.skip_conv is not None:
            return in_float32(self.output, deep + self.skip_conv(shallow))
        return x + in_float32(self.output, deep)

    def body(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, 2·dim, h, w): four levels down and up again, with a shortcut at each."""
        one = self.encoder_level1(x)
        two = self.encoder_level2(self.down1_2(one))
        three = self.encoder_level3(self.down2_3(two))
        deep = self.latent(self.down3_4(three))
        deep = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(deep), three], 1)))
        deep = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(deep), two], 1)))
        return self.decoder_level1(torch.cat([self.up2_1(deep), one], 1))


class PatchEmbedding(nn.Module):
    """The first convolution, under its published name."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = Conv2d(channels, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, dim, h, w)."""
        return self.proj(x)


class Downsample(nn.Module):
    """(b, c, h, w) -> (b, 2·c, h/2, w/2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, 2·c, h/2, w/2)."""
        return self.body(x)


class Upsample(nn.Module):
    """(b, c, h, w) -> (b, c/2, 2·h, 2·w)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c/2, 2·h, 2·w)."""
        return self.body(x)


class Level(nn.Sequential):
    """A sequence of blocks. Inside, feature maps are (b, h, w, c)."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        x = channels_last(x).contiguous()
        for block in self:
            x = block(x)
        return channels_first(x)


class TransformerBlock(nn.Module):
    """Channel attention, then a gated feed-forward part, each after a layer norm and with a shortcut."""

    def __init__(self, dim: int, heads: int, expansion: float, norm_bias: bool) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim, norm_bias)
        self.attn = TransposedAttention(dim, heads)
        self.norm2 = ChannelNorm(dim, norm_bias)
        self.ffn = GatedFeedForward(dim, int(dim * expansion))

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel. The published checkpoints keep its parameters under `body`."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.body = Affine(dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c). Without a bias the mean is not subtracted, except in the variance."""
        weight, bias = self.body.weight, self.body.bias
        if x.dtype != torch.float16:
            return normalise_channels(x, weight, bias)
        with torch.autocast(x.device.type, enabled=False):
            return normalise_channels(x, weight.half(), None if bias is None else bias.half())


def normalise_channels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a ChannelNorm, with sums over channels in float32."""
    if bias is not None:
        return F.layer_norm(x, weight.shape, weight, bias, LAYER_NORM_EPSILON)
    # torch.var reads channels one by one; these two passes are vectorised
    centred = x - x.mean(-1, keepdim=True)
    deviation = torch.linalg.vector_norm(centred, dim=-1, keepdim=True, dtype=torch.float32)
    return x * torch.rsqrt(deviation.square() / x.shape[-1] + LAYER_NORM_EPSILON).to(weight.dtype) * weight


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
        self.qkv = Conv2d(dim, 3 * dim, 1, bias=False)
        self.qkv_dwconv = Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=False)
        self.project_out = Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c). Attention and projection are multiplied to one small matrix per picture."""
        b, h, w, c = x.shape
        qkv = channels_last(self.qkv_dwconv(channels_first(pointwise(x, self.qkv))))
        qk, v = torch.split(qkv.reshape(b, h * w, 3 * c), [2 * c, c], -1)
        scores = (self.cosines(qk) * self.temperature).softmax(-1)
        out = rearrange(self.project_out.weight, "o (heads c) 1 1 -> heads o c", heads=self.heads)
        weights = rearrange(out @ scores, "b heads o c -> b o (heads c)")
        return torch.stack([linear(*pair, None) for pair in zip(v, weights, strict=True)]).view(b, h, w, c)

    def cosines(self, qk: Tensor) -> Tensor:
        """Return the cosines of query and key channels over all px: (b, n, 2·c) -> (b, heads, c/heads, c/heads).

        The products are divided by the norms. In float16, queries and keys are divided before, as sums may overflow.
        """
        split = "b n (t heads c) -> t b heads n c"
        if qk.dtype == torch.float16:
            q, k = rearrange(F.normalize(qk, dim=1), split, t=2, heads=self.heads)
            return q.mT @ k
        q, k = rearrange(qk, split, t=2, heads=self.heads)
        squares = (qk * qk).sum(1, keepdim=True, dtype=torch.float32)  # F.normalize takes four times as long
        lengths = rearrange(squares.clamp_min(MIN_SQUARED_NORM).sqrt(), split, t=2, heads=self.heads)
        return q.mT @ k / (lengths[0].mT * lengths[1])


class GatedFeedForward(nn.Module):
    """Two depthwise branches, of which one gates the other (section 3.2, GDFN)."""

    into: Tensor | None
    depthwise: Tensor | None
    out: Tensor | None

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.project_in = Conv2d(dim, 2 * hidden, 1, bias=False)
        self.dwconv = Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = Conv2d(hidden, dim, 1, bias=False)
        for name in ("into", "depthwise", "out"):
            self.register_buffer(name, None, persistent=False)

    def pad_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights with hidden channels padded to n, a CHANNEL_MULTIPLE: (2, n, c), (2, n, 1, 3, 3), (c, n).

        The first two hold both branches. Padded channels have zero weights and do not change the result.
        """
        into, depthwise = (torch.stack(layer.weight.chunk(2)) for layer in (self.project_in, self.dwconv))
        out = self.project_out.weight[..., 0, 0]
        more = -out.shape[1] % CHANNEL_MULTIPLE
        into = F.pad(into[..., 0, 0], (0, 0, 0, more))
        return into, F.pad(depthwise, (0, 0, 0, 0, 0, 0, 0, more)), F.pad(out, (0, more))

    def prepare(self) -> None:
        """Pad the weights once, because they are final."""
        self.into, self.depthwise, self.out = self.pad_weights()

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        if can_use_onednn(x, product_dtype(x)):
            return self.forward_onednn(x)
        hidden = channels_last(self.dwconv(channels_first(pointwise(x, self.project_in))))
        gate, value = hidden.chunk(2, -1)
        return pointwise(F.gelu(gate) * value, self.project_out)

    def forward_onednn(self, x: Tensor) -> Tensor:
        """Compute `forward` with oneDNN, which applies GELU and gate inside the depthwise convolutions."""
        if self.into is None or self.depthwise is None or self.out is None:
            into, depthwise, out = self.pad_weights()
        else:
            into, depthwise, out = self.into, self.depthwise, self.out
        gate, value = (channels_first(linear(x, weight, None)) for weight in into)
        first, second = depthwise.to(gate.dtype)
        ones, groups = [1, 1], first.shape[0]
        gate = torch.ops.mkldnn._convolution_pointwise(
            gate, first, None, ones, ones, ones, groups, "gelu", [], "none"
        )  # the exact GELU
        gated: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            value, gate, second, None, ones, ones, ones, groups, "mul", 1.0, None, [], None
        )
        return linear(channels_last(gated), out, None)


def pointwise(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Apply a 1×1 convolution as a matrix product: (b, h, w, c) -> (b, h, w, out)."""
    return linear(x, convolution.weight[..., 0, 0], convolution.bias)
