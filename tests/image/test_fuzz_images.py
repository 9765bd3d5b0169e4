"""Fuzzing of the command with damaged files of eight formats: each gives a result or one line, and leaves no files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import FORMATS, damaged_files

from restore_cli.image.codec import probe
from restore_cli.jobs.manifest import MANIFEST_NAME

COUNT = 75
"""files per format"""
MEMORY = 6 * 2**30
OURS = re.compile(r"restore: in/|failed: \d+ of \d+$|  in/|  and \d+ more$|\d+ images: ")
OPTIONS = {
    "png": (),
    "jpg": ("--resize", "0.5x"),
    "webp": ("--format", "tiff"),
    "tif": ("--format", "png", "--icc", "srgb"),
    "bmp": ("--bit-depth", "8", "--dither"),
    "avif": ("--format", "webp", "--strip"),
    "heic": (),
    "gif": (),
}


def limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.mark.needs("resource")
@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files_give_a_result_or_one_line(suffix: str, x1: Path, tmp_path: Path) -> None:
    work, temporary, home = tmp_path / "work", tmp_path / "tmp", tmp_path / "home"
    for folder in (work / "in", temporary, home):
        folder.mkdir(parents=True)
    contents = damaged_files(suffix, tmp_path, COUNT)
    for i, data in enumerate(contents):
        (work / f"in/{i:03}.{suffix}").write_bytes(data)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    command = ["denoise", "--weights", str(x1), "--device", "cpu", "in", "-o", "out", "--json", "--precision", "fp32"]
    places = {"HOME": str(home), "TMPDIR": str(temporary), "RESTORE_CACHE": str(home / "cache")}
    ran = subprocess.run(
        [sys.executable, "-m", "restore_cli", *command, *OPTIONS[suffix], "--max-pixels", "4000000"],
        cwd=work,
        env={**os.environ, **places, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limit_memory,
    )
    assert ran.returncode in (0, 1), ran.stderr
    assert [line for line in ran.stderr.splitlines() if not OURS.match(line)] == []  # no library prints anything
    *each, last = [json.loads(line) for line in ran.stdout.splitlines()]
    assert sorted(one["input"] for one in each) == [f"in/{i:03}.{suffix}" for i in range(COUNT)]
    assert last["summary"]["done"] + last["summary"]["failed"] == COUNT
    done = {work / one["output"] for one in each if one["status"] == "done"}
    for one in each:
        if one["status"] == "failed":
            assert one["error"].startswith(one["input"]), one["error"]
            assert one["error"].isprintable(), one["error"]
    for path in done:
        probe(path)
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert after - before == {*done, work / "out" / MANIFEST_NAME}
    assert [(work / f"in/{i:03}.{suffix}").read_bytes() for i in range(COUNT)] == contents
