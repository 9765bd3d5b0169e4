"""What a person sees: results on standard output, everything else on standard error."""

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

from restore_cli.cli.standard import Guarded, silence
from restore_cli.errors import OutputError, RestoreError
from restore_cli.weights.entry import Entry

__all__ = [
    "Downloads",
    "PipeClosed",
    "above",
    "complain",
    "err",
    "note",
    "out",
    "plain",
    "reading",
    "say",
    "say_json",
    "say_table",
    "shows",
    "unwritable",
]


class PipeClosed(Exception):
    """Nobody reads standard output any more."""

    code = 141
    """what a shell shows for a program that SIGPIPE has ended"""


class Screen(Console):
    """A console that leaves it to the caller what to do when nobody reads."""

    def on_broken_pipe(self) -> None:
        """Raises PipeClosed."""
        raise PipeClosed


class Messages(Console):
    """A console for messages, which are dropped where nobody can read them."""

    @property
    def file(self) -> IO[str]:
        """Standard error, whose failures stop nothing."""
        return cast("IO[str]", Guarded(super().file))

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file


STYLES: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"

# Without emoji=False rich would show the name a:b:c.png as a🅱c.png.
out = Screen(highlight=False, soft_wrap=True, color_system=STYLES, emoji=False)
err = Messages(stderr=True, highlight=False, soft_wrap=True, color_system=STYLES, emoji=False)

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move the cursor, break the line, or change the order in which a terminal shows the others."""


def plain(text: str) -> str:
    """Return `text` with an escape in place of each control character, which the name of a file may contain."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def shows() -> bool:
    """Whether somebody looks at standard error, on a screen on which lines can be drawn again."""
    return err.is_terminal and not err.is_dumb_terminal and not os.environ.get("NO_COLOR")


@contextmanager
def reading() -> Iterator[None]:
    """Raises PipeClosed where nobody reads what is written, OutputError where it cannot be."""
    try:
        yield
    except BrokenPipeError:
        raise PipeClosed from None
    except OSError as error:
        raise unwritable(error) from None


def unwritable(error: OSError) -> OutputError:
    """What to say where standard output takes no more."""
    silence()
    return OutputError(f"standard output: cannot be written: {error.strerror}")


def say(text: str) -> None:
    """A line of results, at once."""
    with reading():
        sys.stdout.write(f"{plain(text)}\n")
        sys.stdout.flush()


def say_json(value: dict[str, Any]) -> None:
    """Write an object as one line of ASCII, so that names of any bytes pass through any locale."""
    with reading():
        sys.stdout.write(f"{json.dumps(value)}\n")
        sys.stdout.flush()


def above(text: str) -> None:
    """A line of results above what is drawn live on the same screen."""
    err.print(escape(plain(text)))


def say_table(table: object) -> None:
    """A rich table, as wide as it needs to be where nobody looks."""
    with reading():
        out.print(table, width=None if out.is_terminal else 200)


def note(text: str) -> None:
    """A line about what is going on."""
    err.print(escape(plain(text)), style="dim")


def complain(error: RestoreError) -> None:
    """The one line of a failure."""
    err.print(f"[red]restore:[/red] {escape(plain(str(error)))}")


class Downloads:
    """What is being fetched, with its licence; a bar of its own unless a display shows it."""

    def __init__(self, find: Callable[[str], Entry], quiet: bool, displayed: bool = False) -> None:
        self.find, self.quiet, self.displayed = find, quiet, displayed
        self.bar: Progress | None = None
        self.name: str | None = None
        """of the checkpoint that is on its way"""
        self.done, self.total = 0, 0
        self.told: set[str] = set()

    def start(self, name: str, total: int | None) -> None:
        """A transfer begins."""
        self.tell(name)
        self.name, self.done, self.total = name, 0, total or 0
        if self.quiet or self.displayed or not shows():
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.bar = Progress(*columns, TimeRemainingColumn(), console=err, transient=True)
        self.bar.add_task(escape(plain(f"fetching {name}")), total=total)
        self.bar.start()

    def tell(self, name: str) -> None:
        """Say once what is fetched, and under which terms; terms are said even when quiet."""
        if name in self.told:
            return
        self.told.add(name)
        entry = self.find(name)
        if not self.quiet:
            size = f" ({entry.bytes / 1e6:.1f} MB)" if entry.bytes else ""
            note(f"fetching {name}{size}, licence {entry.license}")
        if entry.license_note:
            note(f"{name}: {entry.license_note}")

    def advance(self, n: int) -> None:
        """`n` more bytes."""
        self.done += n
        if self.bar is not None:
            self.bar.advance(self.bar.task_ids[0], n)

    def passed_over(self, name: str, why: str) -> None:
        """Say once that a source failed and that the next one is tried."""
        if not self.quiet and (line := f"{name}: passed over {why}") not in self.told:
            self.told.add(line)
            note(line)

    def finish(self) -> None:
        """The transfer ended."""
        self.name = None
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
