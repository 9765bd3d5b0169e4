"""Inference forms of the modules of Restormer."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models import restormer
from restore_cli.models.ops.channel_attention import (
    channel_cosines,
    divide_by_norms,
    multiply_channels,
    sum_squares,
)
from restore_cli.models.ops.chunks import add_in_row_strips, branch_rows, row_strips
from restore_cli.models.ops.convolution import convolve, gated_depthwise, gelu_depthwise
from restore_cli.models.ops.layer_norm import layer_norm
from restore_cli.models.ops.linear import (
    can_use_onednn,
    channels_first,
    channels_last,
    linear,
    pointwise,
    product_dtype,
)

__all__ = [
    "FastChannelNorm",
    "FastGatedFeedForward",
    "FastLevel",
    "FastRestormer",
    "FastTransformerBlock",
    "FastTransposedAttention",
]

CHANNEL_MULTIPLE = 16
"""Hidden channels are padded to multiples of this: depthwise convolutions of 255 take twice as long as of 256.

On a GPU, fast products of half precision need rows of a multiple of 16 bytes.
"""


class FastRestormer(restormer.Restormer):
    """On a CPU, blocks overwrite their input. A dual-pixel network needs it again, so it gives them a copy."""

    def body(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, 2·dim, h, w)."""
        return super().body(x if self.skip_conv is None else x.clone())


class FastLevel(restormer.Level):
    """Feature maps are in channels_last, where 1×1 convolutions and layer norms read whole pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return super().forward(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]  # PyTorch's own


class FastChannelNorm(restormer.ChannelNorm):
    """Reads a map in channels_last in few passes, and keeps float16."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        normed = layer_norm(channels_last(x), self.body.weight, self.body.bias, restormer.LAYER_NORM_EPSILON)
        return channels_first(normed)


class FastTransformerBlock(restormer.TransformerBlock):
    """On a CPU, both parts run on some rows at a time, and the result overwrites the input."""

    attn: FastTransposedAttention

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        if not can_use_onednn(x, product_dtype(x)):
            return super().forward(x)
        self.attn.add_in_strips(x, self.norm1)
        return add_in_row_strips(x, lambda part: self.ffn(self.norm2(part)))


class FastTransposedAttention(restormer.TransposedAttention):
    """W·(S·v) = (W·S)·v: the projection and the attention are multiplied to one small matrix per picture."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        qk, v = self.project(x)
        weights = self.weigh(channel_cosines(qk.flatten(1, 2), self.heads))
        return channels_first(torch.stack([linear(*pair, None) for pair in zip(v, weights, strict=True)]))

    def add_in_strips(self, x: Tensor, norm: nn.Module) -> None:
        """Add self(norm(x)) to (b, c, h, w) in place. Only the values are kept for the whole map."""
        values, rows = channels_last(torch.empty_like(x, dtype=product_dtype(x))), branch_rows(x)
        products, squares = torch.zeros(()), torch.zeros(())
        for strip, around, inside in row_strips(x.shape[2], rows, 1):
            qk, values[:, strip] = (part[:, inside] for part in self.project(norm(x[:, :, around])))
            qk = qk.flatten(1, 2)
            products = products + multiply_channels(qk, self.heads).float()  # bfloat16 has too few bits for the sum
            squares = squares + sum_squares(qk)
        weights = self.weigh(divide_by_norms(products, squares, self.heads))
        for picture, value, weight in zip(channels_last(x), values, weights, strict=True):
            for part, piece in zip(torch.split(picture, rows), torch.split(value, rows), strict=True):
                part += linear(piece, weight, None)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries beside keys, and values: (b, c, h, w) -> (b, h, w, 2·c), (b, h, w, c)."""
        qkv, c = channels_last(self.qkv_dwconv(pointwise(x, self.qkv.weight))), x.shape[1]
        return qkv[..., : 2 * c], qkv[..., 2 * c :]

    def weigh(self, cosines: Tensor) -> Tensor:
        """Return the product of projection and attention, (b, heads, c/heads, c/heads) -> (b, c, c)."""
        scores = (cosines * self.temperature).softmax(-1)
        projection = rearrange(self.project_out.weight, "o (heads c) 1 1 -> heads o c", heads=self.heads)
        return rearrange(projection @ scores, "b heads o c -> b o (heads c)")


class FastGatedFeedForward(restormer.GatedFeedForward):
    """GELU and gate are computed in the passes of the convolutions, whose channels are padded with zero weights.

    Padded channels do not change the result.
    """

    into: Tensor
    depthwise: Tensor
    out: Tensor

    def prepare(self) -> None:
        """Pad hidden channels to n, a CHANNEL_MULTIPLE: (2, n, c, 1, 1), (2, n, 1, 3, 3) and (c, n, 1, 1)."""
        into, depthwise = (torch.stack(layer.weight.chunk(2)) for layer in (self.project_in, self.dwconv))
        out = self.project_out.weight
        padding = (0, 0, 0, 0, 0, 0, 0, -out.shape[1] % CHANNEL_MULTIPLE)
        self.register_buffer("into", F.pad(into, padding), persistent=False)
        self.register_buffer("depthwise", F.pad(depthwise, padding), persistent=False)
        self.register_buffer("out", F.pad(out, padding[2:]), persistent=False)
        del self.project_in, self.dwconv, self.project_out  # a third of the memory of all weights

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        if can_use_onednn(x, product_dtype(x)):
            gate = gelu_depthwise(pointwise(x, self.into[0]), self.depthwise[0])
            return pointwise(gated_depthwise(pointwise(x, self.into[1]), self.depthwise[1], gate), self.out)
        into, depthwise = self.into.flatten(0, 1), self.depthwise.flatten(0, 1)
        gate, value = convolve(pointwise(x, into), depthwise, None, len(depthwise)).chunk(2, 1)
        return pointwise(F.gelu(gate) * value, self.out)
