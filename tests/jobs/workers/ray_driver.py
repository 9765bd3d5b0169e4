"""Runs a pickled Job on a cluster and prints a JSON line for each Result: `python ray_driver.py FILE [MOST]`."""

from __future__ import annotations

import json
import os
import pickle
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from restore_cli.jobs.events import Event, Note
from restore_cli.jobs.run import run_job
from restore_cli.jobs.types import Result


def main() -> None:
    """Print each Result and each note. Start no more tasks after MOST Results."""
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    most = int(sys.argv[2]) if len(sys.argv) > 2 else 1 << 30
    results: list[Result] = []

    def tell_note(event: Event) -> None:
        if isinstance(event, Note):
            tell({"note": event.text})

    for result in run_job(job, tell_note, lambda: len(results) >= most):
        results.append(result)
        tell({**asdict(result), "error": str(result.error or "")})


def tell(row: dict[str, Any]) -> None:
    """Print one line."""
    os.write(1, json.dumps(row).encode() + b"\n")


if __name__ == "__main__":
    main()
