"""Times a run over images that are all done: `python -m benchmarks.skips [--files 1000000]`.

It makes a tree of empty files, a thousand in each folder, an output for each, and the manifest of a finished run. It
then runs the command over the tree and prints its seconds and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from restore_cli.jobs.manifest import MANIFEST_NAME
from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.paths import IgnoredFiles, InputSpec
from restore_cli.jobs.run import make_plan
from restore_cli.jobs.types import Job, ModelOptions
from restore_cli.weights.catalogue import Request, read_catalogue

PER_FOLDER = 1000


def main() -> None:
    """Make the tree, run the command over it three times, and print each result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--flat", action="store_true", help="all in one folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="restore-skips-") as folder:
        prepare(Path(folder), given.files, given.files if given.flat else PER_FOLDER)
        for attempt in range(3):
            sys.stdout.write(f"run {attempt + 1}: {measure(Path(folder))}\n")
            sys.stdout.flush()


def prepare(folder: Path, files: int, per_folder: int) -> None:
    """Write inputs, outputs, and the manifest that a finished run leaves."""
    job = Job(ModelOptions(Request("denoise"), read_catalogue()), InputSpec((str(folder / "in"),)), str(folder / "out"))
    plan = make_plan(job, ModelCache(job.model), IgnoredFiles())
    entry = next(entry for entry in job.model.catalogue.entries if entry.name == "lite-denoise")
    made = {"model": entry.name, "checkpoint": entry.sha256, "options": plan.options_digest, "seconds": 1.0}
    for start in range(0, files, per_folder):
        for side in ("in", "out"):
            (folder / side / f"{start // per_folder:04d}").mkdir(parents=True)
    with (folder / "out" / MANIFEST_NAME).open("w") as manifest:
        for i in range(files):
            name = f"{i // per_folder:04d}/photo_{i:07d}.png"
            for side in ("in", "out"):
                os.close(os.open(folder / side / name, os.O_CREAT | os.O_WRONLY))
            modified = (folder / "in" / name).stat().st_mtime_ns
            facts = {"source": str(folder / "in" / name), "bytes": 0, "modified": modified, "result": [0, 0]}
            event = {"output": name, "status": "done", "time": "2026-01-01T00:00:00Z", "input": name, **facts, **made}
            manifest.write(json.dumps({"output": name, "status": "begun"}) + "\n")
            manifest.write(json.dumps(event) + "\n")


def measure(folder: Path) -> str:
    """Run the command once. Return a line with its seconds, peak memory and exit code."""
    argv = [sys.executable, "-m", "restore_cli", "denoise", str(folder / "in"), "-o", str(folder / "out")]
    start = time.perf_counter()
    ran = subprocess.run(argv, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return f"{seconds:.1f} s, {peak:.0f} MiB, exit code {ran.returncode}: {ran.stderr.strip().splitlines()[-1:]}"


if __name__ == "__main__":
    main()
