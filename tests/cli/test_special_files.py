"""Outputs that are named as a device, a pipe, a socket or a stream."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from command_server import Server, fill
from PIL import Image

pytestmark = pytest.mark.needs("os.fork", "os.mkfifo")

STDOUT = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1", "link.png"]
SPECIAL = {"/dev/null": "a device", "null.png": "a device", "fifo.png": "a pipe", "socket.png": "a socket"}
RESTORE = ["denoise", "--weights", "weights.safetensors", "in.png"]
EVAL = ["eval", "--restored", "pairs", "--reference", "pairs"]
COMPARE = ["compare", "in.png", "photos/1.png"]


@pytest.fixture
def work(tmp_path: Path, x1: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the commands, with a file of each special kind."""
    work = fill(tmp_path, x1)
    (work / "pairs").mkdir()
    shutil.copy(work / "in.png", work / "pairs")
    os.mkfifo(work / "fifo.png")
    (work / "link.png").symlink_to("/dev/stdout")
    (work / "null.png").symlink_to("/dev/null")
    monkeypatch.chdir(work)  # the address of a socket is at most 108 bytes long
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.png")
    return work


def run(server: Server, work: Path, *arguments: str) -> dict[str, Any]:
    """Run a command, which changes no file outside of its box and leaves each special file as it is."""
    ran = server.run(list(arguments), work.parents[2])
    assert ran["outside"] == []
    kinds = [stat.S_IFMT((work / name).lstat().st_mode) for name in ("link.png", "null.png", "fifo.png", "socket.png")]
    assert kinds == [stat.S_IFLNK, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK]
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    return ran


@pytest.mark.parametrize("name", STDOUT)
def test_a_path_of_standard_output_is_standard_output(name: str, server: Server, work: Path) -> None:
    ran = run(server, work, *RESTORE, "-o", name)
    assert ran["code"] == 0
    assert Image.open(BytesIO(ran["out"].encode("utf-8", "surrogateescape"))).size == (16, 12)
    refused = run(server, work, "denoise", "--weights", "weights.safetensors", "photos", "-o", name)
    assert refused["code"] == 2
    assert refused["err"] == f"restore: -o {name}: standard output takes one image (try: -o with a folder)\n"


def test_a_path_of_standard_input_is_standard_input(server: Server, work: Path) -> None:
    ran = run(server, work, "denoise", "--weights", "weights.safetensors", "/dev/stdin", "-o", "out.png")
    assert (ran["code"], ran["out"].split("  ")[0]) == (0, "- → out.png")


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["", "overwrite"])
@pytest.mark.parametrize("command", [[*RESTORE, "-o"], [*COMPARE, "-o"], [*EVAL, "--csv"]], ids=lambda words: words[0])
def test_a_result_replaces_no_special_file(
    command: list[str], overwrite: list[str], server: Server, work: Path
) -> None:
    for name, kind in {**SPECIAL, **({} if "--csv" in command else {"/dev/stderr": "an open stream"})}.items():
        ran = run(server, work, *command, name, *overwrite)
        hint = f"name a file with {command[-1]}"
        assert ran["err"] == f"restore: {name}: is {kind}, not an ordinary file (try: {hint})\n"
        assert (ran["code"], ran["out"]) == (1, "")


@pytest.mark.parametrize("name", STDOUT)
def test_a_comparison_is_not_written_to_a_stream(name: str, server: Server, work: Path) -> None:
    ran = run(server, work, *COMPARE, "-o", name, "--overwrite")
    assert (ran["code"], ran["out"]) == (1, "")
    assert ran["err"].startswith(f"restore: {name}: is an open stream, ")
    assert run(server, work, *COMPARE, "-o", "-")["code"] == 2


@pytest.mark.parametrize("stream", ["out", "err"])
def test_a_log_and_a_table_lose_nothing_of_a_redirected_stream(stream: str, server: Server, work: Path) -> None:
    ran = run(server, work, *RESTORE, "-o", "out.png", "--log", f"/dev/std{stream}")
    assert ran["code"] == 0
    assert [line.split(" ")[1] for line in ran[stream].splitlines() if line[:2] == "20"] == ["start", "done", "end"]
    assert "\nin.png → out.png  (" in f"\n{ran['out']}"
    measured = run(server, work, *EVAL, "--csv", f"/dev/std{stream}")
    assert measured["code"] == 0
    assert "image,psnr," in measured[stream]
    assert "  PSNR Y  SSIM Y\n" in measured["out"]


def test_a_log_goes_where_it_can_be_written(server: Server, work: Path) -> None:
    assert run(server, work, *RESTORE, "-o", "out/", "--log", "/dev/null")["code"] == 0
    for name in ("fifo.png", "socket.png"):
        ran = run(server, work, *RESTORE, "-o", "out/", "--log", name)
        line = f"restore: --log {name}: cannot be written: no program reads from it (try: --log with another file)\n"
        assert (ran["code"], ran["err"]) == (1, line)
    ran = run(server, work, *RESTORE, "-o", "-", "--log", "/dev/stdout")
    assert (ran["code"], ran["out"]) == (2, "")
    reader = os.open(work / "fifo.png", os.O_RDONLY | os.O_NONBLOCK)
    assert run(server, work, *RESTORE, "-o", "out/", "--log", "fifo.png")["code"] == 3
    assert b" start restore denoise " in os.read(reader, 4096)
    os.close(reader)


def test_a_file_is_no_folder(server: Server, work: Path) -> None:
    lines = {
        "list.txt": "-o list.txt: exists, and is not a folder (try: -o with another name)",
        "in.png/": "-o in.png/: exists, and is not a folder (try: -o with another name)",
        "in.png/a/": "in.png/a: cannot be written: a part of the path is a file, not a folder (try: choose another path"
        " with -o)",
        "in.png/a.png": "in.png: is a file, not a folder (try: choose another folder with -o)",
    }
    for name, line in lines.items():
        ran = run(server, work, *RESTORE, "-o", name)
        assert (ran["code"], ran["err"]) == (1, f"restore: {line}\n")


def test_the_dry_run_says_what_the_run_would_say(server: Server, work: Path) -> None:
    for name in SPECIAL:
        dry, wet = (run(server, work, *RESTORE, "-o", name, *option) for option in (["--dry-run"], []))
        assert dry["err"].splitlines()[0] == wet["err"].splitlines()[0]
        assert dry["code"] == wet["code"] == 1
        told = json.loads(run(server, work, *RESTORE, "-o", name, "--json")["out"].splitlines()[0] or "{}")
        assert told.get("status", "failed") == "failed"
