"""Reporters of a run: lines for people, JSON objects for programs, a log file."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol, TextIO

from restore_cli.cli.console import PipeClosed, complain, escape_controls, note, say_json
from restore_cli.cli.own_files import refuse_other_content
from restore_cli.cli.run_stats import MAX_LISTED_ERRORS, RunStats, count_images
from restore_cli.errors import OutputError
from restore_cli.jobs.events import Event, Note, PictureFinished, StopRequested
from restore_cli.jobs.types import Result
from restore_cli.special_files import find_descriptor

__all__ = ["Json", "Lines", "Log", "Reporter", "result_to_json", "stats_to_json"]


class Reporter(Protocol):
    """Writes what happens during a run."""

    def handle(self, event: Event) -> None:
        """Write an event, if this reporter writes events of its kind. Raises OutputError, PipeClosed."""

    def finish(self, stats: RunStats) -> None:
        """Write the summary at the end of the run."""


class Lines:
    """Writes one line for each input, and at the end the failures again and the counts."""

    def __init__(self, say: Callable[[str], None] | None, named: Collection[str], quiet: bool) -> None:
        """`say` is None if standard output is used for something else. Skipped inputs are shown if they are `named`."""
        self.say, self.named, self.quiet = say, frozenset(named), quiet

    def handle(self, event: Event) -> None:
        """Write notes and results; with --quiet only errors."""
        match event:
            case PictureFinished(result):
                self.write_result(result)
            case StopRequested(count):  # also if quiet, because the user waits for an answer
                note(f"stopping: finishing {count_images(count)}; Ctrl-C again stops at once")
            case Note(text) if not self.quiet:
                note(text)

    def write_result(self, result: Result) -> None:
        """Write one line: errors and skipped inputs to standard error, results with `say`."""
        if result.error is not None:
            complain(result.error)
        elif self.quiet:
            return
        elif result.status == "skipped":
            if result.input in self.named:
                note(f"{result.input} → {result.output}: {result.notes[0]}")
        elif self.say is not None:
            self.say(f"{result.input} → {result.output}  ({describe_result(result)})")

    def finish(self, stats: RunStats) -> None:
        """Write the failures and the counts, if there was more than one input."""
        few = stats.total < 2 and not stats.ignored.linked_folders
        if self.quiet or few or isinstance(stats.ended, PipeClosed):
            return
        if stats.errors:
            note(f"failed: {stats.failed} of {stats.total}")
            for text in stats.errors:
                note(f"  {text}")
            if stats.failed > MAX_LISTED_ERRORS:
                note(f"  and {stats.failed - MAX_LISTED_ERRORS} more")
        note(str(stats))


class Json:
    """Writes one JSON object for each input on standard output, and the summary as the last object."""

    def handle(self, event: Event) -> None:
        """Write results at once."""
        if isinstance(event, PictureFinished):
            say_json(result_to_json(event.result))

    def finish(self, stats: RunStats) -> None:
        """Write the summary."""
        if not isinstance(stats.ended, PipeClosed):
            say_json({"summary": stats_to_json(stats)})


LOG_START = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")


def open_log(path: Path) -> TextIO:
    """Open the log for appending. For the path of a standard stream, use that stream. Raises OSError, OutputError.

    A pipe is opened only if a program reads from it. Otherwise the run would wait for one.
    """
    descriptor = find_descriptor(path)
    if descriptor is None:
        refuse_other_content("--log", path, LOG_START, "log of restore")
        unblocked = getattr(os, "O_NONBLOCK", 0)
        number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | unblocked, 0o666)
        if unblocked:
            os.set_blocking(number, True)
    else:
        number = os.dup(descriptor)
    return os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape", buffering=1)


class Log:
    """Appends lines with their time to a file. Raises OutputError if it cannot be opened or is no log."""

    def __init__(self, path: Path) -> None:
        try:
            self.path, self.file = path, open_log(path)
        except OSError as error:
            reason = "no program reads from it" if error.errno == errno.ENXIO else error.strerror
            raise OutputError(f"--log {path}: cannot be written: {reason}", "--log with another file") from None
        self.broken = False
        self.write("start", shlex.join(["restore", *sys.argv[1:]]))

    def write(self, kind: str, text: str) -> None:
        """Append one line. After an error of the file the run continues without the log."""
        if self.broken:
            return
        try:
            self.file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {kind} {escape_controls(text)}\n")
        except OSError as error:
            self.broken = True
            note(f"--log {self.path}: {error.strerror}; the log ends here, the run continues")

    def handle(self, event: Event) -> None:
        """Append notes, results and the request to stop."""
        match event:
            case PictureFinished(result):
                self.write_result(result)
            case StopRequested(count):
                self.write("stopping", f"finishing {count_images(count)}")
            case Note(text):
                self.write("note", text)

    def write_result(self, result: Result) -> None:
        """Append the line of one input."""
        if result.error is not None:
            self.write("failed", str(result.error))
        elif result.status == "skipped":
            self.write("skipped", f"{result.input} → {result.output}  ({'; '.join(result.notes)})")
        else:
            self.write(result.status, f"{result.input} → {result.output}  ({describe_result(result)})")

    def finish(self, stats: RunStats) -> None:
        """Append the exit code and the counts, and close the file."""
        if stats.ended is not None:
            self.write("note", str(stats.ended))
        self.write("end", f"exit code {stats.code}; {stats}")
        if not self.broken:
            self.file.close()


def describe_result(result: Result) -> str:
    """Return the model, the output size, the time and the notes of a Result."""
    width, height = result.size or (0, 0)
    model = f"{result.model} ({result.architecture})" if result.architecture else result.model
    return "; ".join((f"{model}, {width}×{height} px, {result.seconds:.1f} s", *result.notes))


def result_to_json(result: Result) -> dict[str, Any]:
    return {
        "input": result.input,
        "output": result.output,
        "status": result.status,
        "seconds": round(result.seconds, 3),
        "size": result.size,
        "model": result.model,
        "architecture": result.architecture,
        "sha256": result.sha256,
        "tile": result.tile,
        "precision": result.precision,
        "notes": result.notes,
        "error": None if result.error is None else str(result.error),
    }


def stats_to_json(stats: RunStats) -> dict[str, Any]:
    """Return the summary object of a run."""
    return {
        "done": stats.done,
        "skipped": stats.skipped,
        "failed": stats.failed,
        "passed_over": {name: getattr(stats.ignored, name) for name in ("hidden", "others", "linked_folders")},
        "megapixels": round(stats.pixels / 1e6, 3),
        "seconds": round(stats.seconds, 3),
        "exit_code": stats.code,
        "error": None if stats.ended is None else str(stats.ended),
    }
