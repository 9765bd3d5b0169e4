"""All that the engine and the models agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Contract", "Model"]


@dataclass(frozen=True)
class Contract:
    """What may be assumed about a model."""

    scale: int
    """output px per input px"""
    channels: int
    """channels in: 1, 3, or 6 (dual pixel); out: 1 or 3"""
    grid: int
    """tiles start on multiples of this and their sides are multiples of it, px"""
    multiple: int
    """sides of the whole input are multiples of this, px: the grid, or 1 where the model pads by itself"""
    minimum: int
    """smallest side accepted, px"""
    overlap: int
    """context wanted between neighbouring tiles, input px"""
    tile: int | None
    """best tile side where the result depends on it (global attention), input px"""
    floats: int
    """float32 numbers that the model holds at most at a time for each px of a tile"""


class Model(Protocol):
    """A network ready to run on its device, at its precision."""

    @property
    def contract(self) -> Contract: ...

    @property
    def exact(self) -> Model | None:
        """The same network in float32, or None where it already is."""

    def __call__(self, x: Tensor) -> Tensor:
        """(b, c, h, w) float32 in [0, 1], sides multiples of `multiple` -> (b, c, h·scale, w·scale) float32."""
