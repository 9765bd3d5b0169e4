"""Runs command lines in forks of one process, in folders that hold what commands read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from images import make_image, save_image
from systems import IMPORT_PATH

__all__ = ["Server", "fill"]

SERVER = Path(__file__).with_name("forked_commands.py")


class Server:
    """Runs command lines in forks of a process that has loaded the program."""

    def __init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESTORE_", "NO_COLOR"))}
        environment = {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": IMPORT_PATH}
        command = [sys.executable, str(SERVER)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)

    def run(self, arguments: list[str], box: Path) -> dict[str, Any]:
        """Return the exit code, the output, the messages and the refused changes of a command."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps({'arguments': arguments, 'box': str(box)})}\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


def fill(box: Path, weights: Path) -> Path:
    """Write the files that commands read; return the working folder, so deep that ../.. is inside the box."""
    work = box / "a/b/work"
    for name in ("home", "tmp", "cache"):
        (box / name).mkdir(parents=True)
    save_image(work / "in.png", make_image(12, 16))
    save_image(work / "photos/1.png", make_image(12, 16))
    save_image(work / "photos/2.jpg", make_image(9, 8))
    (work / "list.txt").write_text("in.png\n")
    shutil.copy(weights, work / "weights.safetensors")
    return work
