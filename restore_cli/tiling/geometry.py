"""Where tiles lie: integers only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from restore_cli.contract import Contract

__all__ = ["WHOLE", "Axis", "Tiling", "padded", "plan_axis", "reflected"]

WHOLE = 0
"""The tile side that stands for one tile as large as the picture."""


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut: largest tile side and overlap in input px, tiles per call of the model."""

    tile: int
    overlap: int
    batch: int = 1

    def __post_init__(self) -> None:
        if self.tile < 0 or self.overlap < 0 or self.batch < 1:
            raise ValueError(f"{self}: sides must not be negative, the batch at least 1")

    def fitted(self, contract: Contract) -> Tiling:
        """The nearest tiling that the contract allows: whole grid cells, an overlap of at most half a tile.

        The last tile may be shorter by less than a grid cell, and must not be less than the model's minimum.
        """
        if self.tile == WHOLE:
            return self
        least = contract.minimum + contract.grid - contract.multiple
        smallest = contract.grid * ceil(least / contract.grid)
        tile = max(smallest, self.tile // contract.grid * contract.grid)
        return replace(self, tile=tile, overlap=min(self.overlap, tile // 2))

    def smaller(self, contract: Contract, side: int) -> Tiling | None:
        """What to try when memory ran out on a picture whose longer side is `side`; None at the smallest tile."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        tile = self.tile or ceil(side / contract.grid) * contract.grid
        halved = replace(self, tile=max(1, min(tile, side) // 2), overlap=self.overlap or contract.overlap)
        fitted = halved.fitted(contract)
        return fitted if fitted.tile < min(tile, side) else None


@dataclass(frozen=True)
class Axis:
    """Equal tiles along one side of a picture, px.

    The last one ends with the picture: by less than a grid cell shorter where the side is no multiple of the grid.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    overlap: int
    """the least overlap of two neighbours; less than asked for where a tile is a single grid cell"""

    def span(self, i: int) -> tuple[int, int]:
        """(first, end) of tile i."""
        return self.starts[i], min(self.starts[i] + self.tile, self.length)

    def fade(self, i: int) -> tuple[int, int]:
        """(first, end) of the px where tile i passes into tile i + 1: half of the overlap, in its middle."""
        begin, end = self.starts[i + 1], self.span(i)[1]
        width = self.overlap // 2
        first = (begin + end - width) // 2
        return first, first + width


def plan_axis(length: int, tile: int, overlap: int, grid: int) -> Axis:
    """As few tiles as the largest side `tile` allows, as small as that number allows; the last is pulled back."""
    if tile == WHOLE or tile >= length:
        return Axis(length, length, (0,), 0)
    step = max(grid, (tile - overlap) // grid * grid)
    count = 1 + ceil((length - tile) / step)
    even = ceil((length + (count - 1) * overlap) / count / grid) * grid
    even_step = (even - overlap) // grid * grid
    if even < tile and even_step * (count - 1) + even >= length:
        tile, step = even, even_step
    last = ceil((length - tile) / grid) * grid
    starts = tuple(min(i * step, last) for i in range(count))
    return Axis(length, tile, starts, min(overlap, tile - step))


def padded(length: int, contract: Contract) -> int:
    """The side that the model is given for a picture of `length` px."""
    return max(contract.minimum, ceil(length / contract.multiple) * contract.multiple)


def reflected(length: int, padded: int) -> list[int]:
    """The px of the picture that stands at each px of the padded side; the edge where it is too short to reflect."""
    if padded - length < length:
        return [i if i < length else 2 * (length - 1) - i for i in range(padded)]
    return [min(i, length - 1) for i in range(padded)]
