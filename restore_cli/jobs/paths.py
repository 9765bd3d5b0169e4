"""Paths of inputs as text, here and elsewhere, and the words for what was named and found."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from restore_cli.errors import RestoreError

__all__ = ["Asked", "Input", "PassedOver", "absolute", "is_remote", "kept", "natural", "split"]


class Input(NamedTuple):
    """A file to restore. Paths are text: there may be millions of them."""

    path: str
    """as it was typed or found"""
    relative: str
    """where it lies under what was named; a result's tree keeps this"""
    home: str | None
    """the folder that was named to find it, if one was"""
    bytes: int = -1
    """-1 where the file cannot be looked at; what is wrong with it is said when its turn comes"""
    modified: int = 0
    """time of its last change, ns"""

    @property
    def file(self) -> Path:
        """Its path as one."""
        return Path(self.path)


@dataclass(frozen=True)
class Asked:
    """What was named."""

    paths: tuple[str, ...] = ()
    """files, folders and patterns"""
    listed: tuple[str, ...] | None = None
    """lines of a list; their tree is kept"""
    recursive: bool = True
    follow_links: bool = False
    """whether links to folders are followed"""

    @property
    def one_folder(self) -> bool:
        """Whether all inputs lie in one folder that was named."""
        return self.listed is None and len(self.paths) == 1 and os.path.isdir(self.paths[0])


@dataclass
class PassedOver:
    """What was found and is no input."""

    hidden: int = 0
    others: int = 0
    """of suffixes that are no image's; pipes and devices"""
    linked_folders: int = 0
    """links to folders that were not followed"""
    unreadable: list[RestoreError] = field(default_factory=list)
    """folders that cannot be looked into"""


def split(name: str) -> tuple[str, str]:
    """Stem and suffix of a file's name. As os.path.splitext, in a third of its time."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:]) if name[:dot].strip(".") and dot > 0 else (name, "")


def is_remote(path: str) -> bool:
    """Whether it is a URL and not a path of this machine."""
    return "://" in path


def kept(path: str) -> str:
    """The tree of a listed path: without its root, and without steps upwards."""
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def natural(text: str) -> str:
    """A sorting key under which page2 comes before page10, and capitals do not matter."""
    folded = re.sub(r"\d+", lambda run: f"{len(run[0].lstrip('0')):04d}{run[0].lstrip('0')}", text.casefold())
    return f"{folded}\0{text}"


def absolute(path: str) -> str:
    """The path from the root, its folder without links: one text for one file. A URL stays what it is."""
    if is_remote(path):
        return path
    folder, _, name = (path if path.startswith("/") else f"{os.getcwd()}/{path}").rpartition("/")
    return f"{real(folder)}/{name}"


@lru_cache(4096)
def real(folder: str) -> str:
    """An absolute folder without links, and "" for the root."""
    return os.path.realpath(folder).rstrip("/")
