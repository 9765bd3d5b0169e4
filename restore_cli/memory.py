"""How much memory there is, how much a model takes, and the tile that fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import isqrt
from pathlib import Path

import torch

from restore_cli.contract import Contract
from restore_cli.models.processor import cgroups, numbers
from restore_cli.tiling.plan import Tiling

__all__ = ["available", "scratch", "tiling_for"]

SHARE = 0.8
"""Of the memory at hand, what a model may take: rows of the picture and the allocator want some, too."""

SCRATCH = 16 * 2**20
"""Bytes that each thread takes for what lies between two products."""

PROC = Path("/proc")


def tiling_for(contract: Contract, wish: Tiling, side: int, device: torch.device, memory: int | None = None) -> Tiling:
    """As much of the wish as fits into `memory` bytes and into what is at hand, for a picture of `side` px.

    Where the system does not tell and nobody asks, that is all of it.
    """
    wish, room = wish.fitted(contract), available(device)
    limits = [int(SHARE * room)] if room is not None else []
    limits += [memory] if memory is not None else []
    if not limits:
        return wish
    pixels = max(1, (min(limits) - scratch(device)) // (4 * contract.floats))
    whole = min(wish.tile or side, side)
    if whole**2 <= pixels:
        return replace(wish, batch=max(1, min(wish.batch, pixels // whole**2)))
    return replace(wish, tile=isqrt(pixels), overlap=wish.overlap or contract.overlap, batch=1).fitted(contract)


def scratch(device: torch.device) -> int:
    """Bytes that a model takes whatever the tile."""
    return SCRATCH * torch.get_num_threads() if device.type == "cpu" else SCRATCH


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
