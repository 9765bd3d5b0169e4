"""Paths of inputs as text, local or remote, and the inputs that a user names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from restore_cli.errors import RestoreError
from restore_cli.system import ignores_case

__all__ = [
    "IgnoredFiles",
    "Input",
    "InputSpec",
    "canonicalize_path",
    "copy_times",
    "is_remote",
    "make_natural_key",
    "split_suffix",
    "strip_root",
]


FileState = tuple[int, int | str]
"""size in bytes; modification time in ns, or the tag that an object store gives to the contents"""


class Input(NamedTuple):
    """A file to restore. Paths are text, which needs less memory: there may be millions of them."""

    path: str
    """as it was typed or found"""
    relative: str
    """path below the folder that was named; the tree of the outputs keeps it"""
    root: str | None
    """the folder that was named, if one was"""
    bytes: int = -1
    """-1 if the file cannot be read; the error is reported when the file is opened"""
    modified: int | str = 0
    """modification time in ns, or the tag that an object store gives to the contents"""

    @property
    def file(self) -> Path:
        """The path as a Path."""
        return Path(self.path)


@dataclass(frozen=True)
class InputSpec:
    """The inputs that the user names."""

    paths: tuple[str, ...] = ()
    """files, folders and patterns"""
    listed: tuple[str, ...] | None = None
    """paths from a list; the outputs keep their tree"""
    recursive: bool = True
    follow_links: bool = False
    """whether linked folders are searched"""

    @property
    def one_folder(self) -> bool:
        """Whether all inputs are in one folder that was named."""
        return self.listed is None and len(self.paths) == 1 and os.path.isdir(self.paths[0])


@dataclass
class IgnoredFiles:
    """Counts of what was found and is not an input."""

    hidden: int = 0
    others: int = 0
    """files without the suffix of an image, pipes, devices"""
    linked_folders: int = 0
    """links to folders that were not followed"""
    unreadable: dict[str, RestoreError] = field(default_factory=dict)
    """the errors of folders that cannot be read, by their paths"""


def split_suffix(name: str) -> tuple[str, str]:
    """Return the stem and the suffix of a file name, as os.path.splitext does, in a third of its time."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:]) if name[:dot].strip(".") and dot > 0 else (name, "")


def is_remote(path: str) -> bool:
    """Whether this is a URL and not a path of this machine."""
    return "://" in path


def strip_root(path: str) -> str:
    """Return a path as a relative path without upward steps."""
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def make_natural_key(text: str) -> str:
    """Return a key that sorts page2 before page10 and ignores case."""
    folded = re.sub(r"\d+", lambda run: f"{len(run[0].lstrip('0')):04d}{run[0].lstrip('0')}", text.casefold())
    return f"{folded}\0{text}"


def copy_times(source: str, path: str) -> tuple[str, ...]:
    """Set the times of a file to those of another file. Return a note if that fails, because `path` is complete."""
    try:
        facts = os.stat(source)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    except OSError as error:
        return (f"its time is not that of the input: {error.strerror}",)
    return ()


def canonicalize_path(path: str) -> str:
    """Return an absolute path whose folder has no links, so that each file has one path. URLs stay unchanged.

    Where file names ignore case, so does the returned path.
    """
    if is_remote(path):
        return path
    folder, _, name = (path if os.path.isabs(path) else f"{os.getcwd()}/{path}").rpartition("/")
    real = resolve_folder(folder)
    whole = f"{real}/{name}"
    return whole.casefold() if ignores_case(real or "/") else whole


@lru_cache(4096)
def resolve_folder(folder: str) -> str:
    """Return the real path of an absolute folder, "" for the root."""
    return os.path.realpath(folder).replace(os.sep, "/").rstrip("/")
