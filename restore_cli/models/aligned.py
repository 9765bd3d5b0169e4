"""SwinIR and HAT for a GPU in half precision: rows of features are whole 16 bytes, and blocks take few passes.

Zeros widen the features of a body, 180 to 184 float16 numbers, because fast products need rows of a multiple of 16
bytes. The zeros do not change the result: weights from and to them are zeros, and layer norms leave them out. One
kernel computes everything in a block after its attention (decision 056).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models import hat, layers, swinir
from restore_cli.models.forms.hat import FastHybridBlock, FastOverlappingCrossAttention
from restore_cli.models.forms.layers import FastLayerNorm
from restore_cli.models.forms.swinir import FastTransformerLayer
from restore_cli.models.inference import apply_forms
from restore_cli.models.ops.block_tail import can_use_block_kernels, fast_block_tail, fast_padded_layer_norm
from restore_cli.models.ops.linear import channels_first, channels_last
from restore_cli.models.ops.triton_blocks import TailWeights

__all__ = ["ALIGNED_FORMS", "AlignedLayerNorm", "BlockTail", "align_rows", "can_align_rows"]

ROW_MULTIPLE = 8
"""Channels of a row are padded to a multiple of this: 16 bytes in half precision."""

IMAGE_INPUTS, IMAGE_OUTPUTS = ("conv_first",), ("conv_last", "upsample")
"""Modules whose inputs or outputs are channels of the image, or samples that become pixels. These are not padded."""

Attention = layers.WindowAttention | hat.OverlappingCrossAttention
Block = swinir.TransformerLayer | hat.HybridBlock | hat.OverlappingCrossAttention


def pad_sides(weight: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Return the tensor with zeros after its first dimensions, up to multiples of these."""
    missing = [-size % side for size, side in zip(weight.shape, sides, strict=False)]
    missing += [0] * (weight.dim() - len(missing))
    return F.pad(weight, [number for count in reversed(missing) for number in (0, count)])


class BlockTail(nn.Module):
    """The projection of an attention, the sum with the features, a layer norm, an MLP, and its sum."""

    projection: Tensor
    projection_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    into: Tensor
    into_bias: Tensor
    back: Tensor
    back_bias: Tensor

    def __init__(self, projection: nn.Linear, norm: nn.LayerNorm, mlp: layers.Mlp) -> None:
        super().__init__()
        self.epsilon, one, many = norm.eps, 1, ROW_MULTIPLE
        weights = TailWeights(
            pad_sides(projection.weight.T, (one, many)), pad_sides(projection.bias, (many,)),
            pad_sides(norm.weight, (many,)), pad_sides(norm.bias, (many,)),
            pad_sides(mlp.fc1.weight, (one, many)), mlp.fc1.bias,
            pad_sides(mlp.fc2.weight.T, (one, many)), pad_sides(mlp.fc2.bias, (many,)),
        )  # fmt: skip
        for name, weight in weights._asdict().items():
            self.register_buffer(name, weight.detach().contiguous(), persistent=False)

    def forward(self, x: Tensor, attended: Tensor, branch: Tensor | None = None, gate: Tensor | None = None) -> Tensor:
        """x (b, h, w, width), attended (b, h, w, c), a branch (b, h, w, width) with gate (b, width) -> as x."""
        weights = TailWeights(*(getattr(self, name) for name in TailWeights._fields))
        return fast_block_tail(x, attended, branch, gate, weights, self.epsilon)


def take_tail(block: Block, attention: Attention) -> BlockTail:
    """Remove the projection, the second layer norm and the MLP from a block, and return them as one module."""
    tail = BlockTail(attention.proj, block.norm2, block.mlp)
    del attention.proj, block.norm2, block.mlp
    return tail


class AlignedLayerNorm(FastLayerNorm):
    """Normalises the published channels of padded rows."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, width) -> (b, h, w, width)."""
        return fast_padded_layer_norm(x, self.weight, self.bias, self.eps, self.normalized_shape[0])


def attend_aligned(layer: Attention, x: Tensor) -> Tensor:
    """Return the attention before its projection: (b, h, w, width) -> (b, h, w, c)."""
    channels = layer.qkv.in_features
    qkv = layer.qkv(x)[..., : 3 * channels]
    return layer.attend(layers.split_heads(qkv, layer.heads)).flatten(3)


class AlignedTransformerLayer(FastTransformerLayer):
    """A block of SwinIR in four steps: layer norm, product, attention, and the rest."""

    tail: BlockTail

    def prepare(self) -> None:
        """Move the weights after the attention into one module."""
        self.tail = take_tail(self, self.attn)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, width) -> (b, h, w, width)."""
        return self.tail(x, attend_aligned(self.attn, self.norm1(x)))


class AlignedHybridBlock(FastHybridBlock):
    """A block of HAT. The channel attention weighs the convolution branch where the branch is added."""

    tail: BlockTail

    def prepare(self) -> None:
        """Move the weights after the attention into one module."""
        self.tail = take_tail(self, self.attn)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, width) -> (b, h, w, width)."""
        normed, cab = self.norm1(x), self.conv_block.cab
        branch = cab[:3](channels_first(normed))
        gate = self.conv_scale * cab.get_submodule("3.attention")(branch).flatten(1)
        return self.tail(x, attend_aligned(self.attn, normed), channels_last(branch), gate)


class AlignedOverlappingCrossAttention(FastOverlappingCrossAttention):
    """An overlapping cross-attention of HAT in four steps."""

    tail: BlockTail

    def prepare(self) -> None:
        """Move the weights after the attention into one module."""
        self.tail = take_tail(self, self)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, width) -> (b, h, w, width)."""
        return self.tail(x, attend_aligned(self, self.norm1(x)))


ALIGNED_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    FastLayerNorm: AlignedLayerNorm,
    FastTransformerLayer: AlignedTransformerLayer,
    FastHybridBlock: AlignedHybridBlock,
    FastOverlappingCrossAttention: AlignedOverlappingCrossAttention,
}
"""Each inference form with the form for aligned rows."""


def can_align_rows(network: nn.Module, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether `align_rows` suits the network: SwinIR or HAT on a GPU where the kernels are correct."""
    if not isinstance(network, swinir.SwinIR | hat.HAT):
        return False
    dim, hidden = network.config.dim, int(network.config.dim * network.config.mlp_ratio)
    return can_use_block_kernels(device, dtype, dim, dim + -dim % ROW_MULTIPLE, hidden)


def align_rows(network: nn.Module) -> None:
    """Pad the features of an optimized SwinIR or HAT, and change its blocks to their aligned forms, in place.

    The network gets new weights. It keeps none that another network shares with it, except those without padding.
    """
    apply_forms(network, ALIGNED_FORMS)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.LayerNorm):
            first = name.split(".")[0]
            sides = 1 if first in IMAGE_OUTPUTS else ROW_MULTIPLE, 1 if first in IMAGE_INPUTS else ROW_MULTIPLE
            for key, weight in list(module.named_parameters(recurse=False)):
                padded = pad_sides(weight, sides)
                layout = torch.channels_last if padded.dim() == 4 else torch.contiguous_format
                if padded.shape != weight.shape:
                    setattr(module, key, nn.Parameter(padded.contiguous(memory_format=layout), requires_grad=False))
