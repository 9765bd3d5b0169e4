"""Who hears of a run, and what each writes: lines, JSON objects, a log."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TextIO

from restore_cli.cli.console import PipeClosed, complain, note, plain, say_json
from restore_cli.cli.own_files import refuse_other_content
from restore_cli.cli.tally import MOST, Tally, pictures
from restore_cli.errors import OutputError
from restore_cli.jobs.types import Result
from restore_cli.special_files import find_descriptor

__all__ = ["AtHand", "Json", "Lines", "Log", "Report", "Reports", "as_json", "summary"]


class Report:
    """Hears everything, says nothing."""

    def total(self, count: int) -> None:
        """There are so many inputs."""

    def begin(self, path: str) -> None:
        """Work on a picture begins."""

    def tile(self, done: int, total: int) -> None:
        """So many of its tiles are restored."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def result(self, result: Result) -> None:
        """What became of a picture."""

    def stopping(self, count: int) -> None:
        """Somebody asked to stop; so many pictures are being finished."""

    def end(self, tally: Tally) -> None:
        """No more will come."""


class Reports(Report):
    """Several of them."""

    def __init__(self, parts: Iterable[Report]) -> None:
        self.parts = tuple(parts)

    def total(self, count: int) -> None:
        for part in self.parts:
            part.total(count)

    def begin(self, path: str) -> None:
        for part in self.parts:
            part.begin(path)

    def tile(self, done: int, total: int) -> None:
        for part in self.parts:
            part.tile(done, total)

    def note(self, text: str) -> None:
        for part in self.parts:
            part.note(text)

    def result(self, result: Result) -> None:
        for part in self.parts:
            part.result(result)

    def stopping(self, count: int) -> None:
        for part in self.parts:
            part.stopping(count)

    def end(self, tally: Tally) -> None:
        for part in self.parts:
            part.end(tally)


class AtHand(Report):
    """Which pictures are being restored."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def __len__(self) -> int:
        return len(self.paths)

    def begin(self, path: str) -> None:
        self.paths.add(path)

    def result(self, result: Result) -> None:
        self.paths.discard(result.input)


class Lines(Report):
    """A line for each picture, what failed once more at the end, and the counts."""

    def __init__(self, say: Callable[[str], None] | None, named: Collection[str], quiet: bool) -> None:
        """`say` is None where something else stands on standard output; skipped files are told if they are `named`."""
        self.say, self.named, self.quiet = say, frozenset(named), quiet

    def note(self, text: str) -> None:
        if not self.quiet:
            note(text)

    def result(self, result: Result) -> None:
        if result.error is not None:
            complain(result.error)
        elif self.quiet:
            return
        elif result.status == "skipped":
            if result.input in self.named:
                note(f"{result.input} → {result.output}: {result.notes[0]}")
        elif self.say is not None:
            self.say(f"{result.input} → {result.output}  ({how(result)})")

    def stopping(self, count: int) -> None:
        note(f"stopping: finishing {pictures(count)}; Ctrl-C again stops at once")  # they wait for an answer, if quiet

    def end(self, tally: Tally) -> None:
        few = tally.total < 2 and not tally.passed.linked_folders
        if self.quiet or few or isinstance(tally.ended, PipeClosed):
            return
        if tally.errors:
            note(f"failed: {tally.failed} of {tally.total}")
            for text in tally.errors:
                note(f"  {text}")
            if tally.failed > MOST:
                note(f"  and {tally.failed - MOST} more")
        note(str(tally))


class Json(Report):
    """An object for each picture on standard output, the summary last, each as soon as it is known."""

    def result(self, result: Result) -> None:
        say_json(as_json(result))

    def end(self, tally: Tally) -> None:
        if not isinstance(tally.ended, PipeClosed):
            say_json({"summary": summary(tally)})


LOG_START = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")


def open_log(path: Path) -> TextIO:
    """Open the log to add lines at its end; a stream is written where it is. Raises OSError, OutputError.

    A pipe is opened only if a program reads from it. Otherwise the run would wait for one.
    """
    descriptor = find_descriptor(path)
    if descriptor is None:
        refuse_other_content("--log", path, LOG_START, "log of restore")
        number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        os.set_blocking(number, True)
    else:
        number = os.dup(descriptor)
    return os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape", buffering=1)


class Log(Report):
    """Lines with their time, appended to a file. Raises OutputError where that cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            self.path, self.file = path, open_log(path)
        except OSError as error:
            reason = "no program reads from it" if error.errno == errno.ENXIO else error.strerror
            raise OutputError(f"--log {path}: cannot be written: {reason}", "--log with another file") from None
        self.broken = False
        self.line("start", shlex.join(["restore", *sys.argv[1:]]))

    def line(self, word: str, text: str) -> None:
        """One event; a log that cannot be written any more is given up, the run goes on."""
        if self.broken:
            return
        try:
            self.file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {word} {plain(text)}\n")
        except OSError as error:
            self.broken = True
            note(f"--log {self.path}: {error.strerror}; it ends here, the run goes on")

    def note(self, text: str) -> None:
        self.line("note", text)

    def result(self, result: Result) -> None:
        if result.error is not None:
            self.line("failed", str(result.error))
        elif result.status == "skipped":
            self.line("skipped", f"{result.input} → {result.output}  ({'; '.join(result.notes)})")
        else:
            self.line(result.status, f"{result.input} → {result.output}  ({how(result)})")

    def stopping(self, count: int) -> None:
        self.line("stopping", f"finishing {pictures(count)}")

    def end(self, tally: Tally) -> None:
        if tally.ended is not None:
            self.line("note", str(tally.ended))
        self.line("end", f"exit code {tally.code}; {tally}")
        if not self.broken:
            self.file.close()


def how(result: Result) -> str:
    """What a picture was restored with, its size now, its time, and what was of note."""
    width, height = result.size or (0, 0)
    return "; ".join((f"{result.model}, {width}×{height} px, {result.seconds:.1f} s", *result.notes))


def as_json(result: Result) -> dict[str, Any]:
    """The object of one picture."""
    return {
        "input": result.input,
        "output": result.output,
        "status": result.status,
        "seconds": round(result.seconds, 3),
        "size": result.size,
        "model": result.model,
        "sha256": result.sha256,
        "tile": result.tile,
        "precision": result.precision,
        "notes": result.notes,
        "error": None if result.error is None else str(result.error),
    }


def summary(tally: Tally) -> dict[str, Any]:
    """What the last object says."""
    return {
        "done": tally.done,
        "skipped": tally.skipped,
        "failed": tally.failed,
        "passed_over": {name: getattr(tally.passed, name) for name in ("hidden", "others", "linked_folders")},
        "megapixels": round(tally.pixels / 1e6, 3),
        "seconds": round(tally.seconds, 3),
        "exit_code": tally.code,
        "error": None if tally.ended is None else str(tally.ended),
    }
