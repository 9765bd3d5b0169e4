"""Computes where tiles begin, end and overlap, in whole pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from restore_cli.contract import Contract

__all__ = ["WHOLE", "Axis", "Tiling", "padded_side", "plan_axis", "reflection_indices"]

WHOLE = 0
"""A tile side that means one tile as large as the picture."""


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut: longest tile side and overlap in input px, tiles per call of the model."""

    tile: int
    overlap: int
    batch: int = 1

    def __post_init__(self) -> None:
        if self.tile < 0 or self.overlap < 0 or self.batch < 1:
            raise ValueError(f"{self}: sides must not be negative, the batch must be at least 1")

    def fitted(self, contract: Contract) -> Tiling:
        """Return the nearest tiling that the contract allows: tiles of `tile_multiple`, overlap at most half a tile.

        The last tile may be shorter, by less than `tile_multiple`, but not shorter than the model's minimum.
        """
        if self.tile == WHOLE:
            return self
        least = contract.minimum + contract.tile_multiple - contract.pad_multiple
        smallest = contract.tile_multiple * ceil(least / contract.tile_multiple)
        tile = max(smallest, self.tile // contract.tile_multiple * contract.tile_multiple)
        return replace(self, tile=tile, overlap=min(self.overlap, tile // 2))

    def smaller(self, contract: Contract, side: int) -> Tiling | None:
        """Return the next tiling to try when memory runs out, or None at the smallest tile.

        First the batch is halved, then the tile. `side` is the longer side of the picture, px.
        """
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        tile = self.tile or ceil(side / contract.tile_multiple) * contract.tile_multiple
        halved = replace(self, tile=max(1, min(tile, side) // 2), overlap=self.overlap or contract.overlap)
        fitted = halved.fitted(contract)
        return fitted if fitted.tile < min(tile, side) else None


@dataclass(frozen=True)
class Axis:
    """Equal tiles along one axis of a picture, px.

    The last tile ends with the picture. It is shorter than the others if the side is not a multiple of `tile_multiple`.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    overlap: int
    """least overlap of two neighbours; less than requested if tiles have the smallest size"""

    def span(self, i: int) -> tuple[int, int]:
        """Return (first, end) of tile i."""
        return self.starts[i], min(self.starts[i] + self.tile, self.length)

    def fade(self, i: int) -> tuple[int, int]:
        """Return (first, end) of the cross-fade between tiles i and i + 1: the middle half of their overlap."""
        begin, end = self.starts[i + 1], self.span(i)[1]
        width = self.overlap // 2
        first = (begin + end - width) // 2
        return first, first + width


def plan_axis(length: int, tile: int, overlap: int, tile_multiple: int) -> Axis:
    """Cut `length` px into the fewest tiles of at most `tile` px, and make these as small as their number allows.

    Tiles start on multiples of `tile_multiple`. The last one is moved back to end with the picture.
    """
    if tile == WHOLE or tile >= length:
        return Axis(length, length, (0,), 0)
    step = max(tile_multiple, (tile - overlap) // tile_multiple * tile_multiple)
    count = 1 + ceil((length - tile) / step)
    even = ceil((length + (count - 1) * overlap) / count / tile_multiple) * tile_multiple
    even_step = (even - overlap) // tile_multiple * tile_multiple
    if even < tile and even_step * (count - 1) + even >= length:
        tile, step = even, even_step
    last = ceil((length - tile) / tile_multiple) * tile_multiple
    starts = tuple(min(i * step, last) for i in range(count))
    return Axis(length, tile, starts, min(overlap, tile - step))


def padded_side(length: int, contract: Contract) -> int:
    """Return the side that the model gets for a picture side of `length` px."""
    return max(contract.minimum, ceil(length / contract.pad_multiple) * contract.pad_multiple)


def reflection_indices(length: int, padded: int) -> list[int]:
    """Return, for each px of the padded side, the px of the picture that it shows.

    The padding reflects the picture. It repeats the last px if the picture is too short to reflect.
    """
    if padded - length < length:
        return [i if i < length else 2 * (length - 1) - i for i in range(padded)]
    return [min(i, length - 1) for i in range(padded)]
