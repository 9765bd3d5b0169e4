"""RowBuffer returns rows in the order in which they were pushed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_cli.image.rows import RowBuffer


@given(pushed=st.lists(st.integers(1, 9), min_size=1), popped=st.lists(st.integers(1, 9)))
def test_rows_come_out_in_order(pushed: list[int], popped: list[int]) -> None:
    rows = np.arange(sum(pushed), dtype=np.float32)[:, None, None]
    queue, done = RowBuffer(), 0
    for part in np.split(rows, np.cumsum(pushed)[:-1]):
        queue.push(part)
    for count in popped:
        if count > queue.size:
            with pytest.raises(ValueError, match="are buffered"):
                queue.pop(count)
            return
        np.testing.assert_array_equal(queue.pop(count), rows[done : done + count])
        done += count
        assert queue.size == len(rows) - done
