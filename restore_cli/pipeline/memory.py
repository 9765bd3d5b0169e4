"""How much memory there is, how much a model takes, and the tile that fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import ceil, isqrt
from pathlib import Path

import torch
from torch import Tensor

from restore_cli.contract import Model
from restore_cli.errors import is_out_of_memory
from restore_cli.models.processor import cgroups, numbers
from restore_cli.tiling.geometry import Tiling

__all__ = ["demand", "free", "tiling_for"]

SHARE = 0.8
"""Of the memory at hand, what a model may take: rows of the picture and the allocator want some, too."""

SCRATCH = 16 * 2**20
"""Bytes that each thread of a CPU takes for what lies between two products."""

MODEST = 3 * 2**30
"""Bytes that a model takes of a GPU where nobody says how many: more at a time make it no faster."""

PROBES = 128, 256
"""Sides of the two tiles that are measured on a GPU, px."""

PROC = Path("/proc")


def tiling_for(model: Model, wish: Tiling, side: int, device: torch.device, memory: int | None = None) -> Tiling:
    """As much of the wish as fits into `memory` bytes and into what is at hand, for a picture of `side` px.

    Where the system does not tell and nobody asks, that is all of it. Where not even the probes fit, it is the smaller
    one of them: smaller tiles are tried when memory runs out again.
    """
    contract = model.contract
    wish = wish.fitted(contract)
    asked = MODEST if memory is None and device.type == "cuda" else memory
    limits = [limit for limit in (asked, free(device)) if limit is not None]
    if not limits:
        return wish
    try:
        constant, per_pixel = demand(model, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        least = min(PROBES[0], wish.tile or side)
        return replace(wish, tile=least, overlap=wish.overlap or contract.overlap, batch=1).fitted(contract)
    pixels = max(1, (min(limits) - constant) // per_pixel)
    whole = min(wish.tile or side, side)
    if whole**2 <= pixels:
        return replace(wish, batch=max(1, min(wish.batch, pixels // whole**2)))
    return replace(wish, tile=isqrt(pixels), overlap=wish.overlap or contract.overlap, batch=1).fitted(contract)


def demand(model: Model, device: torch.device) -> tuple[int, int]:
    """Bytes that a model takes whatever the tile, and for each px of it.

    A GPU counts what a tile takes: a line through two of them. A process on a CPU holds so much beside that its
    contract says more (decision 042).
    """
    contract = model.contract
    if device.type != "cuda":
        return SCRATCH * torch.get_num_threads(), 4 * contract.floats
    sides = [contract.grid * ceil(side / contract.grid) for side in PROBES]
    tiles = [torch.full((1, contract.channels, side, side), 0.5) for side in sides]
    model(tiles[0])  # makes what stays: room for the products, code
    small, large = (peak(model, tile, device) for tile in tiles)
    per_pixel = max(1, (large - small) // (sides[1] ** 2 - sides[0] ** 2))
    return max(0, large - per_pixel * sides[1] ** 2), per_pixel


def peak(model: Model, tile: Tensor, device: torch.device) -> int:
    """Bytes of a GPU that a tile takes at most."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    model(tile)
    return torch.cuda.max_memory_allocated(device) - before


def free(device: torch.device) -> int | None:
    """Bytes that a model may take there; None where the system does not tell."""
    room = available(device)
    return None if room is None else int(SHARE * room)


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
