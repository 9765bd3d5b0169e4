"""The interface between the tiling engine and the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Contract", "Model"]


@dataclass(frozen=True)
class Contract:
    """What the engine needs to know about a model."""

    scale: int
    """output px per input px"""
    channels: int
    """input channels: 1, 3, or 6 (dual pixel); the output has 1 or 3"""
    tile_multiple: int
    """tiles start on multiples of this, and their sides are multiples of it, px"""
    pad_multiple: int
    """sides of the whole input are padded to multiples of this, px; 1 if the model pads by itself"""
    minimum: int
    """smallest input side, px"""
    overlap: int
    """overlap of neighbouring tiles that gives them enough context, input px"""
    tile: int | None
    """best tile side if the result depends on it (global attention), input px"""
    activation_floats_per_px: int
    """float32 numbers that the model holds at the same time for each px of a tile, at most"""


class Model(Protocol):
    """A network that is ready to run on its device, at its precision."""

    @property
    def contract(self) -> Contract: ...

    @property
    def fp32_fallback(self) -> Model | None:
        """The same network in float32, for tiles that overflow; None if this one is float32."""

    def __call__(self, x: Tensor) -> Tensor:
        """Restore (b, c, h, w) float32 in [0, 1] to (b, c, h·scale, w·scale) float32.

        h and w are at least `minimum`, and multiples of `pad_multiple`.
        """
