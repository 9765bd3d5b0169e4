"""How a run went so far, in a few numbers, however many pictures it has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from restore_cli.errors import Interrupted, NothingToDo, RestoreError
from restore_cli.inputs import PassedOver
from restore_cli.work import Result

__all__ = ["MOST", "Tally", "spoken"]

MOST = 20
"""failures that are listed again at the end"""


@dataclass
class Tally:
    """Counts, and what ended the run."""

    passed: PassedOver = field(default_factory=PassedOver)
    done: int = 0
    skipped: int = 0
    failed: int = 0
    pixels: int = 0
    """of the inputs that were restored"""
    errors: list[str] = field(default_factory=list)
    """the first MOST"""
    codes: set[int] = field(default_factory=set)
    ended: Exception | None = None
    """what the run ended with, other than the last picture"""
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

    def conclude(self, stopped: bool, endless: bool) -> None:
        """No more will come. An endless run is one that only a person stops."""
        if self.ended is not None:
            return
        if stopped and not endless:
            self.ended = Interrupted(f"stopped after {self.done} pictures", hint="the same command again goes on")
        elif not self.done and not self.failed and not endless:
            self.ended = NothingToDo("nothing to do: every output is there already", hint="--overwrite")

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
            return next(iter(self.codes)) if len(self.codes) == 1 and not self.done else 1
        return 0

    def __str__(self) -> str:
        counts = f"{self.total} pictures: {self.done} done, {self.skipped} skipped, {self.failed} failed"
        passed = f"{self.passed.hidden} hidden and {self.passed.others} other files passed over"
        return f"{counts}; {passed}; {self.pixels / 1e6:.1f} MP in {spoken(self.seconds)}"


def spoken(seconds: float) -> str:
    """A time as people say it, in at most two units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, below, lesser in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // lesser} {below}"
    return f"{whole} s"
