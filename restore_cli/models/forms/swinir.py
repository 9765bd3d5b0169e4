"""Inference forms of the modules of SwinIR."""

from __future__ import annotations

from torch import Tensor

from restore_cli.models import swinir
from restore_cli.models.ops.chunks import add_in_chunks, add_in_window_strips, in_row_strips

__all__ = ["FastSwinIR", "FastTransformerLayer"]


class FastSwinIR(swinir.SwinIR):
    """The enlarged maps exist for some rows at a time."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """(b, dim, h, w) -> (b, c, h·scale, w·scale)."""
        return in_row_strips(super().reconstruct, x, self.config.scale)


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
