"""A batch that is killed again and again gives the same results as one that is not."""

from __future__ import annotations

import subprocess
import sys


def test_killed_runs_give_the_same_results() -> None:
    words = ("--pictures", "36", "--kills", "3")
    ran = subprocess.run([sys.executable, "-m", "benchmarks.killed", *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (
        "each good image exists once and is equal byte for byte, no temporary file is left, the manifest agrees"
        in ran.stdout
    )
