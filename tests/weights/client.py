"""`python client.py COMMAND...` runs commands and prints a line of JSON for each.

The commands are "fetch NAME [force] [offline]", "first NAME...", "locate NAME", "verify NAME" and "remove NAME".
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from restore_cli.errors import RestoreError
from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.fetch import fetch, fetch_first
from restore_cli.weights.progress import (
    DownloadEvent,
    DownloadFinished,
    DownloadProgress,
    DownloadStarted,
    SourceFailed,
)
from restore_cli.weights.store import locate, remove, verify


class Meter:
    def __init__(self) -> None:
        self.started: list[int | None] = []
        self.seen = self.finished = 0
        self.passed: list[str] = []

    def handle(self, event: DownloadEvent) -> None:
        match event:
            case DownloadStarted(_, total):
                self.started.append(total)
                self.seen = 0
            case DownloadProgress(count):
                self.seen += count
            case DownloadFinished():
                self.finished += 1
            case SourceFailed(name, reason):
                self.passed.append(f"{name}: {reason}")


def run_command(command: str) -> dict[str, Any]:
    verb, name, *options = command.split()
    entry, meter = read_catalogue().find_entry(name), Meter()
    try:
        if verb == "fetch":
            path = fetch(entry, offline="offline" in options, force="force" in options, on_event=meter.handle)
            counts = {"started": meter.started, "seen": meter.seen, "finished": meter.finished}
            return {"path": str(path), "passed": meter.passed} | counts
        if verb == "first":
            chosen, path = fetch_first([entry, *map(read_catalogue().find_entry, options)])
            return {"path": str(path), "name": chosen.name}
        if verb == "remove":
            return {"gone": [str(path) for path in remove(entry)]}
        found = {"locate": locate, "verify": verify}[verb](entry)
        return {"path": str(found) if found else None}
    except RestoreError as error:
        return {"error": type(error).__name__, "message": str(error), "code": error.code, "passed": meter.passed}


def limit_files(size: int) -> None:
    """Let writes beyond `size` bytes fail, as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


if __name__ == "__main__":
    if size := os.environ.get("FILE_LIMIT"):
        limit_files(int(size))
    for argument in sys.argv[1:]:
        sys.stdout.write(json.dumps(run_command(argument)) + "\n")
        sys.stdout.flush()
