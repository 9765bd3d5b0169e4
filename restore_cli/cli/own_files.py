"""Files that are named for the program's own text. They never take the place of anything else."""

from __future__ import annotations

import re
from pathlib import Path

from restore_cli.errors import OutputError

__all__ = ["refuse_other_content"]


def refuse_other_content(option: str, path: Path, start: re.Pattern[bytes], kind: str) -> None:
    """Raise OutputError where `path` is a file whose content does not begin as a file of that kind does."""
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return  # the reason is given when the file is written
    if head and not start.match(head):
        raise OutputError(f"{option} {path}: is there already and is no {kind}", f"{option} with another file")
