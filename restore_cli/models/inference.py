"""Inference forms of published modules: the same function of the same weights, computed faster and in less memory.

A form is a subclass of the published module. It overrides what it computes in another way, and `prepare` derives
buffers from the final weights. tests/models/test_inference.py compares each form with its published module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

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
    add_in_chunks,
    add_in_row_strips,
    add_in_window_strips,
    branch_rows,
    in_row_strips,
    residual_in_overlapping_strips,
    row_strips,
    runs_in_strips,
)
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
from restore_cli.models.ops.shift import DIRECTIONS, mix_pixels, shift_channels
from restore_cli.models.precision import set_precision

__all__ = ["INFERENCE_FORMS", "apply_forms", "keep_biases", "optimize"]

Forms = Mapping[type[nn.Module], type[nn.Module]]

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


def apply_forms(module: nn.Module, forms: Forms, finish: Callable[[nn.Module], None] = lambda module: None) -> None:
    """Change modules to the forms that the table has for their types, and prepare these, in place.

    `finish` gets each module after that, and before its children.
    """
    if form := forms.get(type(module)):
        module.__class__ = form
        if callable(prepare := getattr(module, "prepare", None)):
            prepare()
    finish(module)
    for child in module.children():
        apply_forms(child, forms, finish)


def keep_biases(network: nn.Module) -> None:
    """Let attention look up its biases once, in place."""
    for module in network.modules():
        if isinstance(module, FastWindowAttention | FastOverlappingCrossAttention):
            module.keep_bias()


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


@cache
def make_table(make: Callable[..., Tensor], *sides: int) -> Tensor:
    """Return a table of indices or masks, which all layers with the same windows share."""
    with torch.device("cpu"):
        return make(*sides)


def look_up_bias(table: Tensor, index: Tensor) -> Tensor:
    """Return the bias of each pair of pixels: (rows, heads) and (n, m) row indices -> (1, heads, n, m)."""
    return table.T.contiguous().index_select(1, index.flatten()).view(1, table.shape[1], *index.shape)


class FastWindowAttention(layers.WindowAttention):
    """Rows of windows can be computed by themselves. All layers share their masks and position indices."""

    index: Tensor
    masks: Tensor | None
    bias: Tensor | None

    def prepare(self) -> None:
        """Take the tables. Biases are looked up at each call, because those of HAT are as large as its weights."""
        device = self.relative_position_bias_table.device
        index = make_table(layers.relative_position_index, self.window).to(device)
        masks = make_table(layers.shift_mask, self.window, self.shift).to(device) if self.shift else None
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("masks", masks, persistent=False)
        self.register_buffer("bias", None, persistent=False)

    def keep_bias(self) -> None:
        """Look up the bias of all pairs of pixels once, for a GPU, which starts fewer operators at each call then."""
        self.bias = self.position_bias()
        del self.index

    def add_masks(self) -> None:
        """Add the masks to the bias once. That takes more memory, but saves an operator at each call."""
        if self.bias is not None and self.masks is not None:
            self.bias, self.masks = self.bias + self.masks, None

    def position_bias(self) -> Tensor:
        """Return the relative position bias, (1, heads, n, n)."""
        return look_up_bias(self.relative_position_bias_table, self.index)

    def forward(self, x: Tensor, wraps: bool | None = None) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c), for a whole map or for a strip from `add_in_window_strips`."""
        return self.proj(self.attend(layers.split_heads(self.qkv(x), self.heads), wraps).flatten(3))

    def attend(self, qkv: list[Tensor], wraps: bool | None = None) -> Tensor:
        """Three (b, h, w, heads, d) -> (b, h, w, heads, d)."""
        sides, shift = (self.window, self.window), (self.shift, self.shift)
        bias = self.position_bias() if self.bias is None else self.bias
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


class FastBlockSequence(layers.BlockSequence):
    """On a CPU, blocks overwrite their input. The first one gets a copy, because a shortcut needs the original."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return super().forward(x.clone(memory_format=torch.contiguous_format) if runs_in_strips(x) else x)


class FastHybridBlocks(hat.HybridBlocks):
    """On a CPU, blocks overwrite their input. The first one gets a copy, because a shortcut needs the original."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return super().forward(x.clone(memory_format=torch.contiguous_format) if runs_in_strips(x) else x)


class FastTransformerLayer(swinir.TransformerLayer):
    """The attention runs on some rows of windows at a time, and the MLP on some pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = add_in_window_strips(x, self.attend, x, self.attn.window, self.attn.shift)
        return add_in_chunks(x, lambda part: self.mlp(self.norm2(part)))

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
        x = add_in_window_strips(x, self.attn, normed, self.attn.window, self.attn.shift)
        x = torch.add(x, self.conv_block(normed), alpha=self.conv_scale)
        return add_in_chunks(x, lambda part: self.mlp(self.norm2(part)))


class FastOverlappingCrossAttention(hat.OverlappingCrossAttention):
    """Attention runs on some rows of windows at a time, the MLP on some pixels."""

    index: Tensor
    bias: Tensor | None

    def prepare(self) -> None:
        """Take the position indices, which all layers share."""
        index = make_table(hat.overlapping_position_index, self.window, self.wide)
        self.register_buffer("index", index.to(self.relative_position_bias_table.device), persistent=False)
        self.register_buffer("bias", None, persistent=False)

    def keep_bias(self) -> None:
        """Look up the bias of all pairs of pixels once, for a GPU."""
        self.bias = self.position_bias()
        del self.index

    def position_bias(self) -> Tensor:
        """Return the relative position bias, (1, heads, window², wide²)."""
        return look_up_bias(self.relative_position_bias_table, self.index)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = residual_in_overlapping_strips(x, self.attend_rows, self.window, self.margin)
        return add_in_chunks(x, lambda part: self.mlp(self.norm2(part)))

    def attend_rows(self, x: Tensor, rows: slice) -> Tensor:
        """Attend in `rows` of (b, h, w, c), with the others around them."""
        return self.proj(self.attend(layers.split_heads(self.qkv(self.norm1(x)), self.heads), rows).flatten(3))

    def attend(self, qkv: list[Tensor], rows: slice = slice(None)) -> Tensor:
        """Three (b, h, w, heads, d) -> (b, rows, w, heads, d)."""
        sides, scale = (self.window, self.window), qkv[0].shape[-1] ** -0.5
        bias = self.position_bias() if self.bias is None else self.bias
        return fast_overlapping_window_attention(qkv, sides, self.margin, bias, scale, rows)


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
        """Add self(norm(x)) to (b, c, h, w) in place. Only the values exist for the whole map."""
        values, rows = channels_last(torch.empty_like(x)), branch_rows(x)
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


INFERENCE_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: FastConvolution,
    nn.LayerNorm: FastLayerNorm,
    nn.Linear: FastLinear,
    layers.Mlp: FastMlp,
    layers.BlockSequence: FastBlockSequence,
    layers.WindowAttention: FastWindowAttention,
    swinir.SwinIR: FastSwinIR,
    swinir.TransformerLayer: FastTransformerLayer,
    hat.HAT: FastHAT,
    hat.HybridBlocks: FastHybridBlocks,
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
