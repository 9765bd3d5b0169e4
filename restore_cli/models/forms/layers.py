"""Inference forms of PyTorch's layers, and of those that SwinIR and HAT share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from restore_cli.models import layers
from restore_cli.models.ops.attention import fast_window_attention
from restore_cli.models.ops.chunks import runs_in_strips
from restore_cli.models.ops.convolution import convolve
from restore_cli.models.ops.layer_norm import layer_norm
from restore_cli.models.ops.linear import linear

__all__ = [
    "FastBlockSequence",
    "FastConvolution",
    "FastLayerNorm",
    "FastLinear",
    "FastMlp",
    "FastWindowAttention",
    "PositionBias",
]


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


class FastBlockSequence(layers.BlockSequence):
    """On a CPU, blocks overwrite their input. The first one gets a copy, because a shortcut needs the original."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return super().forward(x.clone(memory_format=torch.contiguous_format) if runs_in_strips(x) else x)


@cache
def make_table(make: Callable[..., Tensor], *sides: int) -> Tensor:
    """Return a table of indices or masks, which all layers with the same windows share."""
    with torch.device("cpu"):
        return make(*sides)


class PositionBias(nn.Module):
    """Looks up a relative position bias. On a CPU, layers share their position indices.

    That happens at each call, because the biases of all layers of HAT are as large as its weights, or once with
    `keep_bias`.
    """

    relative_position_bias_table: nn.Parameter
    index: Tensor
    bias: Tensor | None

    def take_index(self, make: Callable[..., Tensor], *sides: int) -> None:
        """Store the row of the table for each pair of pixels, which `make` returns for windows of these sides."""
        index = make_table(make, *sides).to(self.relative_position_bias_table.device)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("bias", None, persistent=False)

    def keep_bias(self) -> None:
        """Look up the bias once."""
        if self.bias is None:
            self.bias = self.position_bias()
            del self.index

    def position_bias(self) -> Tensor:
        """Return the bias of each pair of pixels, (1, heads, n, m)."""
        if self.bias is not None:
            return self.bias
        table, index = self.relative_position_bias_table, self.index
        return table.T.contiguous().index_select(1, index.flatten()).view(1, table.shape[1], *index.shape)


class FastWindowAttention(PositionBias, layers.WindowAttention):
    """Rows of windows can be computed by themselves."""

    masks: Tensor | None

    def prepare(self) -> None:
        """Take the tables. On a CPU, layers share their masks."""
        self.take_index(layers.relative_position_index, self.window)
        masks = make_table(layers.shift_mask, self.window, self.shift).to(self.index.device) if self.shift else None
        self.register_buffer("masks", masks, persistent=False)

    def add_masks(self) -> None:
        """Add the masks to the bias once. That takes more memory, but saves an operator at each call."""
        if self.bias is not None and self.masks is not None:
            self.bias, self.masks = self.bias + self.masks, None

    def forward(self, x: Tensor, wraps: bool | None = None) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c), for a whole map or for a strip from `add_in_window_strips`."""
        return self.proj(self.attend(layers.split_heads(self.qkv(x), self.heads), wraps).flatten(3))

    def attend(self, qkv: list[Tensor], wraps: bool | None = None) -> Tensor:
        """Three (b, h, w, heads, d) -> (b, h, w, heads, d)."""
        sides, shift = (self.window, self.window), (self.shift, self.shift)
        bias = self.position_bias()
        kinds = slice(None) if wraps is None else slice(2 * wraps, 2 * wraps + 2)
        if self.masks is not None:
            bias = bias + self.masks[kinds]
        if wraps is not None:  # the strip has been cut where its windows begin
            shift = 0, self.shift
        return fast_window_attention(qkv, sides, shift, bias, scale=qkv[0].shape[-1] ** -0.5)
