"""Kills a batch again and again: `python -m benchmarks.killed [--pictures 300] [--kills 20] [--seed 0]`.

It restores generated images, some of them broken, three times: once undisturbed; into another folder, killed with
SIGKILL at random moments and started again until it ends; and, if it runs as root and can mount one, onto a small disk
that fills up, becomes read-only, and gets more space. Each time, every good image must exist once and be equal to the
undisturbed run's byte for byte, no temporary file may be left, and the manifest must agree.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from restore_cli.image.codec import encode
from restore_cli.image.picture import Picture
from restore_cli.jobs.manifest import MANIFEST_NAME

SUFFIXES = (".png", ".jpg", ".tif", ".webp", ".png")
BROKEN = 15
"""Every fifteenth file is empty or only the beginning of an image."""


def main() -> None:
    """Make the images, run the three batches, check their outputs and print the result of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="restore-killed-") as name:
        folder = Path(name)
        good = make_images(folder / "in", given.pictures, given.seed)
        ran = run_restore(folder / "in", folder / "undisturbed")
        print_line(f"undisturbed: {len(good)} good of {given.pictures}, exit code {ran.returncode}")
        check_outputs(folder / "undisturbed", good, read_outputs(folder / "undisturbed"))
        expected = read_outputs(folder / "undisturbed")
        moments = kill_repeatedly(folder / "in", folder / "killed", given.kills, random.Random(given.seed))
        print_line(f"killed with this many results: {', '.join(map(str, moments))}")
        check_outputs(folder / "killed", good, expected)
        print_line(
            "each good image exists once and is equal byte for byte, no temporary file is left, the manifest agrees"
        )
        print_line(fill_disk(folder / "in", folder / "disk", good, expected))


def print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make_images(folder: Path, count: int, seed: int) -> set[str]:
    """Write images of several formats into three folders. Return the names of those that are not broken."""
    numbers = np.random.default_rng(seed)
    good = set()
    for i in range(count):
        suffix = SUFFIXES[i % len(SUFFIXES)]
        path = folder / f"roll{i % 3}" / f"{i:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = numbers.integers(8, 64, 2)
        kind = np.uint16 if i % len(SUFFIXES) == 4 else np.uint8
        pixels = numbers.integers(0, np.iinfo(kind).max, (height, width, 3), kind)
        encode(Picture(pixels), path)
        if i % BROKEN == BROKEN - 1:
            path.write_bytes(path.read_bytes()[: i % 2 * 90])
        else:
            good.add(str(path.relative_to(folder)))
    return good


def build_command(source: Path, output: Path) -> list[str]:
    words = ("denoise", "--model", "lite", "--offline", "--device", "cpu", "--quiet")
    return [sys.executable, "-m", "restore_cli", *words, str(source), "-o", str(output)]


def run_restore(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(build_command(source, output), capture_output=True, text=True)


def kill_repeatedly(source: Path, output: Path, kills: int, moments: random.Random) -> list[int]:
    """Kill the batch `kills` times, then let it end. Return the number of results at each kill.

    Each run is killed after a random number of further results and up to 50 ms.
    """
    counts = []
    total = sum(path.is_file() for path in source.rglob("*"))
    for left in range(kills, 0, -1):
        there = count_results(output)
        wanted = there + moments.randint(0, max(1, 2 * (total - there) // (left + 1)))
        process = subprocess.Popen(build_command(source, output), stderr=subprocess.DEVNULL)
        while process.poll() is None and count_results(output) < wanted:
            pass
        try:
            process.wait(moments.random() * 0.05)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        counts.append(count_results(output))
    run_restore(source, output)
    return counts


def count_results(folder: Path) -> int:
    """Return the number of files that are not hidden."""
    return sum(path.is_file() for path in folder.glob("*/[!.]*"))


def read_outputs(folder: Path) -> dict[str, bytes]:
    """Return every file except the manifest, by its name."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check_outputs(folder: Path, good: set[str], expected: dict[str, bytes]) -> None:
    """Raise AssertionError if a file is missing, different or left over, or if the manifest disagrees."""
    found = read_outputs(folder)
    assert set(found) == good, f"missing {good - set(found)}, too many {set(found) - good}"
    different = [name for name in found if found[name] != expected[name]]
    assert not different, f"different: {different}"
    last: dict[str, Any] = {}
    for line in (folder / MANIFEST_NAME).read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # torn by a kill or a full disk
        if "status" in event:
            last[event["output"]] = event
    done = {name for name, event in last.items() if event["status"] == "done"}
    assert done == good, f"the manifest lacks {good - done} and has {done - good} too many"
    facts = {name: (folder / name).stat() for name in good}
    assert all(last[name]["result"] == [facts[name].st_size, facts[name].st_mtime_ns] for name in good)


def fill_disk(source: Path, folder: Path, good: set[str], expected: dict[str, bytes]) -> str:
    """Restore onto a disk that is too small, then read-only, then large enough. Return a line about it."""
    folder.mkdir()
    size = sum(map(len, expected.values()))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        return f"full disk: not tried, because no disk can be mounted here ({mounted.stderr.strip()})"
    try:
        full = run_restore(source, folder)
        held = read_outputs(folder)
        assert full.returncode == 1
        assert "no space left" in full.stderr.lower()
        assert 0 < len(held) < len(good)
        assert all(expected[name] == data for name, data in held.items()), "half a file on the full disk"
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        barred = run_restore(source, folder)
        assert barred.returncode == 1
        assert "read-only" in barred.stderr.lower()
        assert read_outputs(folder) == held
        subprocess.run(["mount", "-o", f"remount,rw,size={size * 4}", str(folder)], check=True)
        run_restore(source, folder)
        check_outputs(folder, good, expected)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    line = next(line for line in full.stderr.splitlines() if "space" in line)
    return (
        f"full disk: {len(held)} done, then '{line}'; read-only: nothing changed; with space: all exist and are equal"
    )


if __name__ == "__main__":
    main()
