"""Strips of rows, each compressed by itself, so that several threads can work on one image."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from restore_cli.image.picture import Samples
from restore_cli.image.rows import RowBuffer
from restore_cli.image.stream import PixelStream

__all__ = ["cut_strips", "map_in_order"]

MAX_THREADS = 4

Strip = TypeVar("Strip")
Result = TypeVar("Result")


def cut_strips(page: PixelStream, rows: int) -> Iterator[Samples]:
    """Yield the rows of a page in strips of `rows` rows; the last strip may have fewer."""
    buffer = RowBuffer()
    for block in page.blocks:
        buffer.push(block)
        while buffer.size >= rows:
            yield buffer.pop(rows)
    if buffer.size:
        yield buffer.pop(buffer.size)


def map_in_order(function: Callable[[Strip], Result], strips: Iterable[Strip]) -> Iterator[Result]:
    """Yield the function's result of each strip, in order, computed on up to four threads.

    At most one strip per thread waits, so memory stays bounded. The results do not depend on the number of threads.
    """
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, "compress") as pool:
        for strip in strips:
            pending.append(pool.submit(function, strip))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
