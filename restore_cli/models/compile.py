"""Blocks of a network through PyTorch's compiler, kept where they are found to be right and faster."""

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

__all__ = ["compile_where_it_pays"]

ROUNDS = 3
"""Calls of which the median counts."""

AGREEMENT = 55.0
"""PSNR between a compiled network's output and its own, dB: what any other rounding may cost."""

VARIANTS = 64
"""Kinds of block that may be compiled: widths, heads, shifts and sizes, each its own."""


def compile_where_it_pays(network: Network, shape: tuple[int, int, int, int], folder: Path) -> str:
    """Compiles the network for batches of that shape, or leaves it as it is; says which, and what was measured.

    What the compiler writes stays in `folder`, for the next run.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))  # PyTorch's own would be a guessable name in /tmp
    lock_bars_by_threads()
    tiles = torch.rand(shape)
    try:
        expected, plain = timed(network, tiles)
        network.has_compiled_blocks = True
        for block in network.module.modules():
            if isinstance(block, network.blocks):
                block.compile(dynamic=False)
        network.compiled = shape[-2:]
        start = time.perf_counter()
        with torch._dynamo.config.patch(recompile_limit=VARIANTS):
            network(tiles)
        spent = time.perf_counter() - start
        found, compiled = timed(network, tiles)
    except Exception as error:  # many kinds: the compiler's own, Triton's, no C++ compiler, no memory for such a tile
        network.compiled = None
        reason = str(error).strip().splitlines() or [""]
        return f"--compile: not compiled, {type(error).__name__}: {reason[0][:200]}"
    agreement = float(-10 * torch.log10((found - expected).square().mean().clamp_min(1e-20)))
    share = compiled / plain
    if share >= 1 or not agreement > AGREEMENT:
        network.compiled = None
        why = (
            f"compiled tiles took {share:.2f} times as long" if share >= 1 else f"{agreement:.0f} dB is another picture"
        )
        return f"--compile: left as it was, {why}"
    return f"--compile: compiled in {spent:.0f} s, tiles take {share:.2f} of the time"


def lock_bars_by_threads() -> None:
    """The compiler asks for tqdm's lock; its own is shared by processes, and stays behind where one ends at once."""
    with suppress(ImportError):
        from tqdm import tqdm

        tqdm.set_lock(RLock())


def timed(network: Network, tiles: Tensor) -> tuple[Tensor, float]:
    """The result on the CPU, and the seconds of a call that is not the first."""
    out, times = network(tiles).cpu(), []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        network(tiles).cpu()
        times.append(time.perf_counter() - start)
    return out, statistics.median(times)
