"""Counts of a run, and its exit code."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from restore_cli.errors import Interrupted, NothingToDo, OutputError, RestoreError
from restore_cli.jobs.paths import IgnoredFiles
from restore_cli.jobs.types import Result, RunOptions

__all__ = [
    "MAX_LISTED_ERRORS",
    "RunStats",
    "count_images",
    "describe_ignored",
    "format_duration",
    "format_megapixels",
]

MAX_LISTED_ERRORS = 20
"""failures that are listed again at the end"""


@dataclass
class RunStats:
    """Counts the Results of a run."""

    ignored: IgnoredFiles = field(default_factory=IgnoredFiles)
    done: int = 0
    planned: int = 0
    """in a dry run: inputs that would be restored"""
    skipped: int = 0
    failed: int = 0
    pixels: int = 0
    """of the inputs that were restored"""
    errors: list[str] = field(default_factory=list)
    """the first MAX_LISTED_ERRORS"""
    codes: set[int] = field(default_factory=set)
    ended: Exception | None = None
    """the error that ended the run"""
    unprinted: OutputError | None = None
    """why lines of standard output are lost"""
    started: float = field(default_factory=time.monotonic)

    def add(self, result: Result) -> None:
        """Count a Result."""
        if result.error is not None:
            self.failed += 1
            self.codes.add(result.error.code)
            if len(self.errors) < MAX_LISTED_ERRORS:
                self.errors.append(str(result.error))
        elif result.status == "skipped":
            self.skipped += 1
        else:
            self.done += 1
            self.pixels += result.pixels

    def conclude(self, run: RunOptions, stopped: bool) -> None:
        """Set `ended` after the last Result. A run that watches folders always ends by an interrupt, and well."""
        if self.ended is not None:
            return
        if run.watch:
            self.ended = self.unprinted
        elif stopped:
            self.ended = Interrupted(f"interrupted after {count_images(self.done)}", "the same command again continues")
        elif not self.total and run.shard is not None:
            self.ended = NothingToDo(f"nothing to do: no input belongs to shard {run.shard[0]}/{run.shard[1]}")
        elif not self.done and not self.failed:
            self.ended = NothingToDo("nothing to do: every output exists already", hint="--overwrite")
        else:
            self.ended = self.unprinted

    @property
    def total(self) -> int:
        return self.done + self.skipped + self.failed

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def code(self) -> int:
        """The exit code: 0 if nothing failed.

        If nothing was restored and all failures have the same code, it is this code; otherwise it is 1.
        """
        if self.ended is not None:
            return int(getattr(self.ended, "code", RestoreError.code))
        if self.codes:
            return next(iter(self.codes)) if len(self.codes) == 1 and not (self.done or self.planned) else 1
        return 0

    def __str__(self) -> str:
        counts = f"{count_images(self.total)}: {self.done} done, {self.skipped} skipped, {self.failed} failed"
        speed = f"{format_megapixels(self.pixels)} in {format_duration(self.seconds)}"
        return f"{counts}{describe_ignored(self.ignored)}; {speed}"


def describe_ignored(ignored: IgnoredFiles) -> str:
    """Return what was found and is not an input as text that follows the counts."""
    found, links = "", ignored.linked_folders
    if ignored.hidden or ignored.others:
        found = f"; ignored: {ignored.hidden} hidden, {ignored.others} other files"
    if links:
        found += f"; {links} linked folder{'' if links == 1 else 's'} not followed (--follow-links)"
    return found


def format_megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:,.1f} MP" if pixels >= 1e7 else f"{pixels / 1e6:.2f} MP"


def format_duration(seconds: float) -> str:
    """Return a time in at most two units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, below, lesser in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // lesser} {below}"
    return f"{whole} s"


def count_images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
