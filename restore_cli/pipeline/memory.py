"""Finds how much memory is free, how much a model takes, and the tile that fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import ceil, isqrt
from pathlib import Path

import torch
from torch import Tensor

from restore_cli.contract import Model
from restore_cli.errors import is_out_of_memory
from restore_cli.models.processor import cgroup_folders, read_numbers
from restore_cli.system import read_address_space_limit
from restore_cli.tiling.geometry import Tiling

__all__ = ["fit_tiling", "measure_demand", "usable_memory"]

SHARE = 0.8
"""Share of the free memory that a model may take. Rows of the picture and the allocator need the rest."""

SCRATCH = 16 * 2**20
"""Bytes that each CPU thread takes for intermediate results between two matrix products."""

GPU_DEFAULT = 3 * 2**30
"""Bytes that a model takes of a GPU by default. More do not make it faster."""

PROBES = 128, 256
"""Sides of the two tiles that measure a model on a GPU, px."""

PROC = Path("/proc")


def fit_tiling(model: Model, wanted: Tiling, side: int, device: torch.device, memory: int | None = None) -> Tiling:
    """Reduce the wanted tiling to what fits into `memory` bytes and into free memory, for a picture of `side` px.

    Without a limit, on a system that does not report its memory, the tiling stays. If a probe does not fit, the tile
    is that of the smaller probe; smaller ones are tried when memory runs out again.
    """
    contract = model.contract
    wanted = wanted.fitted(contract)
    limit = GPU_DEFAULT if memory is None and device.type == "cuda" else memory
    limits = [bytes for bytes in (limit, usable_memory(device)) if bytes is not None]
    if not limits:
        return wanted
    try:
        constant, per_pixel = measure_demand(model, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        least = min(PROBES[0], wanted.tile or side)
        return replace(wanted, tile=least, overlap=wanted.overlap or contract.overlap, batch=1).fitted(contract)
    pixels = max(1, (min(limits) - constant) // per_pixel)
    whole = min(wanted.tile or side, side)
    if whole**2 <= pixels:
        return replace(wanted, batch=max(1, min(wanted.batch, pixels // whole**2)))
    return replace(wanted, tile=isqrt(pixels), overlap=wanted.overlap or contract.overlap, batch=1).fitted(contract)


def measure_demand(model: Model, device: torch.device) -> tuple[int, int]:
    """Return the bytes that a model takes for any tile, and the bytes per px of the tile.

    On a GPU the peaks of two tiles are measured. On a CPU the process holds too much else to measure them, so the
    numbers come from the contract (decision 042).
    """
    contract = model.contract
    if device.type != "cuda":
        return SCRATCH * torch.get_num_threads(), 4 * contract.activation_floats_per_px
    sides = [contract.tile_multiple * ceil(side / contract.tile_multiple) for side in PROBES]
    tiles = [torch.full((1, contract.channels, side, side), 0.5) for side in sides]
    model(tiles[0])  # allocates what stays: workspaces, code
    small, large = (measure_peak(model, tile, device) for tile in tiles)
    per_pixel = max(1, (large - small) // (sides[1] ** 2 - sides[0] ** 2))
    return max(0, large - per_pixel * sides[1] ** 2), per_pixel


def measure_peak(model: Model, tile: Tensor, device: torch.device) -> int:
    """Return the most bytes of the GPU that the model held while it restored the tile."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    model(tile)
    return torch.cuda.max_memory_allocated(device) - before


def usable_memory(device: torch.device) -> int | None:
    """Return the bytes that a model may take on a device, or None if the system does not report its memory."""
    room = free_memory(device)
    return None if room is None else int(SHARE * room)


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process can still allocate there, or None if the system does not report them."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if not (PROC / "meminfo").exists():
        return None
    return min(
        [read_field(PROC / "meminfo", "MemAvailable"), *free_address_space(), *cgroup_memory(cgroup_folders("memory"))]
    )


def free_address_space() -> Iterable[int]:
    """Yield the bytes that `ulimit -v` leaves, if it is set."""
    limit = read_address_space_limit()
    if limit is not None:
        yield max(0, limit - read_field(PROC / "self/status", "VmSize"))


def cgroup_memory(folders: Iterable[Path]) -> Iterable[int]:
    """Yield the bytes that each cgroup leaves. Cached file pages count as free."""
    for folder in folders:
        limit, used, *_ = [*read_numbers(folder, "memory.max", "memory.limit_in_bytes"), None, None]
        used, *_ = [*read_numbers(folder, "memory.current", "memory.usage_in_bytes"), None]
        if limit is not None and used is not None:
            stat = folder / "memory.stat"
            yield max(0, limit - used + (read_field(stat, "inactive_file", 1) if stat.exists() else 0))


def read_field(path: Path, name: str, unit: int = 1024) -> int:
    """Return the number after `name` in a file of lines, times `unit`. Raises OSError if the name is missing."""
    for line in path.read_text().splitlines():
        word, _, value = line.replace(":", " ").partition(" ")
        if word == name:
            return int(value.split()[0]) * unit
    raise OSError(f"{path}: has no line {name}")
