"""Which files a person means by the paths they typed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from restore_cli.errors import NothingToDo

__all__ = ["Input", "collect"]


@dataclass(frozen=True)
class Input:
    """A file to restore, and the folder that was named to find it (its own where the file itself was named)."""

    path: Path
    root: Path

    @property
    def relative(self) -> Path:
        """Where the file lies in the folder that was named."""
        return self.path.relative_to(self.root)


def collect(paths: Iterable[Path], suffixes: Collection[str]) -> list[Input]:
    """Named files as they are, and the images of named folders and their sub-folders, in natural order, each once.

    In folders hidden files and files of other suffixes are passed over. Named files are not looked at: what is wrong
    with one is said when its turn comes. Raises NothingToDo where the folders hold no image.
    """
    paths = list(paths)
    found = [item for path in paths for item in found_in(path, suffixes)]
    if not found:
        names = ", ".join(str(path) for path in paths)
        raise NothingToDo(f"no image in {names}: none of its files ends in {' '.join(suffixes)}")
    return list({item.path.absolute(): item for item in found}.values())


def found_in(path: Path, suffixes: Collection[str]) -> Iterator[Input]:
    """The images of one path."""
    if not path.is_dir():
        yield Input(path, path.parent)
        return
    visible = (p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts))
    images = (p for p in visible if p.suffix.lower() in suffixes and p.is_file())
    yield from (Input(p, path) for p in sorted(images, key=natural))


def natural(path: Path) -> tuple[tuple[str | int, ...], ...]:
    """A sorting key under which page2 comes before page10."""
    return tuple(
        (*(int(run) if run.isdecimal() else run.casefold() for run in re.split(r"(\d+)", part)), part)
        for part in path.parts
    )
