"""Compiles the blocks of a network, and keeps the result if it is correct and faster."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import suppress
from pathlib import Path
from threading import RLock

import torch
from torch import Tensor

from restore_cli.models.network import Network

__all__ = ["compile_if_faster"]

ROUNDS = 3
"""Calls that are timed; the median counts."""

MIN_AGREEMENT = 55.0
"""Least PSNR between the outputs of the compiled and the original network, dB. Other rounding costs this much."""

MAX_VARIANTS = 64
"""Most variants of blocks that may be compiled: one per width, number of heads, shift and size."""


def compile_if_faster(network: Network, shape: tuple[int, int, int, int], folder: Path) -> str:
    """Compile the network for batches of this shape, unless that is slower or changes the image.

    Returns a line that says what was done and measured. Compiled code is kept in `folder` for the next run.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))  # the default is a guessable name in /tmp
    use_thread_lock_for_tqdm()
    tiles = torch.rand(shape)
    try:
        expected, plain = measure_call(network, tiles)
        network.has_compiled_blocks = True
        for block in network.module.modules():
            if isinstance(block, network.blocks):
                block.compile(dynamic=False)
        network.compiled_size = shape[-2:]
        start = time.perf_counter()
        with torch._dynamo.config.patch(recompile_limit=MAX_VARIANTS):
            network(tiles)
        spent = time.perf_counter() - start
        found, compiled = measure_call(network, tiles)
    except Exception as error:  # many types: of the compiler, Triton, a missing C++ compiler, lack of memory
        network.compiled_size = None
        reason = str(error).strip().splitlines() or [""]
        return f"--compile: not compiled, {type(error).__name__}: {reason[0][:200]}"
    agreement = float(-10 * torch.log10((found - expected).square().mean().clamp_min(1e-20)))
    share = compiled / plain
    if share >= 1 or not agreement > MIN_AGREEMENT:
        network.compiled_size = None
        slower = f"compiled tiles took {share:.2f} times as long"
        return f"--compile: not used, {slower if share >= 1 else f'the output changed: {agreement:.0f} dB'}"
    return f"--compile: compiled in {spent:.0f} s, tiles take {share:.2f} of the time"


def use_thread_lock_for_tqdm() -> None:
    """Replace tqdm's lock, which the compiler uses: its default is shared by processes and leaks if one is killed."""
    with suppress(ImportError):
        from tqdm import tqdm

        tqdm.set_lock(RLock())


def measure_call(network: Network, tiles: Tensor) -> tuple[Tensor, float]:
    """Return the output on the CPU, and the median seconds of a call after the first."""
    out, times = network(tiles).cpu(), []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        network(tiles).cpu()
        times.append(time.perf_counter() - start)
    return out, statistics.median(times)
