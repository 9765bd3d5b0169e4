"""Bounded queues between the threads that decode, restore and encode."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition

from restore_cli.image.picture import Samples

__all__ = ["MemoryBudget", "QueueClosed", "RowQueue"]


class QueueClosed(Exception):
    """The other end of a queue has ended."""


class RowQueue:
    """Passes the rows of the pictures of one file from the thread that restores to the thread that writes."""

    def __init__(self, capacity: int) -> None:
        """`capacity` is the number of bytes that the queue holds. A single block may be larger."""
        self.capacity = capacity
        self.blocks: deque[Samples | None] = deque()
        """None marks the end of a picture"""
        self.bytes = 0
        self.is_closed = False
        """no more blocks will be put"""
        self.is_abandoned = False
        """no more blocks will be taken"""
        self.changed = Condition()

    def put(self, block: Samples | None) -> None:
        """Add a block, and wait for room first. Raises QueueClosed if nothing will be taken any more."""
        size = 0 if block is None else block.nbytes
        with self.changed:
            self.changed.wait_for(lambda: self.is_abandoned or not self.bytes or self.bytes + size <= self.capacity)
            if self.is_abandoned:
                raise QueueClosed
            self.blocks.append(block)
            self.bytes += size
            self.changed.notify_all()

    def close(self) -> None:
        """Declare that no more blocks will be put. If pictures are incomplete, the reader gets QueueClosed."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def abandon(self) -> None:
        """Declare that no more blocks will be taken."""
        with self.changed:
            self.is_abandoned = True
            self.blocks.clear()
            self.changed.notify_all()

    def page(self) -> Iterator[Samples]:
        """Yield the rows of the next picture, which must be read to its end. Raises QueueClosed."""
        while (block := self.take()) is not None:
            yield block

    def take(self) -> Samples | None:
        """Remove and return the next block, None at the end of a picture. Raises QueueClosed."""
        with self.changed:
            self.changed.wait_for(lambda: bool(self.blocks) or self.is_closed)
            if not self.blocks:
                raise QueueClosed
            block = self.blocks.popleft()
            self.bytes -= 0 if block is None else block.nbytes
            self.changed.notify_all()
            return block


class MemoryBudget:
    """Memory for decoded images, granted in the order of their turns."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.used, self.turn = capacity, 0, 0
        self.changed = Condition()

    def acquire(self, turn: int, size: int) -> None:
        """Wait until all earlier turns are granted and `size` bytes are free. 0 bytes only pass the turn on."""
        with self.changed:
            self.changed.wait_for(lambda: self.turn == turn and (not size or self.used + size <= self.capacity))
            self.turn += 1
            self.used += size
            self.changed.notify_all()

    def release(self, size: int) -> None:
        """Return `size` bytes to the budget."""
        with self.changed:
            self.used -= size
            self.changed.notify_all()
