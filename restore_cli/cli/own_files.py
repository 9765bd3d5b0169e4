"""Protects other files from being replaced by logs and tables."""

from __future__ import annotations

import re
from pathlib import Path

from restore_cli.errors import OutputError

__all__ = ["refuse_other_content"]


def refuse_other_content(option: str, path: Path, start: re.Pattern[bytes], kind: str) -> None:
    """Raise OutputError if `path` is a file that does not start like a file of this kind."""
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return  # the reason is given when the file is written
    if head and not start.match(head):
        raise OutputError(f"{option} {path}: exists already and is not a {kind}", f"{option} with another file")
