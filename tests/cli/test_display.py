"""The live display on a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from images import make_image, save_image
from rich.cells import cell_len
from rich.console import Console
from systems import IMPORT_PATH

from restore_cli.cli.console import Downloads, err
from restore_cli.cli.display import Display, shorten
from restore_cli.cli.run_stats import format_duration
from restore_cli.jobs.events import (
    InputsCounted,
    PictureFinished,
    PictureStarted,
    StopRequested,
    TileDone,
)
from restore_cli.jobs.types import Result
from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.progress import DownloadProgress, DownloadStarted


def draw_lines(display: Display, width: int) -> list[str]:
    """Return the lines of a display on a terminal of this width."""
    screen = Console(file=io.StringIO(), width=width, color_system=None)
    with screen.capture() as text:
        screen.print(display.render())
    return text.get().splitlines()


@pytest.fixture
def display() -> Display:
    return Display(Downloads(read_catalogue().find_entry, quiet=True, displayed=True), "auto")


@pytest.mark.parametrize("width", [40, 60, 120])
@pytest.mark.parametrize("path", ["photo [final] [b].png", "写真/猫の写真.png" * 9, "a/" * 99 + "b.png"])
def test_lines_fit_the_terminal_and_names_keep_their_end(
    width: int, path: str, display: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(err, "_width", width)
    display.handle(InputsCounted(1000))
    display.handle(PictureStarted(path))
    display.handle(TileDone(3, 12))
    lines = draw_lines(display, width)
    assert len(lines) == 3
    assert all(cell_len(line) <= width for line in lines)
    assert "0/1000" in lines[0]
    assert path[-6:] in lines[1]
    assert "tile 3/12" in lines[1]
    if width == 120 and len(path) < 60:
        assert path in lines[1]


def test_events_are_counted(display: Display) -> None:
    display.handle(InputsCounted(4))
    for status in ("done", "skipped"):
        display.handle(PictureStarted(status))
        result = Result(status, "out", status, model="lite", pixels=2_000_000)
        display.handle(PictureFinished(result))
    lines = draw_lines(display, 100)
    assert lines[0].startswith("2/4 ")
    assert lines[0].rstrip().endswith("left")
    assert "1 skipped" in lines[1]
    assert "MP/s" in lines[1]
    display.handle(StopRequested(1))
    assert draw_lines(display, 100)[0].rstrip().endswith("stopping")
    display.downloads.quiet = True
    display.downloads.handle(DownloadStarted("emt-x4", 10_000_000))
    display.downloads.handle(DownloadProgress(2_500_000))
    assert "fetching emt-x4" in draw_lines(display, 100)[1]
    assert "2.5/10.0 MB" in draw_lines(display, 100)[1]


@pytest.mark.parametrize(
    ("device", "shown"),
    [
        ("auto", "GPU 1.0/8 GiB"),
        ("cuda", "GPU 1.0/8 GiB"),
        ("cuda:1", "GPU 20.0/80 GiB"),
        ("cuda:1,cuda:1", "GPU 20.0/80 GiB"),
        ("cuda:0, cuda:1", "GPU 21.0/88 GiB"),
    ],
)
def test_the_memory_shown_is_that_of_the_gpu_in_use(device: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has two GPUs, and the first is current."""
    first, second = (7 * 2**30, 8 * 2**30), (60 * 2**30, 80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: second if device == "cuda:1" else first)
    assert draw_last_line(device) == shown
    assert draw_last_line("cpu").startswith("memory ")


def draw_last_line(device: str) -> str:
    """Return the last line at the start of a run on this device."""
    display = Display(Downloads(read_catalogue().find_entry, quiet=True, displayed=True), device)
    display.handle(PictureStarted("a.png"))
    return draw_lines(display, 80)[-1].strip()


@pytest.mark.parametrize("text", ["", "a", "猫" * 20, "ab猫" * 20])
@pytest.mark.parametrize("width", [2, 3, 10, 200])
def test_shortened_text_fits(text: str, width: int) -> None:
    short = shorten(text, width)
    assert cell_len(short) <= width
    assert text.endswith(short.removeprefix("…"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 1 min"),
        (9e4, "1 d 1 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.needs("pty")
@pytest.mark.parametrize(
    ("variables", "live"),
    [({"TERM": "xterm-256color"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_the_display_is_drawn_unless_the_terminal_forbids_it(
    variables: dict[str, str], live: bool, tmp_path: Path, x1: Path
) -> None:
    for name in "ab":
        save_image(tmp_path / f"in/{name} [x].png", make_image(40, 40))
    import pty

    reader, writer = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables
    command = [sys.executable, "-m", "restore_cli", "denoise", "--weights", str(x1), "in", "-o", "out"]
    with subprocess.Popen(
        command, stderr=writer, stdout=writer, cwd=tmp_path, env=environment | {"PYTHONPATH": IMPORT_PATH}
    ) as process:
        os.close(writer)
        text = ""
        while block := read(reader):
            text += block
    os.close(reader)
    assert process.returncode == 0, text
    assert ("\x1b[?25l" in text) == live  # the cursor is hidden
    assert text.rpartition("\x1b[?25")[2].startswith("h") or not live  # and shown again
    assert live or "\x1b" not in text
    assert "in/a [x].png → out/a [x].png  (x1.safetensors (swinir), 40×40 px" in text
    assert "2 images: 2 done, 0 skipped, 0 failed" in text


def read(terminal: int) -> str:
    """Return what was written, "" at the end."""
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError:  # Linux reports that the other end is closed
        return ""
