"""Batches: which inputs are restored, and what is printed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import CommandResult, Run
from images import make_image, save_image
from systems import IMPORT_PATH
from torch import Tensor

from restore_cli.models.network import Network
from restore_cli.models.ops import kernel_trial

KEYS = ["input", "output", "status", "seconds", "size", "model", "architecture", "sha256", "tile", "precision"]
KEYS += ["notes", "error"]


@pytest.fixture
def photos(restore: Run) -> list[str]:
    """Make five images in a tree, one of them broken, with a hidden file and a text file."""
    good = ["photos/a.png", "photos/b [final].png", "photos/sub/c.png", "photos/sub/猫.png"]
    for name in good:
        save_image(Path(name), make_image(9, 12))
    Path("photos/x.png").write_text("no image")
    Path("photos/.hidden.png").write_text("")
    Path("photos/notes.txt").write_text("")
    return good


def found(folder: str) -> list[str]:
    """Return the results in a folder."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("[!.]*") if path.is_file())


def objects(ran: CommandResult) -> list[dict[str, Any]]:
    """Return the JSON objects of standard output."""
    return [json.loads(line) for line in ran.out.splitlines()]


def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Put `content` on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_json_has_one_object_per_image_and_a_summary(restore: Run, x1: Path, photos: list[str]) -> None:
    ran = restore("denoise", "--weights", x1, "photos", "-o", "out", "--json", "--precision", "fp32")
    assert ran.code == 1
    *each, last = objects(ran)
    assert [list(one) for one in each] == [KEYS] * 5
    by_input = {one["input"]: one for one in each}
    assert set(by_input) == {*photos, "photos/x.png"}
    done = by_input["photos/sub/猫.png"]
    assert (done["output"], done["status"], done["size"]) == ("out/sub/猫.png", "done", [12, 9])
    assert (done["model"], len(done["sha256"]), done["precision"], done["error"]) == (x1.name, 64, "fp32", None)
    assert "not an image" in by_input["photos/x.png"]["error"]
    summary = last["summary"]
    assert (summary["done"], summary["skipped"], summary["failed"], summary["exit_code"]) == (4, 0, 1, 1)
    assert summary["passed_over"] == {"hidden": 1, "others": 1, "linked_folders": 0}
    again = objects(restore("denoise", "--weights", x1, "photos", "-o", "out", "--json", "--precision", "fp32"))
    assert sorted(one["status"] for one in again[:-1]) == ["failed", *["skipped"] * 4]


def test_json_has_a_summary_if_the_run_cannot_start(restore: Run, x1: Path) -> None:
    Path("empty").mkdir()
    ran = restore("denoise", "--weights", x1, "empty", "--json")
    assert ran.code == 3
    assert objects(ran)[-1]["summary"]["exit_code"] == 3
    assert "no image in empty" in objects(ran)[-1]["summary"]["error"]


def test_skipped_inputs_are_counted_and_listed_if_they_were_named(restore: Run, x1: Path, photos: list[str]) -> None:
    Path("photos/x.png").unlink()
    assert restore("denoise", "--weights", x1, "photos", "-o", "out").code == 0
    ran = restore("denoise", "--weights", x1, "photos", "-o", "out")
    assert ran.out == ""
    assert ran.err.splitlines()[0].startswith("4 images: 0 done, 4 skipped, 0 failed; ignored: 1 hidden, 1 other files")
    ran = restore("denoise", "--weights", x1, *photos[:2], "-o", "out")
    assert [line.partition(" → ")[0] for line in ran.err.splitlines()[:2]] == photos[:2]


def test_the_first_twenty_failures_are_listed_again(restore: Run, x1: Path) -> None:
    for i in range(25):
        Path(f"bad{i}.png").write_text("no image")
    ran = restore("denoise", "--weights", x1, *(f"bad{i}.png" for i in range(25)), "-o", "out")
    assert ran.code == 1
    assert ran.err.count("not an image") == 25 + 20
    assert "failed: 25 of 25" in ran.err
    assert "and 5 more" in ran.err
    assert restore("denoise", "--weights", x1, "bad1.png", "-o", "out").err.count("not an image") == 1


def test_the_log_is_appended_to_and_has_every_event(restore: Run, x1: Path, photos: list[str]) -> None:
    for _ in range(2):
        restore("denoise", "--weights", x1, "photos", "-o", "out", "--log", "run.log", "-q")
    lines = [line.split(" ", 2) for line in Path("run.log").read_text().splitlines()]
    words = [word for _, word, _ in lines]
    assert words.count("start") == words.count("end") == words.count("failed") == 2
    assert words.count("done") == words.count("skipped") == len(photos)
    assert lines[0][2].startswith("restore denoise --weights")
    assert all(time.endswith("Z") for time, _, _ in lines)
    assert "exit code 1; 5 images: 0 done, 4 skipped, 1 failed" in lines[-1][2]


def test_a_list_of_files(restore: Run, x1: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list.txt").write_text("\n".join(photos[:2]) + "\r\n\n")
    assert restore("denoise", "--weights", x1, "--files-from", "list.txt", "-o", "lines").code == 0
    standard_input(monkeypatch, b"\0".join(os.fsencode(name) for name in photos) + b"\0")
    assert restore("denoise", "--weights", x1, "--files-from", "-", "-0", "-o", "nul").code == 0
    assert found("lines") == photos[:2]
    assert found("nul") == photos


def test_no_recursive_ignores_sub_folders(restore: Run, x1: Path, photos: list[str]) -> None:
    restore("denoise", "--weights", x1, "photos", "-o", "out", "--no-recursive")
    assert found("out") == ["a.png", "b [final].png"]


def test_existing_outputs_are_resumed_skipped_or_overwritten(restore: Run, x1: Path) -> None:
    save_image(Path("in/a.png"), make_image(9, 9))
    save_image(Path("in/b.png"), make_image(9, 9))
    command = ("denoise", "--weights", x1, "in", "-o", "out", "--json")
    restore(*command)
    save_image(Path("in/a.png"), make_image(10, 10, seed=1))
    assert objects(restore(*command, "--skip-existing"))[-1]["summary"]["skipped"] == 2
    assert objects(restore(*command))[-1]["summary"]["done"] == 1
    assert objects(restore(*command, "--resume"))[-1]["summary"]["skipped"] == 2
    assert objects(restore(*command, "--overwrite"))[-1]["summary"]["done"] == 2


def test_shards_are_disjoint_and_complete(restore: Run, x1: Path, photos: list[str]) -> None:
    parts = []
    for i in range(1, 4):
        restore("denoise", "--weights", x1, "photos", "-o", f"out{i}", "--shard", f"{i}/3")
        parts += found(f"out{i}") if Path(f"out{i}").exists() else []
    assert sorted(f"photos/{name}" for name in parts) == photos


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "10"}
        | {"SLURM_ARRAY_TASK_STEP": "4"},
        {"RANK": "1", "WORLD_SIZE": "3"},
    ],
)
def test_variables_set_the_shard(
    variables: dict[str, str], restore: Run, x1: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    restore("denoise", "--weights", x1, "photos", "-o", "second", "--shard", "2/3")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = restore("denoise", "--weights", x1, "photos", "-o", "out")
    assert f"shard 2/3 of the inputs, because of {next(iter(variables))}" in ran.err
    assert found("out") == found("second")
    restore("denoise", "--weights", x1, "photos", "-o", "all", "--shard", "1/1")
    assert len(found("all")) == 4
    ran = restore("denoise", "--weights", x1, photos[0], "-o", "one")
    assert (ran.code, ran.err, found("one")) == (0, "", ["a.png"])  # a single file is never another's


@pytest.mark.parametrize(
    ("arguments", "variables", "word"),
    [
        (["--shard", "0/3"], {}, "I from 1 to N"),
        (["--shard", "4/3"], {}, "I from 1 to N"),
        (["--shard", "1-3"], {}, "I from 1 to N"),
        ([], {"RANK": "3", "WORLD_SIZE": "3"}, "the number is not one of 3"),
        ([], {"RANK": "x", "WORLD_SIZE": "3"}, "whole numbers"),
        (["--overwrite", "--resume"], {}, "contradict"),
        (["--skip-existing", "--overwrite"], {}, "contradict"),
        (["-0"], {}, "--files-from"),
        (["--files-from", "none.txt"], {}, "none.txt"),
        (["-"], {}, "excludes other inputs"),
        (["-o", "-"], {}, "takes one image"),
        (["--workers", "0", "--cluster", "auto"], {}, "expected 1 or more"),
        (["--log", "none/run.log"], {}, "none/run.log"),
    ],
)
def test_contradicting_options_are_usage_errors(
    arguments: list[str],
    variables: dict[str, str],
    word: str,
    restore: Run,
    x1: Path,
    photos: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = restore("denoise", "--weights", x1, "photos", *arguments)
    assert ran.code == (1 if "--log" in arguments else 2)
    assert ran.err.count("\n") == 1
    assert word in ran.err
    assert found("photos") == ["a.png", "b [final].png", "notes.txt", "sub/c.png", "sub/猫.png", "x.png"]


def test_no_inputs_is_an_error_with_a_hint(restore: Run, x1: Path) -> None:
    ran = restore("denoise", "--weights", x1)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "--files-from" in ran.err


def test_fail_fast_ends_the_run_after_one_failure(restore: Run, x1: Path) -> None:
    Path("in").mkdir()
    Path("in/a.png").write_text("no image")
    for i in range(30):
        save_image(Path(f"in/b{i}.png"), make_image(9, 9))
    ran = restore("denoise", "--weights", x1, "in", "-o", "out", "--fail-fast")
    assert ran.code == 1
    assert len(found("out")) < 30


def test_keep_times_copies_the_modification_time(restore: Run, x1: Path) -> None:
    save_image(Path("a.png"), make_image(9, 9))
    os.utime("a.png", (1e9, 1e9))
    assert restore("denoise", "--weights", x1, "a.png", "--keep-times").code == 0
    assert Path("a_denoise.png").stat().st_mtime == 1e9


def test_a_dry_run_shows_the_plan_and_writes_nothing(restore: Run, x1: Path, photos: list[str]) -> None:
    restore("denoise", "--weights", x1, photos[0], "-o", "out/")
    before = sorted(Path().rglob("*"))
    ran = restore("denoise", "--weights", x1, "photos", "-o", "out", "--dry-run")
    assert ran.code == 0
    assert sorted(Path().rglob("*")) == before
    assert f"{photos[0]}: skipped: out/a.png" in ran.out
    for name in photos[1:]:
        assert f"{name} → {name.replace('photos', 'out')}\n" in ran.out
    assert "would restore 4 images" in ran.err
    assert "1 of 4 headers cannot be read" in ran.err
    ran = restore("denoise", "--weights", x1, "photos", "-o", "new", "--dry-run")
    assert f"one tile of {x1.name} (swinir) measured" in ran.err


def test_a_dry_run_estimates_from_earlier_runs_and_lists_downloads(restore: Run, x1: Path, photos: list[str]) -> None:
    command = ("denoise", "--weights", x1, "photos", "-o", "out")
    restore(*command)
    *each, last = objects(restore(*command, "--overwrite", "--dry-run", "--json"))
    assert {one["status"] for one in each} == {"planned"}
    assert last["summary"]["planned"] == 5
    assert last["summary"]["basis"] == "from earlier images in this folder"
    assert restore(*command, "--dry-run", "photos/sub", "--no-recursive", "-q").out == ""
    Path("photos/x.png").unlink()
    assert restore(*command, "--dry-run").code == 3
    summary = objects(restore("deblur", "photos", "-o", "new", "--dry-run", "--json"))[-1]["summary"]
    assert summary["seconds"] is None
    assert summary["fetch"][0]["name"] in summary["basis"]
    assert summary["fetch"][0]["megabytes"] > 1
    assert not Path("new").exists()


def piped(*arguments: object, given: bytes, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Run `restore` with real pipes."""
    command = [sys.executable, "-m", "restore_cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": IMPORT_PATH, "TMPDIR": str(cwd)}
    return subprocess.run(command, input=given, capture_output=True, check=False, env=environment, cwd=cwd)


def test_an_image_passes_from_pipe_to_pipe(tmp_path: Path, x1: Path, x2: Path) -> None:
    (tmp_path / "tmp").mkdir()
    work = tmp_path / "tmp"
    for suffix, start in ((".png", b"\x89PNG"), (".jpg", b"\xff\xd8"), (".tif", b"II")):
        source = save_image(tmp_path / f"in{suffix}", make_image(20, 30))
        ran = piped("denoise", "--weights", x1, "-", given=source.read_bytes(), cwd=work)
        assert (ran.returncode, ran.stdout[: len(start)]) == (0, start), ran.stderr
        alone = piped("denoise", "--weights", x1, source, "-o", "-", given=b"", cwd=work)
        assert alone.stdout == ran.stdout
    jpeg = (tmp_path / "in.jpg").read_bytes()
    assert piped("sr", "--weights", x2, "-", given=jpeg, cwd=work).stdout.startswith(b"\x89PNG")
    webp = piped("sr", "--weights", x2, "-", "--format", "webp", given=jpeg, cwd=work)
    assert webp.stdout[8:12] == b"WEBP"
    assert piped("sr", "--weights", x2, "-", "-o", tmp_path / "out.bmp", given=jpeg, cwd=work).returncode == 0
    assert (tmp_path / "out.bmp").read_bytes()[:2] == b"BM"
    assert not list(work.iterdir())


def test_a_bad_image_in_a_pipe_is_one_line(tmp_path: Path, x1: Path) -> None:
    for given, word in ((b"", b"empty"), (b"no image", b"not an image")):
        ran = piped("denoise", "--weights", x1, "-", given=given, cwd=tmp_path)
        assert (ran.returncode, ran.stdout, ran.stderr.count(b"\n")) == (1, b"", 1)
        assert ran.stderr.startswith(b"restore: standard input: ")
        assert word in ran.stderr
    assert not list(tmp_path.iterdir())


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path: Path, x1: Path) -> None:
    save_image(tmp_path / "a.png", make_image(9, 9)).rename(tmp_path / "\x1b[31m\n[b].png")
    lines = piped("denoise", "--weights", x1, ".", "-o", "out", given=b"", cwd=tmp_path)
    assert lines.stdout.decode().startswith("./\\x1b[31m\\n[b].png → out/\\x1b[31m\\n[b].png  (")
    ran = piped("denoise", "--weights", x1, ".", "-o", "out", "--overwrite", "--json", given=b"", cwd=tmp_path)
    assert json.loads(ran.stdout.splitlines()[0])["output"] == "out/\x1b[31m\n[b].png"


def test_a_name_of_any_bytes_is_printed(tmp_path: Path, x1: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_text("no image")
    ran = piped("denoise", "--weights", x1, ".", "-o", "out", "--json", "--log", "log", given=b"", cwd=tmp_path)
    assert os.fsencode(json.loads(ran.stdout.splitlines()[0])["input"]) == b"./\xff.png"
    assert b"./\\udcff.png" in ran.stderr or b"\\udcff.png" in ran.stderr
    assert b"\xff.png" in (tmp_path / "log").read_bytes()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "avif"])
def test_a_name_of_any_bytes_is_read_and_written(suffix: str, tmp_path: Path, x1: Path) -> None:
    stem = os.fsdecode(b"caf\xe9")
    save_image(tmp_path / "in.png", make_image(40, 40)).rename(tmp_path / f"{stem}_in.png")
    for source, result in ((f"{stem}_in.png", f"{stem}.{suffix}"), (f"{stem}.{suffix}", f"{stem}_out.png")):
        ran = piped("denoise", "--weights", x1, source, "-o", result, given=b"", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    assert (tmp_path / f"{stem}_out.png").exists()


@pytest.mark.parametrize("arguments", [["in.png"], ["in.png", "--json"], ["in.png", "-o", "-"]])
def test_a_full_disk_behind_standard_output_is_one_line(arguments: list[str], tmp_path: Path, x1: Path) -> None:
    save_image(tmp_path / "in.png", make_image(40, 40))
    command = [sys.executable, "-m", "restore_cli", "denoise", "--weights", str(x1), *arguments]
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, cwd=tmp_path, text=True)
    assert ran.returncode == 1
    assert "no space left" in ran.stderr.lower()
    assert "Traceback" not in ran.stderr
    assert not list(tmp_path.glob(".restore-*.part"))


@pytest.mark.parametrize("arguments", [["--help"], ["sr", "--help"], ["models"]])
def test_pages_that_cannot_be_written_are_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "restore_cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert ran.stderr.startswith("restore: standard output: cannot be written")


def test_linked_folders_are_reported_and_followed_on_request(restore: Run, x1: Path) -> None:
    save_image(Path("elsewhere/a.png"), make_image(9, 9))
    Path("elsewhere/loop").symlink_to(".")
    Path("photos").mkdir()
    Path("photos/link").symlink_to("../elsewhere")
    command = ("denoise", "--weights", x1, "photos", "-o", "out")
    for extra in ((), ("--dry-run",)):
        nothing = restore(*command, *extra)
        assert (nothing.code, nothing.out) == (3, "")
        assert "linked folders were not followed: 1 (try: --follow-links)" in nothing.err
    save_image(Path("photos/b.png"), make_image(9, 9))
    counted = "; 1 linked folder not followed (--follow-links)"
    for extra in (("--dry-run",), ()):
        assert counted in restore(*command, *extra).err
    assert found("out") == ["b.png"]
    followed = restore(*command, "--follow-links", "--json")
    assert found("out") == ["b.png", "link/a.png"]
    assert objects(followed)[-1]["summary"]["passed_over"] == {"hidden": 0, "others": 0, "linked_folders": 0}
    assert objects(restore(*command, "--json"))[-1]["summary"]["passed_over"]["linked_folders"] == 1


@pytest.mark.parametrize("quiet", [True, False])
def test_a_warning_of_a_network_is_printed_once(
    quiet: bool, restore: Run, x1: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU without the attention kernel logs such a warning."""
    usual = Network.__call__

    def call(network: Network, x: Tensor) -> Tensor:
        kernel_trial.warn_without_kernel(network.device, "Failed to find C compiler.")
        return usual(network, x)

    monkeypatch.setattr(Network, "__call__", call)
    kernel_trial.warn_without_kernel.cache_clear()
    ran = restore("denoise", "--weights", x1, "--device", "cpu", *photos, *(["-q"] if quiet else []))
    assert ran.code == 0, ran.err
    said = "the network runs without a fused kernel on cpu, and takes longer: Failed to find C compiler."
    assert ran.err.splitlines().count(said) == (not quiet)


def test_a_log_is_added_to_a_log_and_to_nothing_else(restore: Run, x1: Path, photos: list[str]) -> None:
    Path("empty").touch()
    command = ("denoise", "--weights", x1, "photos/a.png", "-o", "out/", "--overwrite")
    for name in ("empty", "empty", "new"):
        assert restore(*command, "--log", name).code == 0
    assert Path("empty").read_text().count(" start ") == 2
    for name in ("photos/b [final].png", "photos/a.png", "photos/x.png"):
        before = Path(name).read_bytes()
        ran = restore(*command, "--log", name)
        assert (ran.code, ran.out) == (1, "")
        assert (
            ran.err
            == f"restore: --log {name}: exists already and is not a log of restore (try: --log with another file)\n"
        )
        assert Path(name).read_bytes() == before
