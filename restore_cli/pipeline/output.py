"""What becomes of restored rows: final size, depth, and what a file is told beside its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from restore_cli.errors import OutputError, UsageError
from restore_cli.image.formats.capabilities import FORMAT_NAMES, WRITABLE_DEPTHS
from restore_cli.image.picture import PEAK, Header, Samples
from restore_cli.image.resize import Resizer, check_resize

__all__ = ["ALPHA", "BIT_DEPTH", "ICC", "Finish", "check_final_size", "depth_for", "quantised", "resized"]

ALPHA = ("model", "lanczos", "drop")
ICC = ("keep", "srgb")
BIT_DEPTH = ("auto", "8", "16")
KINDS: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16), 32: np.dtype(np.float32)}


@dataclass(frozen=True)
class Finish:
    """What was asked for, beside the restoration itself."""

    bit_depth: str = "auto"
    dither: bool = False
    alpha: str = "model"
    icc: str = "keep"
    resize: str | None = None
    strip: bool = False

    def __post_init__(self) -> None:
        words = (("bit-depth", self.bit_depth, BIT_DEPTH), ("alpha", self.alpha, ALPHA), ("icc", self.icc, ICC))
        for name, value, known in words:
            if value not in known:
                raise UsageError(f"--{name} {value}: expected {', '.join(known)}")


def check_final_size(finish: Finish, header: Header, max_pixels: int) -> None:
    """Raise UsageError where --resize would make more than `max_pixels` of an image, or nothing."""
    if finish.resize is not None:
        check_resize(finish.resize, max_pixels, (header.width, header.height))


def depth_for(finish: Finish, header: Header, format: str) -> np.dtype[Any]:
    """The kind of sample to write: as asked, else the input's, else the deepest that the format holds."""
    held = WRITABLE_DEPTHS[format]
    if finish.bit_depth == "auto":
        return KINDS[header.depth if header.depth in held else max(d for d in held if d <= header.depth)]
    wanted = int(finish.bit_depth)
    if wanted not in held:
        raise OutputError(f"{FORMAT_NAMES[format]} holds no {wanted}-bit samples", "--format png")
    return KINDS[wanted]


def resized(blocks: Iterator[Samples], size: tuple[int, int], target: tuple[int, int]) -> Iterator[Samples]:
    """Rows of a picture of `size` (width, height) as rows of `target`, in floating point."""
    if size == target:
        yield from blocks
        return
    resizer = Resizer(size, target)
    for block in blocks:
        yield from resizer.push(block)


def quantised(blocks: Iterator[Samples], dtype: np.dtype[Any], alpha: bool, dither: bool) -> Iterator[Samples]:
    """float32 in [0, 1] -> the kind of sample, clipped and rounded half to even; floats as they are.

    `dither` adds triangular noise of one step to the colours before rounding, the same for the same picture.
    """
    peak = PEAK[str(dtype)]
    row = 0
    for block in blocks:
        if dtype == np.float32:
            yield block.astype(np.float32, copy=False)
            continue
        values = block * np.float32(peak)
        if dither:
            colours = values.shape[2] - alpha
            values[..., :colours] += noise(row, (*values.shape[:2], colours))
        yield np.rint(values.clip(0, peak)).astype(dtype)
        row += block.shape[0]


def noise(row: int, shape: tuple[int, ...]) -> Samples:
    """Triangular in (-1, 1), a sequence of its own for each row, so that blocks of rows do not matter."""
    rows = []
    for i in range(shape[0]):
        random = np.random.default_rng(row + i)
        rows.append(random.random(shape[1:], np.float32) - random.random(shape[1:], np.float32))
    return np.stack(rows)
