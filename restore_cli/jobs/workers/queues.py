"""Between the thread that restores and those that read and write: a few blocks, never a whole gigapixel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition

from restore_cli.image.picture import Samples

__all__ = ["MemoryBudget", "QueueClosed", "RowQueue"]


class QueueClosed(Exception):
    """The other end has given up."""


class RowQueue:
    """Rows of the pictures of one file, from the thread that restores to the one that writes."""

    def __init__(self, room: int) -> None:
        """Holds blocks of `room` bytes together, or one that is larger."""
        self.room = room
        self.blocks: deque[Samples | None] = deque()
        """None ends a picture"""
        self.bytes = 0
        self.over = False
        """no more will be put"""
        self.gone = False
        """no more will be taken"""
        self.changed = Condition()

    def put(self, block: Samples | None) -> None:
        """Waits for room. Raises QueueClosed where nobody will take it."""
        size = 0 if block is None else block.nbytes
        with self.changed:
            self.changed.wait_for(lambda: self.gone or not self.bytes or self.bytes + size <= self.room)
            if self.gone:
                raise QueueClosed
            self.blocks.append(block)
            self.bytes += size
            self.changed.notify_all()

    def end(self) -> None:
        """No more will be put: where pictures are missing, who takes them learns of it by QueueClosed."""
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def leave(self) -> None:
        """No more will be taken."""
        with self.changed:
            self.gone = True
            self.blocks.clear()
            self.changed.notify_all()

    def pages(self, count: int) -> Iterator[Iterator[Samples]]:
        """The rows of `count` pictures; each is taken to its end before the next. Raises QueueClosed."""
        return (self.page() for _ in range(count))

    def page(self) -> Iterator[Samples]:
        """The rows of one picture."""
        while (block := self.take()) is not None:
            yield block

    def take(self) -> Samples | None:
        """The next block, or None at a picture's end."""
        with self.changed:
            self.changed.wait_for(lambda: bool(self.blocks) or self.over)
            if not self.blocks:
                raise QueueClosed
            block = self.blocks.popleft()
            self.bytes -= 0 if block is None else block.nbytes
            self.changed.notify_all()
            return block


class MemoryBudget:
    """Memory for pictures that wait decoded, given out in the order of their turns."""

    def __init__(self, room: int) -> None:
        self.room, self.taken, self.turn = room, 0, 0
        self.changed = Condition()

    def acquire(self, turn: int, size: int) -> None:
        """Waits until all earlier turns have had theirs and `size` bytes are free. 0 bytes pass the turn on."""
        with self.changed:
            self.changed.wait_for(lambda: self.turn == turn and (not size or self.taken + size <= self.room))
            self.turn += 1
            self.taken += size
            self.changed.notify_all()

    def release(self, size: int) -> None:
        """They are free again."""
        with self.changed:
            self.taken -= size
            self.changed.notify_all()
