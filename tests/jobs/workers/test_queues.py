"""Queues keep the order and their capacity, and no end waits for one that has ended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_cli.image.picture import Samples
from restore_cli.jobs.workers.queues import MemoryBudget, QueueClosed, RowQueue


def block(size: int, value: int) -> Samples:
    return np.full((1, size, 1), value, np.uint8)


@given(st.lists(st.lists(st.integers(1, 60), max_size=8), min_size=1, max_size=4), st.integers(1, 100))
def test_pages_come_out_as_they_went_in(pages: list[list[int]], room: int) -> None:
    queue = RowQueue(room)
    most = 0

    def send() -> None:
        nonlocal most
        for page in pages:
            for i, size in enumerate(page):
                queue.put(block(size, i))
                most = max(most, queue.bytes)
            queue.put(None)
        queue.close()

    with ThreadPoolExecutor(1) as other:
        sent = other.submit(send)
        found = [[(rows.shape[1], int(rows[0, 0, 0])) for rows in page] for page in (queue.page() for _ in pages)]
        sent.result()
    assert found == [[(size, i) for i, size in enumerate(page)] for page in pages]
    assert most <= max(room, *(size for page in pages for size in page), 0)


def test_the_reader_learns_that_a_picture_is_incomplete() -> None:
    queue = RowQueue(10)
    queue.put(block(4, 0))
    queue.close()
    page = queue.page()
    assert next(page).shape == (1, 4, 1)
    with pytest.raises(QueueClosed):
        next(page)


def test_the_writer_learns_that_the_reader_has_ended() -> None:
    queue = RowQueue(10)
    queue.put(block(8, 0))
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(queue.put, block(8, 1))
        queue.abandon()
        with pytest.raises(QueueClosed):
            waiting.result()


def test_memory_is_granted_in_turn() -> None:
    budget, order, started = MemoryBudget(10), list[int](), Event()

    def take(turn: int, size: int) -> None:
        started.set()
        budget.acquire(turn, size)
        order.append(turn)

    with ThreadPoolExecutor(4) as others:
        late = [others.submit(take, turn, size) for turn, size in ((3, 0), (2, 1), (1, 10))]
        started.wait()
        assert not order
        others.submit(take, 0, 6).result()
        budget.release(6)
        late[2].result()
        budget.release(10)
        for each in late:
            each.result()
    assert order[:2] == [0, 1]
    assert sorted(order) == [0, 1, 2, 3]
