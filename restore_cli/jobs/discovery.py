"""Which files a person means by what they typed: files, folders, patterns, lists."""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from stat import S_ISREG

from restore_cli.errors import ImageError, NothingToDo
from restore_cli.jobs.paths import Asked, Input, PassedOver, absolute, is_remote, kept, natural, split

__all__ = ["Search", "collect"]


@dataclass(frozen=True)
class Search:
    """Looks for what was named."""

    asked: Asked
    suffixes: Collection[str]
    passed: PassedOver = field(default_factory=PassedOver)
    without: str | None = None
    """a folder that is not looked into: that of the outputs"""

    def groups(self) -> Iterator[list[Input]]:
        """The inputs in natural order, each once, in groups within which outputs may share a name.

        Of one folder the files of each sub-folder are a group, so that a million of them never have to be held at
        once; everything else that was named is one group. Named and listed files are inputs whatever they are called.
        """
        asked = self.asked
        if asked.one_folder:
            yield from self.walk(asked.paths[0])
            return
        found = chain.from_iterable(self.named(path) for path in asked.paths)
        listed = (entry(path, kept(path)) for path in asked.listed or ())
        unique: dict[str, Input] = {}
        for item in chain(found, listed):
            unique.setdefault(absolute(item.path), item)
        yield list(unique.values())

    def named(self, path: str) -> Iterable[Input]:
        """The inputs of one path that was typed: a folder's, a file, or what a pattern means."""
        if is_remote(path):
            from restore_cli.jobs.storage import list_remote

            try:
                return list_remote(path, self.suffixes, self.asked.recursive, self.passed)
            except ImageError as error:
                self.passed.unreadable.append(error)
                return []
        if os.path.isdir(path):
            return chain.from_iterable(self.walk(path))
        if os.path.lexists(path) or not glob.has_magic(path):
            return [entry(path, os.path.basename(path))]
        root = re.split(r"[*?[]", path, maxsplit=1)[0].rpartition("/")[0]
        search = replace(self, asked=replace(self.asked, recursive=True), passed=PassedOver())
        matches = {match for match in search.matches(path) if not os.path.isdir(match)}
        images = [match for match in matches if os.path.splitext(match)[1].lower() in self.suffixes]
        return [entry(match, os.path.relpath(match, root or ".")) for match in sorted(images, key=natural)]

    def matches(self, pattern: str) -> Iterator[str]:
        """What a pattern names. A ** goes into the folders that `walk` goes into."""
        pattern = f"{pattern}/*" if pattern == "**" or pattern.endswith("/**") else pattern
        stars = re.search(r"(?<![^/])\*\*/", pattern)
        if stars is None:
            yield from glob.iglob(pattern)
            return
        head, rest = pattern[: stars.start()], pattern[stars.end() :]
        for root in glob.iglob(head) if head else [""]:
            for prefix, _ in self.folders(root):
                yield from self.matches(glob.escape(root + prefix) + rest)

    def walk(self, root: str) -> Iterator[list[Input]]:
        """The images of a folder, then those of each folder in it."""
        for prefix, files in self.folders(root):
            inputs = [looked_at(found, prefix + found.name, root) for found in files]
            self.passed.others += inputs.count(None)
            if group := [item for item in inputs if item is not None]:
                yield group

    def folders(self, root: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
        """The folder and each one in it: its path below `root`, which is empty or ends in a slash, and its images.

        Linked folders come last, where they are followed, and no folder comes twice, however many links lead to it.
        """
        pruned = os.path.realpath(self.without) if self.without is not None else None
        waiting, linked = [("", root)], deque[tuple[str, str]]()
        seen: set[tuple[int, int]] = set()
        while waiting or linked:
            prefix, folder = waiting.pop() if waiting else linked.popleft()
            try:
                if self.asked.follow_links and not is_first(folder, seen):
                    continue
                files, folders, links = self.sorted_entries(folder or ".")
            except OSError as error:
                self.passed.unreadable.append(ImageError(f"{folder}: cannot be looked into: {error.strerror}"))
                continue
            yield prefix, files
            below = [(f"{prefix}{name}/", os.path.join(folder, name)) for name in reversed(folders)]
            waiting += [pair for pair in below if pruned is None or os.path.realpath(pair[1]) != pruned]
            ahead = [(f"{prefix}{name}/", os.path.join(folder, name)) for name in links]
            linked += [pair for pair in ahead if pruned is None or not is_inside(pair[1], pruned)]

    def sorted_entries(self, folder: str) -> tuple[list[os.DirEntry[str]], list[str], list[str]]:
        """Images of a folder, and the folders and linked folders in it to look into. What else there is, is counted."""
        files, folders, links = [], [], []
        with os.scandir(folder) as entries:
            for found in entries:
                name = found.name
                if name.startswith("."):
                    self.passed.hidden += 1
                elif found.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif found.is_symlink() and os.path.isdir(found.path):
                    links.append(name)
                elif split(name)[1].lower() not in self.suffixes:
                    self.passed.others += 1
                else:
                    files.append(found)
        files.sort(key=lambda found: natural(found.name))
        if not self.asked.recursive:
            return files, [], []
        if not self.asked.follow_links:
            self.passed.linked_folders += len(links)
            links = []
        return files, sorted(folders, key=natural), sorted(links, key=natural)


def collect(path: Path, suffixes: Collection[str]) -> list[Input]:
    """All inputs of one file or folder. Raises NothingToDo where the folder holds no image."""
    found = [item for group in Search(Asked((str(path),)), suffixes).groups() for item in group]
    if not found:
        raise NothingToDo(f"no image in {path}: none of its files ends in {' '.join(suffixes)}")
    return found


def is_first(folder: str, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder was not seen before, under any name. Raises OSError."""
    facts = os.stat(folder or ".")
    if (facts.st_dev, facts.st_ino) in seen:
        return False
    seen.add((facts.st_dev, facts.st_ino))
    return True


def is_inside(folder: str, other: str) -> bool:
    """Whether a folder is another one, or in it. `other` has no links."""
    return f"{os.path.realpath(folder)}/".startswith(f"{other.rstrip('/')}/")


def looked_at(found: os.DirEntry[str], relative: str, home: str) -> Input | None:
    """A folder's entry as an Input; None for pipes and devices."""
    try:
        facts = found.stat()
    except OSError:
        return Input(found.path, relative, home)
    return Input(found.path, relative, home, facts.st_size, facts.st_mtime_ns) if S_ISREG(facts.st_mode) else None


def entry(path: str, relative: str) -> Input:
    """A named file as an Input."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return Input(path, relative, None)
    return Input(path, relative, None, facts.st_size, facts.st_mtime_ns)
