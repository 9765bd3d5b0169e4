"""Inference forms of the modules of EMT."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models import emt
from restore_cli.models.ops.attention import fast_window_attention
from restore_cli.models.ops.chunks import add_in_row_strips, runs_in_strips
from restore_cli.models.ops.linear import channels_first, channels_last, linear, pointwise
from restore_cli.models.ops.shift import DIRECTIONS, mix_pixels, shift_channels

__all__ = ["FastMixedBlock", "FastPixelMixer", "FastShiftMlp", "FastStripedAttention"]

BATCH_NORM_EPSILON = 1e-5
"""Added to the variance under the root of a batch norm: PyTorch's default and the published value."""


def affine_of_norm(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the (scale, offset) that a batch norm with final statistics applies to each channel."""
    scale = norm.get_parameter("weight") * torch.rsqrt(norm.get_buffer("running_var") + BATCH_NORM_EPSILON)
    return scale, norm.get_parameter("bias") - norm.get_buffer("running_mean") * scale


class FastMixedBlock(emt.MixedBlock):
    """Feature maps are in channels_last, where 1×1 convolutions read whole pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class FastStripedAttention(emt.StripedAttention):
    """The batch norm is folded into the product before it: s·(W·x + b) + o = (s·W)·x + (s·b + o)."""

    weight: Tensor
    bias: Tensor

    def prepare(self) -> None:
        """Fold the batch norm: (2·c, c, 1, 1) and (2·c,)."""
        scale, offset = affine_of_norm(self.attn[1])
        weight = self.attn.get_parameter("0.weight") * scale[:, None, None, None]
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", self.attn.get_parameter("0.bias") * scale + offset, persistent=False)
        del self.attn

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        shares = pointwise(x, self.weight, self.bias).chunk(len(self.windows), 1)
        mixed = [self.attend(share, window) for share, window in zip(shares, self.windows, strict=True)]
        del shares
        projection = self.proj.get_parameter("0.weight"), self.proj.get_parameter("0.bias")
        return x + pointwise(torch.cat(mixed, 1), *projection)

    def attend(self, qv: Tensor, window: tuple[int, int]) -> Tensor:
        """(b, 2·heads·d, h, w) -> (b, heads·d, h, w)."""
        (h, w), (i, j) = qv.shape[2:], window
        if h % i or w % j:
            qv = F.pad(qv, (0, -w % j, 0, -h % i), mode="reflect")
        parts = rearrange(qv, "b (t heads d) h w -> t b h w heads d", t=2, heads=self.heads)
        shift = (i // 2, j // 2) if self.shifted else (0, 0)
        out = fast_window_attention(list(parts), window, shift, None, scale=1.0)
        return channels_first(out.flatten(3))[..., :h, :w]


class FastPixelMixer(emt.PixelMixer):
    """Shift, difference, batch norm and shortcut are one depthwise convolution: x + s·(shift(x) - x) + o."""

    weight: Tensor
    bias: Tensor
    edges: Tensor

    def prepare(self) -> None:
        """Compute the weights (c, 1, 3, 3) and biases (c,) of the convolution, and those of pixels that wrap around."""
        scale, offset = affine_of_norm(self.norm)
        weight = torch.zeros(len(scale), 1, 3, 3, device=scale.device)
        for channels, (y, x) in zip(DIRECTIONS, [(1, 2), (1, 0), (2, 1), (0, 1)], strict=True):
            weight[channels, 0, y, x] = scale[channels]
            weight[channels, 0, 1, 1] = -scale[channels]
        weight[:, :, 1, 1] += 1
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", offset, persistent=False)
        self.register_buffer("edges", torch.stack([scale[channels] for channels in DIRECTIONS]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return channels_first(mix_pixels(channels_last(x), self.weight, self.bias, self.edges))


class FastShiftMlp(emt.ShiftMlp):
    """Shifts are copies of a map in channels_last, and the SiLU is computed in the pass of the product before it.

    On a CPU it runs on some rows at a time, and the result overwrites the input.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return add_in_row_strips(x, self.branch, 2) if runs_in_strips(x) else x + self.branch(x)

    def branch(self, x: Tensor) -> Tensor:
        """Return what is added to (b, c, h, w). Each pixel sees two px to each side."""
        hidden = linear(shift_channels(channels_last(x)), self.fc1.weight[..., 0, 0], self.fc1.bias, "swish")
        return channels_first(linear(shift_channels(hidden), self.fc2.weight[..., 0, 0], self.fc2.bias))
