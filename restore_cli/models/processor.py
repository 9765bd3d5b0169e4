"""Finds the cores and cgroup limits of this process, and configures its threads and its heap."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from pathlib import Path

from restore_cli.system import count_granted_cores, read_address_space_limit

__all__ = [
    "cgroup_folders",
    "count_cores",
    "keep_freed_memory",
    "read_numbers",
    "release_freed_memory",
    "use_granted_cores",
]

CGROUPS = Path("/sys/fs/cgroup")
MMAP_MAX, TRIM_THRESHOLD, ARENA_MAX = -4, -1, -8
"""Parameters of glibc's mallopt, from malloc.h."""


def cgroup_folders(controller: str, root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and its parents, of cgroup v1 and v2. Each may set a limit."""
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers
        inside = top / group.strip("/")
        yield from (folder for folder in (inside, *inside.parents) if folder.is_dir() and folder.is_relative_to(top))


def read_numbers(folder: Path, *names: str) -> list[int | None]:
    """Return the numbers in the files that exist, with None for words such as `max`."""
    words = [word for name in names if (folder / name).is_file() for word in (folder / name).read_text().split()]
    return [int(word) if word.lstrip("-").isdecimal() else None for word in words]


def count_cores(folders: Iterable[Path] | None = None) -> int:
    """Return how many cores this process may use, by its CPU affinity and the quotas of its cgroups."""
    count = count_granted_cores()
    for folder in cgroup_folders("cpu") if folders is None else folders:
        quota, period, *_ = [*read_numbers(folder, "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"), None, None]
        if quota and period and quota > 0:
            count = min(count, ceil(quota / period))
    return max(1, count)


def use_granted_cores() -> None:
    """Give PyTorch no more threads than there are cores for this process.

    Only the command's processes call this: a program that imports the package chooses its own number of threads.
    """
    import torch  # takes seconds, and every command imports this module at its start

    if "OMP_NUM_THREADS" not in os.environ and count_cores() < torch.get_num_threads():
        torch.set_num_threads(count_cores())


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of asking the kernel for each anew, which clears them page by page.

    Only the command's processes call this, before they start threads: a program that imports the package chooses how
    its own heap works.

    Without this, allocating feature maps beyond 32 MiB takes half of the time of a tile of 256 px. It is not done under
    `ulimit -v`, where kept blocks count as address space, which oneDNN needs for the code that it generates. There, all
    threads share one heap, because each further heap claims 64 MiB of address space and returns none.
    """
    if not (mallopt := find_glibc_function("mallopt")):
        return
    if read_address_space_limit() is not None:
        mallopt(ARENA_MAX, 1)
    else:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)


def release_freed_memory() -> None:
    """Return the memory that `keep_freed_memory` has kept to the system."""
    if trim := find_glibc_function("malloc_trim"):
        trim(0)


def find_glibc_function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None if it has no such function."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
