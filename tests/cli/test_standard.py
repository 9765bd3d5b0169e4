"""Standard streams that are closed, broken or narrow: images are finished all the same, and the exit code tells."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import noise, save

ROOT = Path(__file__).parents[2]
NAMES = ["a.png", "b.png", "c.png"]
ALL = "<&- >&- 2>&-"


def shell(*arguments: object, streams: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`restore` with its standard streams as a shell redirects them."""
    words = [sys.executable, "-m", "restore_cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RESTORE_CACHE": str(cwd / ".cache")}
    command = f"exec {shlex.join(words)} {streams}"
    pipe = subprocess.PIPE
    return subprocess.run(
        ["sh", "-c", command], input="", stdout=pipe, stderr=pipe, text=True, check=False, env=environment, cwd=cwd
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images in `in`."""
    for number, name in enumerate(NAMES):
        save(tmp_path / "in" / name, noise(24, 30, seed=number))
    return tmp_path


def results(folder: Path) -> dict[str, bytes]:
    """What lies in the folder of outputs, but for the manifest."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".restore-manifest.jsonl"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, x1: Path) -> dict[str, bytes]:
    """The same images restored with all streams open."""
    folder = tmp_path_factory.mktemp("whole")
    for number, name in enumerate(NAMES):
        save(folder / "in" / name, noise(24, 30, seed=number))
    assert shell("denoise", "--weights", x1, "in", "-o", "out", streams="", cwd=folder).returncode == 0
    return results(folder / "out")


@pytest.mark.parametrize(
    ("options", "streams"),
    [
        ([], ">&-"),
        ([], "<&-"),
        ([], "2>&-"),
        ([], ALL),
        (["--json"], ALL),
        (["--device", "cpu,cpu"], ALL),
        (["--log", "log.txt"], "2>/dev/full"),
    ],
)
def test_a_closed_stream_ends_no_batch(
    options: list[str], streams: str, folder: Path, x1: Path, whole: dict[str, bytes]
) -> None:
    ran = shell("denoise", "--weights", x1, "in", "-o", "out", *options, streams=streams, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert results(folder / "out") == whole
    assert "Traceback" not in ran.stderr
    assert len(ran.stdout.splitlines()) == (0 if ">&-" in streams.split() else 3)


def test_the_exit_code_tells_where_nothing_can_be_printed(folder: Path, x1: Path, whole: dict[str, bytes]) -> None:
    (folder / "in/bad.png").write_text("no image")
    ran = shell("denoise", "--weights", x1, "in", "-o", "out", streams=ALL, cwd=folder)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "")
    assert results(folder / "out") == whole
    assert shell("denoise", "--weights", x1, "none", streams=ALL, cwd=folder).returncode == 1
    assert shell("denoise", "--nosuch", streams=ALL, cwd=folder).returncode == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_lines_that_no_disk_takes_end_no_batch(
    options: list[str], folder: Path, x1: Path, whole: dict[str, bytes]
) -> None:
    ran = shell("denoise", "--weights", x1, "in", "-o", "out", *options, streams=">/dev/full", cwd=folder)
    assert ran.returncode == 1
    assert ran.stderr.lower().count("no space left") == 1
    assert results(folder / "out") == whole


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "sr --help",
        "--version",
        "models",
        "models info emt-x4",
        "denoise --model lite in --dry-run",
        "compare in/a.png in/b.png -o sheet.png",
        "eval --reference in --restored in",
        "eval --reference in --restored in --json",
    ],
)
def test_every_command_runs_without_standard_output(command: str, folder: Path) -> None:
    for streams in (">&-", ALL):
        ran = shell(*command.split(), *["--overwrite"] * ("compare" in command), streams=streams, cwd=folder)
        assert (ran.returncode, ran.stdout) == (0, "")
        assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "streams", "said"),
    [
        (["-"], "<&-", "standard input is closed, there is no image"),
        (["in/a.png", "-o", "-"], ">&-", "standard output is closed, there is no place for an image"),
        (["--files-from", "-"], "<&-", "--files-from -: standard input is closed"),
    ],
)
def test_an_image_or_a_list_needs_its_stream(
    arguments: list[str], streams: str, said: str, folder: Path, x1: Path
) -> None:
    ran = shell("denoise", "--weights", x1, *arguments, streams=streams, cwd=folder)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(f"restore: {said}")
