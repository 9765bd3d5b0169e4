"""The live display of a run: a few lines that are drawn again several times a second."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.cells import cell_len, chop_cells
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from restore_cli.cli.console import Downloads, err, escape_controls
from restore_cli.cli.run_stats import RunStats, format_duration
from restore_cli.jobs.events import Event, InputsCounted, PictureFinished, PictureStarted, StopRequested, TileDone

__all__ = ["Display", "shorten", "show_display"]


Row = tuple[Text, ProgressBar, Text]
"""what, how much of it, and a number"""


class Display:
    """Draws the progress of all images and of the current one, speed, time left, memory, failures."""

    def __init__(self, downloads: Downloads, device: str) -> None:
        self.downloads, self.device = downloads, device
        self.count: int | None = None
        self.stats = RunStats()
        self.is_stopping = False
        self.in_flight: dict[str, None] = {}
        self.tiles = (0, 0)
        self.model = ""
        self.started: float | None = None
        """time at which the first image started"""

    def handle(self, event: Event) -> None:
        """Take over what the next drawing shows."""
        match event:
            case InputsCounted(count):
                self.count = count
            case PictureStarted(path):
                if self.started is None:
                    self.started = time.monotonic()
                self.in_flight[path] = None
                self.tiles = (0, 0)
            case TileDone(done, total):
                self.tiles = (done, total)
            case PictureFinished(result):
                self.stats.add(result)
                self.in_flight.pop(result.input, None)
                self.model = result.model or self.model
            case StopRequested():
                self.is_stopping = True

    def handle_alone(self, event: Event) -> None:
        """Do as `handle`, but show only the image that started last. For runs that do not report finished images."""
        if isinstance(event, PictureStarted):
            self.in_flight.clear()
            self.started, self.count = None, 1
        self.handle(event)

    def render(self) -> RenderableType:
        """Return what the terminal shows now."""
        rows = Table.grid(expand=True, padding=(0, 1))
        rows.add_column(no_wrap=True)
        rows.add_column(ratio=1)
        rows.add_column(no_wrap=True, justify="right")
        if self.count != 1:
            rows.add_row(*self.make_overall_row())
        if self.downloads.name is not None:
            rows.add_row(*self.make_download_row(self.downloads.name))
        elif self.in_flight:
            rows.add_row(*self.make_picture_row(list(self.in_flight)))
        facts = Text(" · ".join(self.describe_state()), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(rows, facts)

    def make_overall_row(self) -> Row:
        done, total, left = self.stats.total, self.count, self.estimate_remaining()
        ends = "stopping" if self.is_stopping else "" if left is None else f"{format_duration(left)} left"
        return Text(f"{done}/{total}" if total else f"{done}"), make_progress_bar(done, total), Text(ends)

    def make_picture_row(self, names: list[str]) -> Row:
        """Return the image that started last with its tiles, and how many others are being written."""
        done, total = self.tiles
        others = f" +{len(names) - 1}" if len(names) > 1 else ""
        name = shorten(escape_controls(names[-1]), err.width // 2 - len(others)) + others
        ends = f"tile {done}/{total}" if total > 1 else ""
        return Text(name), make_progress_bar(done, total if total > 1 else None), Text(ends)

    def make_download_row(self, name: str) -> Row:
        done, total = self.downloads.done, self.downloads.total
        ends = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        title = shorten(escape_controls(f"fetching {name}"), err.width // 2)
        return Text(title), make_progress_bar(done, total), Text(ends)

    def describe_state(self) -> Iterator[str]:
        """Yield the parts of the last line."""
        if self.started is not None and self.stats.pixels:
            yield f"{self.stats.pixels / 1e6 / (time.monotonic() - self.started):.2f} MP/s"
        if self.count == 1 and (left := self.estimate_remaining()) is not None:
            yield f"{format_duration(left)} left"
        if self.stats.failed:
            yield f"{self.stats.failed} failed"
        if self.stats.skipped:
            yield f"{self.stats.skipped} skipped"
        if self.started is not None and (used := describe_memory(self.device)):  # torch is loaded by then
            yield used
        if self.model:
            yield escape_controls(self.model)

    def estimate_remaining(self) -> float | None:
        """Return the seconds until the end, if the other images take as long as those so far; None if unknown."""
        if self.started is None or self.count is None:
            return None
        part = self.tiles[0] / self.tiles[1] if self.tiles[1] and self.in_flight else 0.0
        restored = self.stats.done + max(0, len(self.in_flight) - 1) + part
        if not restored:
            return None
        return (time.monotonic() - self.started) / restored * max(0.0, self.count - self.stats.total - part)


@contextmanager
def show_display(display: Display, live: bool) -> Iterator[None]:
    """Show the display while the block runs. Other lines of standard error appear above it."""
    if not live:
        yield
        return
    with Live(console=err, get_renderable=display.render, refresh_per_second=5, transient=True, redirect_stdout=False):
        yield


def make_progress_bar(done: int, total: int | None) -> ProgressBar:
    """Return a bar. If the total is not known, it moves to and fro."""
    return ProgressBar(
        total or None,
        completed=min(done, total or done),
        pulse=not total,
        complete_style="cyan",
        finished_style="cyan",
        pulse_style="cyan",
    )


def shorten(text: str, width: int) -> str:
    """Return the text, or an ellipsis and its end, in at most `width` cells."""
    if cell_len(text) <= width:
        return text
    tail = chop_cells(text[::-1], max(1, width - 1))[0]
    return f"…{tail[::-1]}"


def describe_memory(device: str) -> str:
    """Return the used memory of the GPUs that --device names, or of this process if it uses no GPU."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    names = {name.strip() for name in device.split(",")}
    gpus = [None if name == "auto" else name for name in names if name == "auto" or name.startswith("cuda")]
    if gpus and cuda is not None and cuda.is_initialized():
        free, total = map(sum, zip(*map(cuda.mem_get_info, gpus), strict=True))
        return f"GPU {(total - free) / 2**30:.1f}/{total / 2**30:.0f} GiB"
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, AttributeError, ValueError):  # other systems
        return ""
    return f"memory {pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
