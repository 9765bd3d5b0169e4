"""Standard streams that are closed, broken or narrow: all images are written, and the exit code is right."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from images import make_image, save_image
from systems import IMPORT_PATH

NAMES = ["a.png", "b.png", "c.png"]
ALL = "<&- >&- 2>&-"


def environment(cwd: Path) -> dict[str, str]:
    """Return variables of a process with an empty cache."""
    return os.environ | {"PYTHONPATH": IMPORT_PATH, "OMP_NUM_THREADS": "1", "RESTORE_CACHE": str(cwd / ".cache")}


def shell(*arguments: object, streams: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `restore` with standard streams redirected by a shell."""
    words = [sys.executable, "-m", "restore_cli", *map(str, arguments)]
    command = f"exec {shlex.join(words)} {streams}"
    pipe = subprocess.PIPE
    return subprocess.run(
        ["sh", "-c", command], input="", stdout=pipe, stderr=pipe, text=True, check=False, env=environment(cwd), cwd=cwd
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make three images in `in`."""
    for number, name in enumerate(NAMES):
        save_image(tmp_path / "in" / name, make_image(24, 30, seed=number))
    return tmp_path


def results(folder: Path) -> dict[str, bytes]:
    """Return the files in the folder of outputs without the manifest."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".restore-manifest.jsonl"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, x1: Path) -> dict[str, bytes]:
    """Return the same images restored with all streams open."""
    folder = tmp_path_factory.mktemp("whole")
    for number, name in enumerate(NAMES):
        save_image(folder / "in" / name, make_image(24, 30, seed=number))
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
def test_a_closed_stream_does_not_end_a_batch(
    options: list[str], streams: str, folder: Path, x1: Path, whole: dict[str, bytes]
) -> None:
    ran = shell("denoise", "--weights", x1, "in", "-o", "out", *options, streams=streams, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert results(folder / "out") == whole
    assert "Traceback" not in ran.stderr
    assert len(ran.stdout.splitlines()) == (0 if ">&-" in streams.split() else 3)


def test_the_exit_code_is_right_if_nothing_can_be_printed(folder: Path, x1: Path, whole: dict[str, bytes]) -> None:
    (folder / "in/bad.png").write_text("no image")
    ran = shell("denoise", "--weights", x1, "in", "-o", "out", streams=ALL, cwd=folder)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "")
    assert results(folder / "out") == whole
    assert shell("denoise", "--weights", x1, "none", streams=ALL, cwd=folder).returncode == 1
    assert shell("denoise", "--nosuch", streams=ALL, cwd=folder).returncode == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_behind_a_stream_does_not_end_a_batch(
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
        (["-"], "<&-", "standard input is closed, so the image cannot be read"),
        (["in/a.png", "-o", "-"], ">&-", "standard output is closed, so the image cannot be written"),
        (["--files-from", "-"], "<&-", "--files-from -: standard input is closed"),
    ],
)
def test_an_image_or_a_list_needs_its_stream(
    arguments: list[str], streams: str, said: str, folder: Path, x1: Path
) -> None:
    ran = shell("denoise", "--weights", x1, *arguments, streams=streams, cwd=folder)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(f"restore: {said}")


LATIN = {"PYTHONIOENCODING": "latin-1"}
NARROW = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NARROW_NAMES = ["in/caf\udce9.png", "in/日本.png"]


def printed(*arguments: object, variables: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Run `restore` with another encoding than UTF-8 of standard output and error."""
    command = [sys.executable, "-m", "restore_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, env=environment(cwd) | variables, cwd=cwd)


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Make one image whose name is not valid text, and one whose name ASCII cannot express."""
    for name in NARROW_NAMES:
        save_image(tmp_path / name, make_image(24, 30))
    return tmp_path


@pytest.mark.parametrize("variables", [LATIN, NARROW, C_LOCALE], ids=["latin", "ascii", "c"])
@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("denoise --model lite in -o out", b" -> "),
        ("denoise --model lite in -o out --dry-run", b" -> "),
        ("denoise --model lite in -o out --json", b'"status": "done"'),
        ("compare in/caf\udce9.png in/日本.png -o sheet.png", b" -> sheet.png"),
        ("compare in/caf\udce9.png in/日本.png -o page.html --html", b" -> page.html"),
        ("eval --reference in --restored in --csv rows.csv", b"inf"),
        ("eval --reference in --restored in --json", b'"mean"'),
        ("models", b"emt-x4"),
        ("models info emt-x4", b"emt-x4"),
        ("models sources --help", b"sources"),
        ("--help", b"Usage"),
        ("--version", b"restore 0"),
    ],
)
def test_a_stream_that_cannot_encode_does_not_stop_a_command(
    command: str, word: bytes, variables: dict[str, str], named: Path
) -> None:
    ran = printed(*command.split(), variables=variables, cwd=named)
    assert ran.returncode == 0, ran.stderr
    assert b"Traceback" not in ran.stderr
    assert word in ran.stdout
    assert "→".encode() not in ran.stdout
    if "--json" in command:
        assert ran.stdout.isascii()
        assert [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("variables", [LATIN, NARROW, C_LOCALE], ids=["latin", "ascii", "c"])
def test_an_error_that_cannot_be_encoded_is_one_line(variables: dict[str, str], named: Path) -> None:
    for arguments, code in (
        (["denoise", "in/none…日.png"], 1),
        (["denoise", "--nö…"], 2),
        (["models", "info", "日"], 2),
    ):
        ran = printed(*arguments, variables=variables, cwd=named)
        assert (ran.returncode, ran.stdout, ran.stderr.count(b"\n")) == (code, b"", 1)
        assert ran.stderr.startswith(b"restore: ")


def test_names_are_escaped_and_our_own_characters_replaced(named: Path) -> None:
    ran = printed("denoise", "--model", "lite", "in", "-o", "out", variables=NARROW, cwd=named)
    assert b"in/\\u65e5\\u672c.png -> out/\\u65e5\\u672c.png  (lite-denoise" in ran.stdout
    assert b"30x24 px" in ran.stdout
    assert b"in/caf\xe9.png -> out/caf\xe9.png" in ran.stdout  # bytes that are no text come out as they are
    assert (named / "out/日本.png").exists()


@pytest.mark.parametrize(
    "line", ["denoise in.png -o out.png", "denoise {0}/in.png -o {0}/out.png", "models", "compare"]
)
def test_a_deleted_working_folder_is_reported_in_one_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    save_image(tmp_path / "in.png", make_image(8, 8))
    script = f'cd "$1" && rmdir "$1" && {sys.executable} -m restore_cli {line.format(tmp_path)}'
    command = ["sh", "-c", script, "sh", str(tmp_path / "gone")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "restore: the working folder was deleted (try: cd to another folder)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
