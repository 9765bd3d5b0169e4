"""Resizing in blocks: equal results, bounded memory, and the forms of `--resize`."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from images import make_image
from numpy.typing import NDArray

from restore_cli.errors import UsageError
from restore_cli.image import resize
from restore_cli.image.resize import apply_taps, compute_size, compute_taps
from restore_cli.pipeline.output import resize_rows


def whole(pixels: NDArray[np.float32], target: tuple[int, int]) -> NDArray[np.float32]:
    """Resize the whole image at once, in two passes."""
    height, width = pixels.shape[:2]
    wide = apply_taps(pixels.swapaxes(0, 1), *compute_taps(width, target[0], resize.LANCZOS)).swapaxes(0, 1)
    return apply_taps(wide, *compute_taps(height, target[1], resize.LANCZOS)).astype(np.float32)


@pytest.mark.parametrize("target", [(31, 400), (400, 31), (12, 9), (400, 300), (1, 1), (60, 40)])
def test_blocks_of_rows_change_nothing(target: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = make_image(40, 60).astype(np.float32)
    for samples in (1, 1000, 10**9):
        monkeypatch.setattr(resize, "BLOCK_SAMPLES", samples)
        for rows in (1, 7, 40):
            blocks = iter(np.split(pixels, range(rows, 40, rows)))
            out = np.concatenate(list(resize_rows(blocks, (60, 40), target)))
            expected = pixels if target == (60, 40) else whole(pixels, target)
            np.testing.assert_array_equal(out, expected)


def test_memory_does_not_grow_with_the_target_size() -> None:
    pixels = make_image(40, 60).astype(np.float32)
    tracemalloc.start()
    rows = sum(block.shape[0] for block in resize_rows(iter([pixels]), (60, 40), (600, 20_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 20_000
    assert peak < 2**27  # the result has 144 MB


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("2x", (80, 64)),
        ("0.5x", (20, 16)),
        ("0.1x", (4, 3)),
        ("16x", (640, 512)),
        ("17x", (17, 14)),
        ("17.0x", (680, 544)),
        ("x16", (20, 16)),
        (" 8X6 ", (8, 6)),
        ("400x", (400, 320)),
    ],
)
def test_sizes_are_parsed(value: str, size: tuple[int, int]) -> None:
    assert compute_size(value, (40, 32)) == size


@pytest.mark.parametrize("value", ["", "x", "2", "2.5x3", "-1x", "1e3x", "nanx", "infx", "٣x", "9" * 5000 + "x", "2xx"])
def test_invalid_sizes_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="expected 2x, WIDTHxHEIGHT, WIDTHx or xHEIGHT"):
        compute_size(value, (40, 32))
