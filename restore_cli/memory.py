"""How much memory there is, how much a model takes, and the tile that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from math import ceil, isqrt
from pathlib import Path

import torch

from restore_cli.contract import Model
from restore_cli.models.processor import cgroups, numbers, release_freed_memory
from restore_cli.tiling.plan import Tiling

__all__ = ["WORTH_MEASURING", "available", "peak", "tiling_for"]

PROBES = 64, 96
"""Sides of the two tiles that are measured, px."""

WORTH_MEASURING = 4 * max(PROBES)
"""Sides from which a tile is much larger than those."""

SHARE = 0.8
"""Of the memory at hand, what a model may take: rows of the picture and the allocator want some, too."""

PROC = Path("/proc")


def tiling_for(model: Model, wish: Tiling, side: int, device: torch.device, memory: int | None = None) -> Tiling:
    """As much of the wish as fits into `memory` bytes and into what is at hand, for a picture of `side` px.

    A line through the peaks of two small tiles says how many px fit. A tile that is not much larger than those is
    not worth measuring where nobody asks; neither is anything where the system does not tell.
    """
    contract = model.contract
    wish = wish.fitted(contract)
    whole = min(wish.tile or side, side)
    if memory is None and whole * wish.batch < WORTH_MEASURING:
        return wish
    sides = [contract.grid * ceil(max(probe, contract.minimum) / contract.grid) for probe in PROBES]
    tiles = [torch.rand(1, contract.channels, side, side) for side in sides]
    peaks = [peak(partial(model, tile), device) for tile in tiles]
    room = available(device)
    if room is None or peaks[0] is None or peaks[1] is None or sides[0] == sides[1]:
        return wish
    slope = max(1.0, (peaks[1] - peaks[0]) / (sides[1] ** 2 - sides[0] ** 2))
    most = min(SHARE * room, memory or room)
    pixels = max(1, int(sides[1] ** 2 + (most - peaks[1]) / slope))
    batch = max(1, min(wish.batch, pixels // whole**2))
    if whole**2 <= pixels:
        return replace(wish, batch=batch)
    return replace(wish, tile=isqrt(pixels), overlap=wish.overlap or contract.overlap, batch=1).fitted(contract)


def peak(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that the call takes at most beyond what is held before it; None where the system does not tell."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        call()  # what is made once, at the first call, is not of the tile
        release_freed_memory()
        (PROC / "self/clear_refs").write_text("5")  # the highest mark sinks to what is held now
        before = field(PROC / "self/status", "VmRSS")
        call()
        return field(PROC / "self/status", "VmHWM") - before
    except OSError:
        return None


def available(device: torch.device) -> int | None:
    """Bytes that this process can still have there; None where the system does not tell."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if not (PROC / "meminfo").exists():
        return None
    return min([field(PROC / "meminfo", "MemAvailable"), *address_space(), *granted(cgroups("memory"))])


def address_space() -> Iterable[int]:
    """What `ulimit -v` leaves."""
    import resource  # Unix alone has it

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield max(0, limit - field(PROC / "self/status", "VmSize"))


def granted(folders: Iterable[Path]) -> Iterable[int]:
    """What each cgroup leaves; pages of files give way."""
    for folder in folders:
        limit, used, *_ = [*numbers(folder, "memory.max", "memory.limit_in_bytes"), None, None]
        used, *_ = [*numbers(folder, "memory.current", "memory.usage_in_bytes"), None]
        if limit is not None and used is not None:
            stat = folder / "memory.stat"
            yield max(0, limit - used + (field(stat, "inactive_file", 1) if stat.exists() else 0))


def field(path: Path, name: str, unit: int = 1024) -> int:
    """The number behind that name in a file of lines, in bytes. OSError where it is not there."""
    for line in path.read_text().splitlines():
        word, _, value = line.replace(":", " ").partition(" ")
        if word == name:
            return int(value.split()[0]) * unit
    raise OSError(f"{path}: has no {name}")
