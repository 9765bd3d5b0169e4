"""Inference forms of published modules: the same function of the same weights, computed faster and in less memory.

A form is a subclass of the published module. It overrides what it computes in another way, and `prepare` derives
buffers from the final weights. tests/models/test_inference.py compares each form with its published module.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models import emt, hat, layers, restormer, swinir
from restore_cli.models.ops.attention import fast_overlapping_window_attention, fast_window_attention
from restore_cli.models.ops.channel_attention import (
    channel_cosines,
    divide_by_norms,
    multiply_channels,
    sum_squares,
)
from restore_cli.models.ops.chunks import (
    add_in_row_strips,
    branch_rows,
    in_row_strips,
    residual_in_chunks,
    residual_in_overlapping_strips,
    residual_in_window_strips,
    row_strips,
)
from restore_cli.models.ops.convolution import convolve, gated_depthwise
from restore_cli.models.ops.layer_norm import layer_norm
from restore_cli.models.ops.linear import (
    can_use_onednn,
    channels_first,
    channels_last,
    linear,
    pointwise,
    product_dtype,
)
from restore_cli.models.ops.shift import DIRECTIONS, mix_pixels, shift_channels
from restore_cli.models.precision import set_precision

__all__ = ["INFERENCE_FORMS", "apply_forms", "optimize"]

CHANNEL_MULTIPLE = 16
"""Hidden channels are padded to multiples of this: depthwise convolutions of 255 take twice as long as of 256.

On a GPU, fast products of half precision need rows of a multiple of 16 bytes.
"""

BATCH_NORM_EPSILON = 1e-5
"""Added to the variance under the root of a batch norm: PyTorch's default and the published value."""


def optimize(network: nn.Module) -> None:
    """Give the modules of a network with final weights their precision and their inference forms, in place."""
    set_precision(network)
    apply_forms(network, INFERENCE_FORMS)


def apply_forms(network: nn.Module, forms: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Change modules to the forms that the table has for their types, and prepare these, in place."""
    for module in list(network.modules()):
        if form := forms.get(type(module)):
            module.__class__ = form
            if callable(prepare := getattr(module, "prepare", None)):
                prepare()


class FastConvolution(nn.Conv2d):
    """Never rounds float32 to TF32, and keeps the weights in channels_last for feature maps in that layout."""

    def prepare(self) -> None:
        """Change the layout of the weights."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs require more arguments

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, out, h, w), with stride 1 and padding by half of the kernel."""
        return convolve(x, self.weight, self.bias, self.groups)


class FastLayerNorm(nn.LayerNorm):
    """Keeps float16, with sums in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        return layer_norm(x, self.weight, self.bias, self.eps)


class FastLinear(nn.Linear):
    """Product and bias in one pass."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., out)."""
        return linear(x, self.weight, self.bias)


class FastMlp(layers.Mlp):
    """The GELU is computed in the same pass as the product before it."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        return self.fc2(linear(x, self.fc1.weight, self.fc1.bias, "gelu"))


class FastWindowAttention(layers.WindowAttention):
    """The relative position bias is looked up once. Rows of windows can be computed by themselves."""

    bias: Tensor
    masks: Tensor | None

    def prepare(self) -> None:
        """Look up the bias of all pairs of pixels. The sums with the masks would be four times as large."""
        self.register_buffer("bias", self.position_bias().contiguous(), persistent=False)
        masks = layers.shift_mask(self.window, self.shift).to(self.bias.device) if self.shift else None
        self.register_buffer("masks", masks, persistent=False)

    def add_masks(self) -> None:
        """Add the masks to the bias once. That takes more memory, but a GPU starts fewer operators at each call."""
        if self.masks is not None:
            self.bias, self.masks = self.bias + self.masks, None

    def forward(self, x: Tensor, wraps: bool | None = None) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c), for a whole map or for a strip from `residual_in_window_strips`."""
        return self.proj(self.attend(layers.split_heads(self.qkv(x), self.heads), wraps).flatten(3))

    def attend(self, qkv: list[Tensor], wraps: bool | None = None) -> Tensor:
        """Three (b, h, w, heads, d) -> (b, h, w, heads, d)."""
        sides, shift, bias = (self.window, self.window), (self.shift, self.shift), self.bias
        kinds = slice(None) if wraps is None else slice(2 * wraps, 2 * wraps + 2)
        if self.masks is not None:
            bias = bias + self.masks[kinds]
        if wraps is not None:  # the strip has been cut where its windows begin
            shift = 0, self.shift
        return fast_window_attention(qkv, sides, shift, bias, scale=qkv[0].shape[-1] ** -0.5)


class FastSwinIR(swinir.SwinIR):
    """The enlarged maps exist for some rows at a time."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, c, h·scale, w·scale)."""
        return in_row_strips(super().reconstruct, x, self.config.scale)


class FastTransformerLayer(swinir.TransformerLayer):
    """The attention runs on some rows of windows at a time, and the MLP on some pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = residual_in_window_strips(x, self.attend, x, self.attn.window, self.attn.shift)
        return residual_in_chunks(x, lambda part: self.mlp(self.norm2(part)))

    def attend(self, x: Tensor, wraps: bool | None) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c), for a whole map or for a strip."""
        attended: Tensor = self.attn(self.norm1(x), wraps)
        return attended


class FastHAT(hat.HAT):
    """The enlarged maps exist for some rows at a time."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, 3, h·scale, w·scale)."""
        return in_row_strips(super().reconstruct, x, self.config.scale)


class FastHybridBlock(hat.HybridBlock):
    """The convolution branch is weighed and added in one pass, and the MLP runs on some pixels at a time."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        normed = self.norm1(x)
        x = residual_in_window_strips(x, self.attn, normed, self.attn.window, self.attn.shift)
        x = torch.add(x, self.conv_block(normed), alpha=self.conv_scale)
        return residual_in_chunks(x, lambda part: self.mlp(self.norm2(part)))


class FastOverlappingCrossAttention(hat.OverlappingCrossAttention):
    """The position bias is looked up once. Attention runs on some rows of windows at a time, the MLP on some pixels."""

    bias: Tensor

    def prepare(self) -> None:
        """Look up the bias of all pairs of pixels."""
        self.register_buffer("bias", self.position_bias().contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = residual_in_overlapping_strips(x, self.attend_rows, self.window, self.margin)
        return residual_in_chunks(x, lambda part: self.mlp(self.norm2(part)))

    def attend_rows(self, x: Tensor, rows: slice) -> Tensor:
        """Attend in `rows` of (b, h, w, c), with the others around them."""
        return self.proj(self.attend(layers.split_heads(self.qkv(self.norm1(x)), self.heads), rows).flatten(3))

    def attend(self, qkv: list[Tensor], rows: slice = slice(None)) -> Tensor:
        """Three (b, h, w, heads, d) -> (b, rows, w, heads, d)."""
        sides, scale = (self.window, self.window), qkv[0].shape[-1] ** -0.5
        return fast_overlapping_window_attention(qkv, sides, self.margin, self.bias, scale, rows)


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
    """On a CPU, both parts run on some rows at a time."""

    attn: FastTransposedAttention

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        if not can_use_onednn(x, product_dtype(x)):
            return super().forward(x)
        x = self.attn.residual_in_strips(x, self.norm1)
        return add_in_row_strips(x, lambda part: self.ffn(self.norm2(part)))


class FastTransposedAttention(restormer.TransposedAttention):
    """W·(S·v) = (W·S)·v: the projection and the attention are multiplied to one small matrix per picture."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        qk, v = self.project(x)
        weights = self.weigh(channel_cosines(qk.flatten(1, 2), self.heads))
        return channels_first(torch.stack([linear(*pair, None) for pair in zip(v, weights, strict=True)]))

    def residual_in_strips(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Return x + self(norm(x)), (b, c, h, w). The tensor of the result holds the values until they are weighed."""
        out, rows = channels_last(torch.empty_like(x)), branch_rows(x.shape[3])
        products, squares = torch.zeros(()), torch.zeros(())
        for strip, around, inside in row_strips(x.shape[2], rows, 1):
            qk, out[:, strip] = (part[:, inside] for part in self.project(norm(x[:, :, around])))
            qk = qk.flatten(1, 2)
            products = products + multiply_channels(qk, self.heads).float()  # bfloat16 has too few bits for the sum
            squares = squares + sum_squares(qk)
        weights = self.weigh(divide_by_norms(products, squares, self.heads))
        for picture, added, weight in zip(channels_last(x), out, weights, strict=True):
            for part, target in zip(torch.split(picture, rows), torch.split(added, rows), strict=True):
                torch.add(part, linear(target, weight, None), out=target)
        return channels_first(out)

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
            gate, value = (pointwise(x, weight) for weight in self.into)
            return pointwise(gated_depthwise(gate, value, self.depthwise), self.out)
        into, depthwise = self.into.flatten(0, 1), self.depthwise.flatten(0, 1)
        gate, value = convolve(pointwise(x, into), depthwise, None, len(depthwise)).chunk(2, 1)
        return pointwise(F.gelu(gate) * value, self.out)


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

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        shares = pointwise(x, self.weight, self.bias).chunk(len(self.windows), 1)
        mixed = [self.attend(share, window) for share, window in zip(shares, self.windows, strict=True)]
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
    """Shifts are copies of a map in channels_last, and the SiLU is computed in the pass of the product before it."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        hidden = linear(shift_channels(channels_last(x)), self.fc1.weight[..., 0, 0], self.fc1.bias, "swish")
        return x + channels_first(linear(shift_channels(hidden), self.fc2.weight[..., 0, 0], self.fc2.bias))


INFERENCE_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: FastConvolution,
    nn.LayerNorm: FastLayerNorm,
    nn.Linear: FastLinear,
    layers.Mlp: FastMlp,
    layers.WindowAttention: FastWindowAttention,
    swinir.SwinIR: FastSwinIR,
    swinir.TransformerLayer: FastTransformerLayer,
    hat.HAT: FastHAT,
    hat.HybridBlock: FastHybridBlock,
    hat.OverlappingCrossAttention: FastOverlappingCrossAttention,
    restormer.Level: FastLevel,
    restormer.TransformerBlock: FastTransformerBlock,
    restormer.ChannelNorm: FastChannelNorm,
    restormer.TransposedAttention: FastTransposedAttention,
    restormer.GatedFeedForward: FastGatedFeedForward,
    emt.MixedBlock: FastMixedBlock,
    emt.StripedAttention: FastStripedAttention,
    emt.PixelMixer: FastPixelMixer,
    emt.ShiftMlp: FastShiftMlp,
}
"""Each published module with its inference form."""
