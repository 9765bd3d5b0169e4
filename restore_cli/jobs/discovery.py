"""Finds the input files that paths, folders, patterns and lists name."""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from stat import S_ISREG

from restore_cli.errors import ImageError, NothingToDo, OutputError
from restore_cli.jobs.paths import (
    IgnoredFiles,
    Input,
    InputSpec,
    canonicalize_path,
    is_remote,
    make_natural_key,
    split_suffix,
    strip_root,
)
from restore_cli.system import use_slashes

__all__ = ["Search", "collect_inputs", "is_inside"]

REQUESTS = 16
"""requests for the state of listed files that run at the same time"""


@dataclass(frozen=True)
class Search:
    """Finds the inputs of an InputSpec."""

    spec: InputSpec
    suffixes: Collection[str]
    ignored: IgnoredFiles = field(default_factory=IgnoredFiles)
    """counts what is found and is not an input"""
    excluded: str | None = None
    """a folder that is not searched: that of the outputs"""

    def find_groups(self) -> Iterator[list[Input]]:
        """Yield the inputs in natural order, each once, in groups within which outputs may get the same name.

        If one folder was named, the files of each sub-folder are a group, so that a million files never have to be in
        memory at once. Otherwise everything is one group. Files that are named or listed are inputs whatever their
        suffix is.
        """
        spec = self.spec
        if spec.one_folder:
            yield from self.walk(use_slashes(spec.paths[0]))
            return
        found = chain.from_iterable(map(self.find_path, map(use_slashes, spec.paths)))
        listed = make_listed_inputs([use_slashes(path) for path in spec.listed or ()])
        unique: dict[str, Input] = {}
        for item in chain(found, listed):
            unique.setdefault(canonicalize_path(item.path), item)
        yield list(unique.values())

    def find_path(self, path: str) -> Iterable[Input]:
        """Return the inputs of one path: those of a folder, a file, or the matches of a pattern."""
        if is_remote(path):
            from restore_cli.jobs.storage import list_remote

            try:
                return list_remote(path, self.suffixes, self.spec.recursive, self.ignored, self.excluded)
            except ImageError as error:
                self.ignored.unreadable[path] = error
                return []
        if os.path.isdir(path):
            return chain.from_iterable(self.walk(path))
        if os.path.lexists(path) or not glob.has_magic(path):
            return [make_named_input(path, os.path.basename(path))]
        root = re.split(r"[*?[]", path, maxsplit=1)[0].rpartition("/")[0]
        search = replace(self, spec=replace(self.spec, recursive=True), ignored=IgnoredFiles())
        matches = {match for match in search.expand_pattern(path) if not os.path.isdir(match)}
        images = [match for match in matches if os.path.splitext(match)[1].lower() in self.suffixes]
        return [
            make_named_input(use_slashes(match), use_slashes(os.path.relpath(match, root or ".")))
            for match in sorted(images, key=make_natural_key)
        ]

    def expand_pattern(self, pattern: str) -> Iterator[str]:
        """Yield the matches of a pattern. ** matches the folders that `walk` searches."""
        pattern = f"{pattern}/*" if pattern == "**" or pattern.endswith("/**") else pattern
        stars = re.search(r"(?<![^/])\*\*/", pattern)
        if stars is None:
            yield from glob.iglob(pattern)
            return
        head, rest = pattern[: stars.start()], pattern[stars.end() :]
        for root in glob.iglob(head) if head else [""]:
            for prefix, _ in self.walk_folders(root):
                yield from self.expand_pattern(glob.escape(root + prefix) + rest)

    def walk(self, root: str) -> Iterator[list[Input]]:
        """Yield the images of a folder, then those of each folder in it."""
        for prefix, files in self.walk_folders(root):
            inputs = [make_entry_input(found, prefix + found.name, root) for found in files]
            self.ignored.others += inputs.count(None)
            if group := [item for item in inputs if item is not None]:
                yield group

    def walk_folders(self, root: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
        """Yield each folder as its path below `root` (empty, or with a slash at the end) and its images.

        Linked folders come last, if they are followed. Each folder comes once, however many links lead to it.
        """
        pruned = os.path.realpath(self.excluded) if self.excluded is not None else None
        waiting, linked = [("", root)], deque[tuple[str, str]]()
        seen: set[tuple[int, int]] = set()
        while waiting or linked:
            prefix, folder = waiting.pop() if waiting else linked.popleft()
            try:
                if self.spec.follow_links and not is_first(folder, seen):
                    continue
                files, folders, links = self.sorted_entries(folder or ".")
            except OSError as error:
                self.ignored.unreadable[folder] = ImageError(f"{folder}: cannot be read: {error.strerror}")
                continue
            yield prefix, files
            below = [(f"{prefix}{name}/", use_slashes(os.path.join(folder, name))) for name in reversed(folders)]
            waiting += [pair for pair in below if pruned is None or os.path.realpath(pair[1]) != pruned]
            ahead = [(f"{prefix}{name}/", use_slashes(os.path.join(folder, name))) for name in links]
            linked += [pair for pair in ahead if pruned is None or not is_inside(pair[1], pruned)]

    def sorted_entries(self, folder: str) -> tuple[list[os.DirEntry[str]], list[str], list[str]]:
        """Return the images, folders and linked folders of a folder that are searched. Count all other entries."""
        files, folders, links = [], [], []
        with os.scandir(folder) as entries:
            for found in entries:
                name = found.name
                if name.startswith("."):
                    self.ignored.hidden += 1
                elif found.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif found.is_symlink() and os.path.isdir(found.path):
                    links.append(name)
                elif split_suffix(name)[1].lower() not in self.suffixes:
                    self.ignored.others += 1
                else:
                    files.append(found)
        files.sort(key=lambda found: make_natural_key(found.name))
        if not self.spec.recursive:
            return files, [], []
        if not self.spec.follow_links:
            self.ignored.linked_folders += len(links)
            links = []
        return files, sorted(folders, key=make_natural_key), sorted(links, key=make_natural_key)


def collect_inputs(path: Path, suffixes: Collection[str]) -> list[Input]:
    """Return all inputs of a file or a folder. Raises NothingToDo if the folder contains no image."""
    found = [item for group in Search(InputSpec((str(path),)), suffixes).find_groups() for item in group]
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
    """Whether a folder is `other` or is inside it. `other` must be a real path."""
    return f"{os.path.realpath(folder)}/".startswith(f"{other.rstrip('/')}/")


def make_entry_input(found: os.DirEntry[str], relative: str, root: str) -> Input | None:
    """Return the entry of a folder as an Input, or None for pipes and devices."""
    path = use_slashes(found.path)
    try:
        facts = found.stat()
    except OSError:
        return Input(path, relative, root)
    return Input(path, relative, root, facts.st_size, facts.st_mtime_ns) if S_ISREG(facts.st_mode) else None


def make_listed_inputs(paths: Sequence[str]) -> Iterator[Input]:
    """Yield the files of a list. Each remote one takes a request, of which several run at a time."""
    if not any(map(is_remote, paths)):
        yield from (make_named_input(path, strip_root(path)) for path in paths)
        return
    with ThreadPoolExecutor(REQUESTS) as pool:
        yield from pool.map(make_named_input, paths, map(strip_root, paths))


def make_named_input(path: str, relative: str) -> Input:
    """Return a named file as an Input. Raises StorageError."""
    try:
        if is_remote(path):
            from restore_cli.jobs.storage import read_remote_state

            return Input(path, relative, None, *(read_remote_state(path) or ()))
        facts = os.stat(path)
    except (OSError, ValueError, ImageError, OutputError):
        return Input(path, relative, None)
    return Input(path, relative, None, facts.st_size, facts.st_mtime_ns)
