"""What this process was given of the machine, and how it is used: cores, cgroups, the heap."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from pathlib import Path

__all__ = ["cgroups", "cores", "keep_freed_memory", "numbers", "release_freed_memory", "use_granted_cores"]

CGROUPS = Path("/sys/fs/cgroup")
MMAP_MAX, TRIM_THRESHOLD, ARENA_MAX = -4, -1, -8
"""Parameters of glibc's mallopt, from malloc.h."""


def cgroups(controller: str, root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[Path]:
    """The folders of this process's cgroup and of those around it, of both versions; each may set a limit."""
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers
        inside = top / group.strip("/")
        yield from (folder for folder in (inside, *inside.parents) if folder.is_dir() and folder.is_relative_to(top))


def numbers(folder: Path, *names: str) -> list[int | None]:
    """The numbers in those of the files that are there, None for a word like `max`."""
    words = [word for name in names if (folder / name).is_file() for word in (folder / name).read_text().split()]
    return [int(word) if word.lstrip("-").isdecimal() else None for word in words]


def cores(folders: Iterable[Path] | None = None) -> int:
    """Cores that this process may use at a time: by its affinity, and by the time that its cgroups grant."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in cgroups("cpu") if folders is None else folders:
        quota, period, *_ = [*numbers(folder, "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"), None, None]
        if quota and period and quota > 0:
            count = min(count, ceil(quota / period))
    return max(1, count)


def use_granted_cores() -> None:
    """Give PyTorch no more threads than there are cores for this process.

    Only the command's processes call this: a program that imports the package chooses its own number of threads.
    """
    import torch  # takes seconds, and every command imports this module at its start

    if "OMP_NUM_THREADS" not in os.environ and cores() < torch.get_num_threads():
        torch.set_num_threads(cores())


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of asking the kernel for each anew, which clears them page by page.

    Only the command's processes call this, before they start threads: a program that imports the package chooses how
    its own heap works.

    Without this, feature maps beyond 32 MiB take half of the time of a tile of 256 px. Not under `ulimit -v`: a kept
    block still counts as address space, and oneDNN wants some for the code that it writes. There all threads share
    one heap, because each heap of their own claims 64 MiB of it and gives none back.
    """
    if not (mallopt := glibc("mallopt")):
        return
    if address_space_is_limited():
        mallopt(ARENA_MAX, 1)
    else:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)


def address_space_is_limited() -> bool:
    """Whether `ulimit -v` is set."""
    if sys.platform == "win32":
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def release_freed_memory() -> None:
    """Give back what `keep_freed_memory` has kept."""
    if trim := glibc("malloc_trim"):
        trim(0)


def glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library, where it has it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
