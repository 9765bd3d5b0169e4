"""Inference forms of the modules of HAT."""

from __future__ import annotations

from torch import Tensor

from restore_cli.models import hat, layers
from restore_cli.models.forms.layers import FastBlockSequence, PositionBias
from restore_cli.models.ops.attention import fast_overlapping_window_attention
from restore_cli.models.ops.chunks import (
    add_in_chunks,
    add_in_window_strips,
    in_row_strips,
    residual_in_overlapping_strips,
)

__all__ = ["FastHAT", "FastHybridBlock", "FastHybridBlocks", "FastOverlappingCrossAttention"]


class FastHAT(hat.HAT):
    """The enlarged maps exist for some rows at a time."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, 3, h·scale, w·scale)."""
        return in_row_strips(super().reconstruct, x, self.config.scale)


class FastHybridBlocks(hat.HybridBlocks, FastBlockSequence):
    """Hybrid blocks that overwrite their input, then the cross-attention."""


class FastHybridBlock(hat.HybridBlock):
    """The convolution branch is weighed and added in one pass, and the MLP runs on some pixels at a time."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        normed = self.norm1(x)
        x = add_in_window_strips(x, self.attn, normed, self.attn.window, self.attn.shift)
        x.add_(self.conv_block(normed), alpha=self.conv_scale)
        del normed
        return add_in_chunks(x, lambda part: self.mlp(self.norm2(part)))


class FastOverlappingCrossAttention(PositionBias, hat.OverlappingCrossAttention):
    """Attention runs on some rows of windows at a time, the MLP on some pixels."""

    def prepare(self) -> None:
        """Take the position indices."""
        self.take_index(hat.overlapping_position_index, self.window, self.wide)

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
        return fast_overlapping_window_attention(qkv, sides, self.margin, self.position_bias(), scale, rows)
