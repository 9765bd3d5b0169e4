"""Joins restored tiles and finishes their pixels on the device of the model, and collects the rows on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from restore_cli.tiling.blending import TileJoiner
from restore_cli.tiling.geometry import Axis
from restore_cli.tiling.host_copy import HostCopy, copy_to_host

__all__ = ["BLOCK_ROWS", "Assembly", "Finish", "keep"]

BLOCK_ROWS = 64
"""Output rows per yielded block. Consumers copy each block, so this bounds their memory."""

Finish = Callable[[Tensor], Tensor]
"""Converts (c, n, w) float32 to (c, n, w) of the final dtype, each value by itself, on the device of the model."""


def keep(pixels: Tensor) -> Tensor:
    """Return the pixels as they are."""
    return pixels


class Assembly:
    """Joins tiles that arrive row by row, from left to right. Holds the fades of one row of tiles on their device."""

    def __init__(self, down: Axis, across: Axis, scale: int, size: tuple[int, int], finish: Finish) -> None:
        """`size` is the (height, width) of the result, px. What the tiles hold beyond it is discarded."""
        self.down, self.across, self.scale, self.size, self.finish = down, across, scale, size, finish
        self.row, self.left = TileJoiner(across, scale, 2), 0
        self.columns: dict[int, TileJoiner] = {}
        """one for each part of a row, by its left side; it holds the fade to the next row"""
        self.device: torch.device | None = None
        self.strip: Tensor | None = None
        """(n, width, c), the rows that the current row of tiles finishes"""
        self.complete: list[Tensor] = []
        self.copies: list[tuple[Tensor, HostCopy]] = []
        """parts that a device may still be copying, and the places of the strips where they belong"""

    def add(self, tile: Tensor) -> None:
        """Add the next tile, (c, n, w). The pixels that it finishes are on their way to the CPU when this returns."""
        self.device = self.device or tile.device
        for part in self.row.push(tile.to(self.device)):
            column = self.columns.setdefault(self.left, TileJoiner(self.down, self.scale, 1))
            first = top = column.done
            for block in column.push(part):
                self.put(block[:, :, : max(0, self.size[1] - self.left)], top, (first, column.done))
                top += block.shape[1]
            self.left += part.shape[2]
        if self.left == self.across.length * self.scale:
            self.row, self.left = TileJoiner(self.across, self.scale, 2), 0
            self.complete += [] if self.strip is None else [self.strip]
            self.strip = None

    def put(self, part: Tensor, top: int, rows: tuple[int, int]) -> None:
        """Finish a part (c, n, w) of the strip of these rows. On a CPU, a few rows at a time stay in the cache."""
        part = part[:, : max(0, self.size[0] - top)]
        step = BLOCK_ROWS if part.device.type == "cpu" else max(1, part.shape[1])
        for block in torch.split(part, step, 1) if part.numel() else ():
            pixels = self.finish(block)
            if self.strip is None:
                size = min(rows[1], self.size[0]) - rows[0], self.size[1], len(pixels)
                self.strip = torch.empty(size, dtype=pixels.dtype)
            place = self.strip[top - rows[0] :, self.left :][: block.shape[1], : block.shape[2]]
            if pixels.device.type == "cpu":
                for channel, values in enumerate(pixels):  # numpy starts no threads, which wait on busy cores
                    place[..., channel].numpy()[:] = values.numpy()
            else:
                self.copies.append((place, copy_to_host(pixels.permute(1, 2, 0))))
            top += block.shape[1]

    def collect(self) -> Iterator[Tensor]:
        """Wait for all copies, and yield the strips that are complete as blocks (c, n, width), top to bottom."""
        for place, copy in self.copies:
            place.copy_(copy.wait())
        self.copies.clear()
        while self.complete:
            for block in torch.split(self.complete.pop(0), BLOCK_ROWS):
                yield block.permute(2, 0, 1)
