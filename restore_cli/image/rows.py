"""Row streams: a picture that is read from top to bottom once, with its last rows kept for those who look back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from restore_cli.image.picture import Samples

__all__ = ["FetchRows", "RowBuffer", "RowReader", "read_blocks"]

FetchRows = Callable[[int, int], Samples]
"""fetch(top, bottom) -> (n, w, c); called for each row once, in order."""

BLOCK_BYTES = 1 << 24
"""bytes that are decoded at once, about"""


class RowReader:
    """Rows of a source for overlapping windows that move down."""

    def __init__(self, fetch: FetchRows, height: int, width: int, slack: int = 128) -> None:
        self.fetch, self.height, self.width, self.slack = fetch, height, width, slack
        self.top = self.end = 0
        self.held: list[Samples] = []

    def read(self, top: int, bottom: int) -> Samples:
        """Rows top..bottom, (bottom - top, w, c). `top` may go back behind an earlier one by `slack` px."""
        if not self.top <= top < bottom <= self.height:
            raise ValueError(f"rows {top}..{bottom} of {self.height} asked for, rows above {self.top} are gone")
        if self.end < bottom:
            self.held.append(self.fetch(self.end, bottom))
            self.end = bottom
        rows = self.held[0] if len(self.held) == 1 else np.concatenate(self.held)
        first = max(self.top, top - self.slack)
        rows = rows[first - self.top :]
        self.held, self.top = [rows], first
        return rows[top - first : bottom - first]


class RowBuffer:
    """Rows that wait until others of the same height have come."""

    def __init__(self) -> None:
        self.parts: list[Samples] = []

    @property
    def size(self) -> int:
        """Rows that wait."""
        return sum(part.shape[0] for part in self.parts)

    def push(self, rows: Samples) -> None:
        """(n, w, c), any n."""
        if rows.shape[0]:
            self.parts.append(rows)

    def pop(self, count: int) -> Samples:
        """The oldest `count` rows."""
        if self.size < count:
            raise ValueError(f"{count} rows asked for, {self.size} are there")
        taken: list[Samples] = []
        while (left := count - sum(part.shape[0] for part in taken)) or not taken:
            part = self.parts.pop(0)
            taken.append(part[:left])
            if part.shape[0] > left:
                self.parts.insert(0, part[left:])
        return taken[0] if len(taken) == 1 else np.concatenate(taken)


def read_blocks(reader: RowReader, row_bytes: int) -> Iterator[Samples]:
    """Every row once, in blocks of about 16 MB."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for top in range(0, reader.height, step):
        yield reader.read(top, min(reader.height, top + step))
