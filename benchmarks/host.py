"""Times everything except the model at ×4, per megapixel of input: `python -m benchmarks.host PHOTOGRAPH`.

It writes a photograph, enlarged by bicubic interpolation to 16 megapixels or more, as PNG into memory, and joins and
rounds the tiles of a model that computes nothing. Each line has the least seconds of the rounds, and the least
processor seconds of all threads, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore_cli.contract import Contract
from restore_cli.evaluation.degrade import imresize
from restore_cli.image.codec import decode
from restore_cli.image.formats.png import write_png
from restore_cli.image.picture import Picture, Samples
from restore_cli.image.stream import stream_picture
from restore_cli.models.processor import keep_freed_memory
from restore_cli.pipeline.array import restore_array
from restore_cli.tiling.geometry import Tiling

SCALE, INPUT_SIDE = 4, 1024


class ConstantModel:
    """Returns parts of one enlarged map, whatever the tiles are."""

    fp32_fallback = None
    architecture = "constant"
    device, precision = torch.device("cpu"), torch.float32
    contract = Contract(SCALE, 3, 8, 8, 8, overlap=8, tile=None, activation_floats_per_px=4 * 3 * SCALE**2)

    def __init__(self, side: int) -> None:
        self.out = torch.rand(1, 3, SCALE * side, SCALE * side)

    def __call__(self, x: Tensor) -> Tensor:
        """(1, 3, h, w) -> (1, 3, h·SCALE, w·SCALE)."""
        return self.out[:, :, : SCALE * x.shape[2], : SCALE * x.shape[3]]


def main() -> None:
    """Print both lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    small = decode(given.photograph).pixels
    pixels = enlarge(small)
    found = measure(lambda: write_png(stream_picture(Picture(pixels)), io.BytesIO()), given.rounds)
    print_line("PNG", found, pixels.shape[0] * pixels.shape[1] / SCALE**2 / 1e6)
    noise = np.random.default_rng(0).integers(0, 256, (INPUT_SIDE, INPUT_SIDE, 3), np.uint8)
    model = ConstantModel(512 + 64)
    found = measure(lambda: restore_array(model, noise, Tiling(512, 32)), given.rounds)
    print_line("joining and rounding", found, INPUT_SIDE**2 / 1e6)


def enlarge(small: Samples) -> Samples:
    """Return the photograph in at least 16 megapixels."""
    factor = -(-SCALE * INPUT_SIDE // min(small.shape[:2]))
    large = imresize(small, factor)
    return np.ascontiguousarray(large[: SCALE * INPUT_SIDE, : SCALE * INPUT_SIDE])


def measure(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the least seconds and the least processor seconds."""
    times = []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - start, time.process_time() - used))
    return min(wall for wall, _ in times), min(used for _, used in times)


def print_line(name: str, found: tuple[float, float], megapixels: float) -> None:
    """Print seconds per megapixel of input."""
    wall, used = (seconds / megapixels for seconds in found)
    sys.stdout.write(f"{name}: {wall:.3f} s/MP, {used:.3f} processor s/MP\n")


if __name__ == "__main__":
    main()
