"""What runs on Linux runs where Python's os module has less, as on macOS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import noise, save

ROOT = Path(__file__).parents[1]

HIDING = """
import os
for name in (
    "sched_getaffinity", "sched_setaffinity", "copy_file_range", "eventfd", "fdatasync", "getrandom", "memfd_create",
    "pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate", "splice", "O_DIRECT", "O_PATH", "O_TMPFILE",
):
    if hasattr(os, name):
        delattr(os, name)
"""
"""Python runs a sitecustomize module at its start, in the processes of a pool too."""


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_pictures_are_restored_without_the_functions_that_linux_alone_has(
    device: str, tmp_path: Path, x1: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    save(tmp_path / "in/a.png", noise(20, 24))
    save(tmp_path / "in/b.png", noise(20, 24, seed=1))
    command = [sys.executable, "-m", "restore_cli", "denoise", "--weights", str(x1), "in", "-o", "out"]
    given = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([*command, "--device", device], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png"]
