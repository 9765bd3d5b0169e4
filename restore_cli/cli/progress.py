"""The live display of a run, drawn again a few times a second from what was counted."""

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

from restore_cli.cli.console import Downloads, err, plain
from restore_cli.cli.report import Report
from restore_cli.cli.tally import Tally, spoken
from restore_cli.jobs.types import Result

__all__ = ["Display", "displayed", "shortened"]


Row = tuple[Text, ProgressBar, Text]
"""what, how far, and a number"""


class Display(Report):
    """All pictures, the one at hand with its tiles, speed, time left, memory, failures."""

    def __init__(self, downloads: Downloads, device: str) -> None:
        self.downloads, self.device = downloads, device
        self.count: int | None = None
        self.tally = Tally()
        self.ending = False
        self.at_hand: dict[str, None] = {}
        self.tiles = (0, 0)
        self.model = ""
        self.begun: float | None = None
        """when work on the first picture began"""

    def total(self, count: int) -> None:
        self.count = count

    def begin(self, path: str) -> None:
        if self.begun is None:
            self.begun = time.monotonic()
        self.at_hand[path] = None
        self.tiles = (0, 0)

    def only(self, path: str) -> None:
        """Work on a picture begins, where nobody tells of its result."""
        self.at_hand.clear()
        self.begun, self.count = None, 1
        self.begin(path)

    def tile(self, done: int, total: int) -> None:
        self.tiles = (done, total)

    def stopping(self, count: int) -> None:
        self.ending = True

    def result(self, result: Result) -> None:
        self.tally.add(result)
        self.at_hand.pop(result.input, None)
        self.model = result.model or self.model

    def render(self) -> RenderableType:
        """What the screen shows now."""
        rows = Table.grid(expand=True, padding=(0, 1))
        rows.add_column(no_wrap=True)
        rows.add_column(ratio=1)
        rows.add_column(no_wrap=True, justify="right")
        if self.count != 1:
            rows.add_row(*self.overall())
        if self.downloads.name is not None:
            rows.add_row(*self.download(self.downloads.name))
        elif self.at_hand:
            rows.add_row(*self.picture(list(self.at_hand)))
        facts = Text(" · ".join(self.facts()), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(rows, facts)

    def overall(self) -> Row:
        """How many of all pictures."""
        done, total, left = self.tally.total, self.count, self.left()
        ends = "stopping" if self.ending else "" if left is None else f"{spoken(left)} left"
        return Text(f"{done}/{total}" if total else f"{done}"), bar(done, total), Text(ends)

    def picture(self, names: list[str]) -> Row:
        """The picture that was begun last, how many others are being written, and its tiles."""
        done, total = self.tiles
        others = f" +{len(names) - 1}" if len(names) > 1 else ""
        name = shortened(plain(names[-1]), err.width // 2 - len(others)) + others
        ends = f"tile {done}/{total}" if total > 1 else ""
        return Text(name), bar(done, total if total > 1 else None), Text(ends)

    def download(self, name: str) -> Row:
        """The checkpoint that is being fetched."""
        done, total = self.downloads.done, self.downloads.total
        ends = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        return Text(shortened(plain(f"fetching {name}"), err.width // 2)), bar(done, total), Text(ends)

    def facts(self) -> Iterator[str]:
        """What stands below."""
        if self.begun is not None and self.tally.pixels:
            yield f"{self.tally.pixels / 1e6 / (time.monotonic() - self.begun):.2f} MP/s"
        if self.count == 1 and (left := self.left()) is not None:
            yield f"{spoken(left)} left"
        if self.tally.failed:
            yield f"{self.tally.failed} failed"
        if self.tally.skipped:
            yield f"{self.tally.skipped} skipped"
        if self.begun is not None and (used := memory(self.device)):  # not while torch is half loaded
            yield used
        if self.model:
            yield plain(self.model)

    def left(self) -> float | None:
        """Seconds until the end, if every picture that is left takes as long as one did so far; None where unknown."""
        if self.begun is None or self.count is None:
            return None
        part = self.tiles[0] / self.tiles[1] if self.tiles[1] and self.at_hand else 0.0
        restored = self.tally.done + max(0, len(self.at_hand) - 1) + part
        if not restored:
            return None
        return (time.monotonic() - self.begun) / restored * max(0.0, self.count - self.tally.total - part)


@contextmanager
def displayed(display: Display, live: bool) -> Iterator[None]:
    """The display on the screen, which is as it was when the block ends. Lines on standard error go above it."""
    if not live:
        yield
        return
    drawn = Live(
        console=err,
        get_renderable=display.render,
        refresh_per_second=5,
        transient=True,
        redirect_stdout=False,
    )
    with drawn:
        yield


def bar(done: int, total: int | None) -> ProgressBar:
    """A bar that moves to and fro while the total is not known."""
    return ProgressBar(
        total or None,
        completed=min(done, total or done),
        pulse=not total,
        complete_style="cyan",
        finished_style="cyan",
        pulse_style="cyan",
    )


def shortened(text: str, width: int) -> str:
    """The text, or its end behind an ellipsis, in at most `width` cells."""
    if cell_len(text) <= width:
        return text
    tail = chop_cells(text[::-1], max(1, width - 1))[0]
    return f"…{tail[::-1]}"


def memory(device: str) -> str:
    """The memory in use on the GPUs that --device names, or by this process where it uses no GPU."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    names = {name.strip() for name in device.split(",")}
    gpus = [None if name == "auto" else name for name in names if name == "auto" or name.startswith("cuda")]
    if gpus and cuda is not None and cuda.is_initialized():
        free, total = map(sum, zip(*map(cuda.mem_get_info, gpus), strict=True))
        return f"GPU {(total - free) / 2**30:.1f}/{total / 2**30:.0f} GiB"
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return ""
    return f"memory {pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
