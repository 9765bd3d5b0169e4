"""Paths that name an open stream, a device, a pipe or a socket instead of an ordinary file."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from restore_cli.errors import OutputError
from restore_cli.system import is_reserved_name

__all__ = ["find_descriptor", "refuse_special_file"]

MOST_LINKS = 40
KINDS = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def find_descriptor(path: str | Path) -> int | None:
    """Return the number of the open file that `path` names, such as 1 for /dev/stdout and /dev/fd/1, or None."""
    own = re.compile(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd")
    place = Path(path)
    with suppress(OSError, RuntimeError):  # the path is no link, or its links form a circle
        for _ in range(MOST_LINKS):
            place = place.parent.resolve() / place.name
            if own.fullmatch(str(place.parent)) and place.name.isdecimal():
                return int(place.name)
            place = place.parent / place.readlink()
    return None


def refuse_special_file(path: Path, option: str = "-o") -> None:
    """Raise OutputError if `path` is a device, a pipe, a socket or an open stream, which no new file can replace.

    An open stream is refused even if it writes to an ordinary file: what it has written there would be lost.
    """
    kind = "a device" if is_reserved_name(path.name) else None
    kind = "an open stream" if find_descriptor(path) is not None else kind
    with suppress(OSError):
        kind = kind or KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise OutputError(f"{path}: is {kind}, not an ordinary file", f"name a file with {option}")
