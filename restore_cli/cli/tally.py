"""How a run went so far, in a few numbers, however many pictures it has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from restore_cli.errors import Interrupted, NothingToDo, OutputError, RestoreError
from restore_cli.jobs.paths import PassedOver
from restore_cli.jobs.types import Job, Result

__all__ = ["MOST", "Tally", "megapixels", "passed_over", "pictures", "spoken"]

MOST = 20
"""failures that are listed again at the end"""


@dataclass
class Tally:
    """Counts, and what ended the run."""

    passed: PassedOver = field(default_factory=PassedOver)
    done: int = 0
    planned: int = 0
    """of a dry run: would be restored"""
    skipped: int = 0
    failed: int = 0
    pixels: int = 0
    """of the inputs that were restored"""
    errors: list[str] = field(default_factory=list)
    """the first MOST"""
    codes: set[int] = field(default_factory=set)
    ended: Exception | None = None
    """what the run ended with, other than the last picture"""
    unprinted: OutputError | None = None
    """why lines for standard output are lost"""
    started: float = field(default_factory=time.monotonic)

    def add(self, result: Result) -> None:
        """One more."""
        if result.error is not None:
            self.failed += 1
            self.codes.add(result.error.code)
            if len(self.errors) < MOST:
                self.errors.append(str(result.error))
        elif result.status == "skipped":
            self.skipped += 1
        else:
            self.done += 1
            self.pixels += result.pixels

    def conclude(self, job: Job, stopped: bool) -> None:
        """No more will come; a job that watches is ended by a person, and well."""
        if self.ended is not None:
            return
        if job.watch:
            self.ended = self.unprinted
        elif stopped:
            self.ended = Interrupted(f"interrupted after {pictures(self.done)}", "the same command again goes on")
        elif not self.total and job.shard is not None:
            self.ended = NothingToDo(f"nothing to do: no input is of shard {job.shard[0]}/{job.shard[1]}")
        elif not self.done and not self.failed:
            self.ended = NothingToDo("nothing to do: every output is there already", hint="--overwrite")
        else:
            self.ended = self.unprinted

    @property
    def total(self) -> int:
        """Pictures so far."""
        return self.done + self.skipped + self.failed

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started

    @property
    def code(self) -> int:
        """The exit code: 0 where all went well, the failures' own where they have one and nothing was done, else 1."""
        if self.ended is not None:
            return int(getattr(self.ended, "code", RestoreError.code))
        if self.codes:
            return next(iter(self.codes)) if len(self.codes) == 1 and not (self.done or self.planned) else 1
        return 0

    def __str__(self) -> str:
        counts = f"{pictures(self.total)}: {self.done} done, {self.skipped} skipped, {self.failed} failed"
        return f"{counts}{passed_over(self.passed)}; {megapixels(self.pixels)} in {spoken(self.seconds)}"


def passed_over(passed: PassedOver) -> str:
    """What was found and is no input, where there is some, behind a semicolon."""
    found = f"; {passed.hidden} hidden, {passed.others} others passed over" if passed.hidden or passed.others else ""
    links = passed.linked_folders
    if not links:
        return found
    return f"{found}; {links} linked folder{'' if links == 1 else 's'} not followed (--follow-links)"


def megapixels(pixels: int) -> str:
    """With as many digits as a person wants to read."""
    return f"{pixels / 1e6:,.1f} MP" if pixels >= 1e7 else f"{pixels / 1e6:.2f} MP"


def spoken(seconds: float) -> str:
    """A time as people say it, in at most two units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, below, lesser in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // lesser} {below}"
    return f"{whole} s"


def pictures(count: int) -> str:
    """So many."""
    return "1 picture" if count == 1 else f"{count} pictures"
