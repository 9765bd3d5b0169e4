"""Finds strong JPEG compression: low quality of a JPEG file, or its 8×8 blocks in any other file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restore_cli.image.picture import PEAK, Samples
from restore_cli.image.picture_source import PictureSource
from restore_cli.image.rows import read_blocks

__all__ = ["BlockDetector", "describe_compression"]

GOOD_QUALITY = 85
"""From this quality on, a JPEG file counts as free of visible artefacts."""
BLOCK = 8
VISIBLE = 0.3
"""Lowest mean step across block borders that counts, in parts of 255.

Large photographs without blocks stay below 0.1. JPEG files exceed it in half of the cases at quality 80, and almost
always at 40. A small image may exceed it by chance, so the standard error of its steps is added.
"""
LIMIT = 8
"""Steps are cut to this many parts of 255, so that contours of the image do not dominate."""


def describe_compression(source: PictureSource) -> str | None:
    """Return what can be said of the JPEG compression of an image if it is visible. Raises ImageError.

    Files of other formats are decoded once to look for blocks.
    """
    header = source.header
    if header.jpeg_quality is not None:
        return f"is a JPEG of quality {header.jpeg_quality}" if header.jpeg_quality < GOOD_QUALITY else None
    detector = BlockDetector(header.channels)
    for rows in read_blocks(source.open_rows(), header.width * 4):
        detector.add(rows)
    return "has visible blocks of JPEG compression" if detector.found else None


class BlockDetector:
    """Measures how much larger the steps between pixels are every eight columns and every eight rows.

    Blocks of a cropped image do not begin at its corner, so each of the eight phases is measured.
    """

    def __init__(self, channels: int) -> None:
        """`channels` is 1 (gray) or 3, without alpha."""
        self.channel = channels // 2  # green, or gray
        self.sums = np.zeros((2, BLOCK))
        self.counts = np.zeros((2, BLOCK))
        self.squares = np.zeros(2)
        self.above: NDArray[np.float32] | None = None
        self.top = 0

    def add(self, rows: Samples) -> None:
        """Measure the next rows of the image: (h, w, c)."""
        plane = rows[..., self.channel].astype(np.float32) * np.float32(255 / PEAK[str(rows.dtype)])
        self.record(0, excess_of_steps(plane.T), 0)
        joined = plane if self.above is None else np.concatenate([self.above, plane])
        self.record(1, excess_of_steps(joined), self.top)
        kept = min(3, len(joined))  # a step needs one neighbour on each side
        self.above, self.top = joined[-kept:], self.top + len(joined) - kept

    def record(self, axis: int, steps: NDArray[np.float32], first: int) -> None:
        """Add the means of the steps, (n, ...), the first of which is at `first`."""
        means = steps.mean(axis=tuple(range(1, steps.ndim)))
        phases = (np.arange(len(means)) + first) % BLOCK
        weight = steps[0].size if len(steps) else 0
        self.sums[axis] += np.bincount(phases, means * weight, BLOCK)
        self.counts[axis] += np.bincount(phases, minlength=BLOCK) * weight
        self.squares[axis] += np.square(steps).sum()

    @property
    def found(self) -> bool:
        """Whether the rows so far have visible blocks in both directions."""
        if not self.counts.all():
            return False
        means = np.sort(self.sums / self.counts, axis=1)
        variances = self.squares / self.counts.sum(1) - (self.sums.sum(1) / self.counts.sum(1)) ** 2
        errors = np.sqrt(variances / self.counts.min(1))
        return bool((means[:, -1] - means[:, -2] - errors).min() > VISIBLE)


def excess_of_steps(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each step along the first axis exceeds the mean of its two neighbours: (n, w) -> (n - 3, w)."""
    steps = np.abs(np.diff(plane, axis=0))
    return (steps[1:-1] - (steps[:-2] + steps[2:]) / 2).clip(-LIMIT, LIMIT)
