"""What a person sees: results on standard output, everything else on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from restore_cli.errors import RestoreError
from restore_cli.weights.entry import Entry

__all__ = ["Downloads", "Tiles", "complain", "note", "say", "say_table"]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


live: list[Progress] = []
"""the bar that is on the screen, if any"""


def say(text: str) -> None:
    """A line of results; a bar on the same screen makes room for it."""
    bars = live if out.is_terminal else []
    for bar in bars:
        bar.stop()
    out.print(escape(text))
    for bar in bars:
        bar.start()


def say_table(table: object) -> None:
    """A rich table, as wide as it needs to be where nobody looks."""
    out.print(table, width=None if out.is_terminal else 200)


def note(text: str) -> None:
    """A line about what is going on."""
    err.print(escape(text), style="dim")


def complain(error: RestoreError) -> None:
    """The one line of a failure."""
    err.print(f"[red]restore:[/red] {escape(' '.join(str(error).split()))}")


class Downloads:
    """A progress bar for each checkpoint that is fetched, with its licence where that is not plainly free."""

    def __init__(self, find: Callable[[str], Entry], quiet: bool) -> None:
        self.find, self.quiet = find, quiet
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.told: set[str] = set()

    def start(self, name: str, total: int | None) -> None:
        """A transfer begins."""
        self.tell(name)
        if self.quiet or not err.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.bar = Progress(*columns, TimeRemainingColumn(), console=err, transient=True)
        self.task = self.bar.add_task(escape(f"fetching {name}"), total=total)
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
        if self.bar is not None:
            self.bar.advance(self.task, n)

    def finish(self) -> None:
        """The transfer ended."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class Tiles:
    """A progress bar for the picture at hand, where somebody looks."""

    def __init__(self, bar: Progress | None) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=None, visible=False) if bar else TaskID(0)

    def picture(self, path: str) -> None:
        """Work on an input begins."""
        if self.bar:
            self.bar.reset(self.task, description=escape(path), total=None, visible=True)

    def tile(self, done: int, total: int) -> None:
        """So many tiles are restored."""
        if self.bar:
            self.bar.update(self.task, completed=done, total=total)


@contextmanager
def tiles(quiet: bool) -> Iterator[Tiles]:
    """The bar of tiles while pictures are restored."""
    if quiet or not err.is_terminal:
        yield Tiles(None)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} tiles"))
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as bar:
        live.append(bar)
        try:
            yield Tiles(bar)
        finally:
            live.remove(bar)
