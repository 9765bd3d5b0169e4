"""What differs between operating systems: signals, locks, limits and the names of files.

Only this module uses modules and functions that some systems lack.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

try:
    import fcntl
    import resource
except ImportError:  # Windows
    HAS_UNIX_MODULES = False
else:
    HAS_UNIX_MODULES = True

__all__ = [
    "SIGNALS",
    "block_signals",
    "count_granted_cores",
    "ignore_signals",
    "ignores_case",
    "is_reserved_name",
    "lock_file",
    "locks_by_opening",
    "read_address_space_limit",
    "use_slashes",
]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that ask a process to end. Windows has no SIGHUP."""

RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
"""File names that mean a device on Windows, with any suffix."""


@contextmanager
def block_signals() -> Iterator[None]:
    """Let SIGNALS wait while the block runs. A process that starts meanwhile begins with them blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Ignore SIGNALS from now on, also those that `block_signals` of the parent process has made wait."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def lock_file(file: IO[bytes]) -> None:
    """Lock an open file until it is closed. Raises OSError if another process has locked it, or if it cannot be locked.

    Without locks this does nothing: such a system refuses to remove a file that is open.
    """
    if HAS_UNIX_MODULES:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def locks_by_opening() -> bool:
    """Whether the system refuses to rename or remove an open file, as Windows does."""
    return sys.platform == "win32"


def read_address_space_limit() -> int | None:
    """Return the bytes of address space that `ulimit -v` grants, or None without a limit."""
    if not HAS_UNIX_MODULES:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def count_granted_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_slashes(path: str) -> str:
    """Return a path whose folders are separated by slashes, which Windows accepts too."""
    return path.replace("\\", "/") if sys.platform == "win32" and "://" not in path else path


def is_reserved_name(name: str) -> bool:
    """Whether this file name means a device on Windows, which keeps nothing that is written to it."""
    return sys.platform == "win32" and RESERVED_NAMES.fullmatch(name) is not None


@lru_cache(4096)
def ignores_case(folder: str) -> bool:
    """Whether names that differ only in their case are one file in this folder, as on Windows and macOS.

    A missing folder is like the folder that it will be made in. Without a letter in its path the answer is no.
    """
    path = Path(folder)
    with suppress(OSError):
        while not path.exists() and path != path.parent:
            path = path.parent
        return path.samefile(str(path).swapcase()) and str(path) != str(path).swapcase()
    return False
