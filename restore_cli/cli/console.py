"""Output of the commands: results on standard output, messages on standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from restore_cli.cli.standard_streams import TolerantStream, silence
from restore_cli.errors import OutputError, RestoreError
from restore_cli.jobs.events import Event
from restore_cli.weights.entry import Entry
from restore_cli.weights.progress import DownloadFinished, DownloadProgress, DownloadStarted, SourceFailed

__all__ = [
    "Downloads",
    "PipeClosed",
    "can_draw",
    "complain",
    "err",
    "escape_controls",
    "make_stdout_error",
    "note",
    "out",
    "say",
    "say_above_display",
    "say_json",
    "say_table",
    "translate_write_errors",
]


class PipeClosed(Exception):
    """The reader of standard output has ended."""

    code = 141
    """the exit code that a shell shows for a program that SIGPIPE has ended"""


class ResultConsole(Console):
    """A console for results. The caller handles the end of the reader."""

    def on_broken_pipe(self) -> None:
        """Raise PipeClosed."""
        raise PipeClosed


class MessageConsole(Console):
    """A console for messages. Messages that cannot be written are dropped."""

    @property
    def file(self) -> IO[str]:
        """Standard error, whose failures stop nothing."""
        return cast("IO[str]", TolerantStream(super().file))

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file


COLOR_SYSTEM: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"

# Without emoji=False rich would show the name a:b:c.png as a🅱c.png.
out = ResultConsole(highlight=False, soft_wrap=True, color_system=COLOR_SYSTEM, emoji=False)
err = MessageConsole(stderr=True, highlight=False, soft_wrap=True, color_system=COLOR_SYSTEM, emoji=False)

CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move the cursor, break the line, or change the order in which a terminal shows the others."""


def escape_controls(text: str) -> str:
    """Return `text` with an escape in place of each control character, which the name of a file may contain."""
    return CONTROL_CHARACTERS.sub(lambda found: repr(found[0])[1:-1], text)


def can_draw() -> bool:
    """Whether standard error is a terminal on which lines can be drawn again."""
    return err.is_terminal and not err.is_dumb_terminal and not os.environ.get("NO_COLOR")


@contextmanager
def translate_write_errors() -> Iterator[None]:
    """Raise PipeClosed if the reader of standard output has ended, OutputError if it cannot be written."""
    try:
        yield
    except BrokenPipeError:
        raise PipeClosed from None
    except OSError as error:
        raise make_stdout_error(error) from None


def make_stdout_error(error: OSError) -> OutputError:
    """Return the error for a standard output that cannot be written, and write no more to it."""
    silence()
    return OutputError(f"standard output: cannot be written: {error.strerror}")


def say(text: str) -> None:
    """Write a line of results and flush it."""
    with translate_write_errors():
        sys.stdout.write(f"{escape_controls(text)}\n")
        sys.stdout.flush()


def say_json(value: dict[str, Any]) -> None:
    """Write an object as one line of ASCII, so that file names of any bytes pass through any locale."""
    with translate_write_errors():
        sys.stdout.write(f"{json.dumps(value)}\n")
        sys.stdout.flush()


def say_above_display(text: str) -> None:
    """Write a line of results above the live display on the same terminal."""
    err.print(escape(escape_controls(text)))


def say_table(table: object) -> None:
    """Write a rich table. Its width is limited only on a terminal."""
    with translate_write_errors():
        out.print(table, width=None if out.is_terminal else 200)


def note(text: str) -> None:
    """Write a message about the progress of the run."""
    err.print(escape(escape_controls(text)), style="dim")


def complain(error: RestoreError) -> None:
    """Write the line of an error."""
    err.print(f"[red]restore:[/red] {escape(escape_controls(str(error)))}")


class Downloads:
    """Shows downloads and their licences, with a progress bar unless `displayed` says that a display has one."""

    def __init__(self, find: Callable[[str], Entry], quiet: bool, displayed: bool = False) -> None:
        self.find, self.quiet, self.displayed = find, quiet, displayed
        self.bar: Progress | None = None
        self.name: str | None = None
        """of the checkpoint that is being downloaded"""
        self.done, self.total = 0, 0
        self.told: set[str] = set()

    def handle(self, event: Event) -> None:
        """Show the state of a download."""
        match event:
            case DownloadStarted(name, total):
                self.start(name, total)
            case DownloadProgress(count):
                self.done += count
                if self.bar is not None:
                    self.bar.advance(self.bar.task_ids[0], count)
            case DownloadFinished():
                self.name = None
                if self.bar is not None:
                    self.bar.stop()
                    self.bar = None
            case SourceFailed(name, reason):
                if not self.quiet and (line := f"{name}: no download from {reason}") not in self.told:
                    self.told.add(line)
                    note(line)

    def start(self, name: str, total: int | None) -> None:
        """Show that a download starts, with a bar unless it is shown elsewhere."""
        self.announce(name)
        self.name, self.done, self.total = name, 0, total or 0
        if self.quiet or self.displayed or not can_draw():
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.bar = Progress(*columns, TimeRemainingColumn(), console=err, transient=True)
        self.bar.add_task(escape(escape_controls(f"fetching {name}")), total=total)
        self.bar.start()

    def announce(self, name: str) -> None:
        """Show once what is downloaded, and its licence terms. The terms are shown even with --quiet."""
        if name in self.told:
            return
        self.told.add(name)
        entry = self.find(name)
        if not self.quiet:
            size = f" ({entry.bytes / 1e6:.1f} MB)" if entry.bytes else ""
            note(f"fetching {name}{size}, licence {entry.license}")
        if entry.license_note:
            note(f"{name}: {entry.license_note}")
