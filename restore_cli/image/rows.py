"""Rows of a picture as a stream, read once from top to bottom, with a few rows kept for overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from restore_cli.image.picture import Samples

__all__ = ["FetchRows", "RowBuffer", "RowReader", "read_blocks"]

FetchRows = Callable[[int, int], Samples]
"""fetch(top, bottom) -> (n, w, c). Called once for each row, in order."""

BLOCK_BYTES = 1 << 24
"""Approximate size of a decoded block."""


class RowReader:
    """Reads overlapping windows of rows that move down the picture. Rows are fetched once."""

    def __init__(self, fetch: FetchRows, height: int, width: int, slack: int = 128) -> None:
        self.fetch, self.height, self.width, self.slack = fetch, height, width, slack
        self.top = self.end = 0
        self.held: list[Samples] = []

    def read(self, top: int, bottom: int) -> Samples:
        """Return rows top..bottom, (bottom - top, w, c). `top` may be up to `slack` rows above the previous `top`.

        Raises ValueError for rows outside the picture, or rows that are no longer kept.
        """
        if not self.top <= top < bottom <= self.height:
            raise ValueError(f"rows {top}..{bottom} requested, rows {self.top}..{self.height} are available")
        if self.end < bottom:
            self.held.append(self.fetch(self.end, bottom))
            self.end = bottom
        rows = self.held[0] if len(self.held) == 1 else np.concatenate(self.held)
        first = max(self.top, top - self.slack)
        rows = rows[first - self.top :]
        self.held, self.top = [rows], first
        return rows[top - first : bottom - first]


class RowBuffer:
    """A first-in, first-out buffer of rows."""

    def __init__(self) -> None:
        self.parts: list[Samples] = []

    @property
    def size(self) -> int:
        """The number of buffered rows."""
        return sum(part.shape[0] for part in self.parts)

    def push(self, rows: Samples) -> None:
        """Append rows, (n, w, c) for any n."""
        if rows.shape[0]:
            self.parts.append(rows)

    def pop(self, count: int) -> Samples:
        """Remove and return the oldest `count` rows. Raises ValueError if there are fewer."""
        if self.size < count:
            raise ValueError(f"{count} rows requested, {self.size} are buffered")
        taken: list[Samples] = []
        while (left := count - sum(part.shape[0] for part in taken)) or not taken:
            part = self.parts.pop(0)
            taken.append(part[:left])
            if part.shape[0] > left:
                self.parts.insert(0, part[left:])
        return taken[0] if len(taken) == 1 else np.concatenate(taken)


def read_blocks(reader: RowReader, row_bytes: int) -> Iterator[Samples]:
    """Yield all rows once, in blocks of about 16 MB. `row_bytes` is the size of one row."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for top in range(0, reader.height, step):
        yield reader.read(top, min(reader.height, top + step))
