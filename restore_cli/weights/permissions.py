"""Checks whether other users of this machine can put files into a folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISLNK, S_IWOTH

__all__ = ["explain_unsafe_folder"]


def explain_unsafe_folder(folder: Path) -> str | None:
    """Return the reason why other users may control the content of `folder`, or None if it is safe or missing."""
    if not hasattr(os, "geteuid"):  # this system does not use these permissions
        return None
    ours = {0, os.geteuid()}
    path = folder.absolute()
    for part in (path, *path.parents):
        with suppress(OSError):
            facts = part.lstat()
            if S_ISLNK(facts.st_mode) and facts.st_uid not in ours:
                return f"{part} is a link that belongs to another user"
    with suppress(OSError):
        facts = path.stat()
        if facts.st_mode & S_IWOTH:
            return "every user of this machine may write to it"
        if facts.st_uid not in ours and path.parent.stat().st_mode & S_IWOTH:
            return f"another user made it in {path.parent}, where every user may"
    return None
