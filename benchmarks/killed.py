"""A batch that is killed again and again: `python -m benchmarks.killed [--pictures 300] [--kills 20] [--seed 0]`.

Restores generated pictures, some of them broken, once undisturbed; then into another folder, killed with SIGKILL at
random moments and started again until it ends; then onto a small disk that fills up and is read-only in between (as
root, who may mount one). Every time each good picture has to be there once and equal to the undisturbed run's to the
byte, with no temporary file left and a manifest that tells the same.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
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
"""every so many files one that is no picture, or half of one"""


def main() -> None:
    """Make the pictures, disturb, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="restore-killed-") as name:
        folder = Path(name)
        good = make(folder / "in", given.pictures, given.seed)
        ran = restore(folder / "in", folder / "undisturbed")
        tell(f"undisturbed: {len(good)} good of {given.pictures}, exit code {ran.returncode}")
        check(folder / "undisturbed", good, contents(folder / "undisturbed"))
        expected = contents(folder / "undisturbed")
        moments = killed(folder / "in", folder / "killed", given.kills, random.Random(given.seed))
        tell(f"killed with some already there: {', '.join(map(str, moments))}")
        check(folder / "killed", good, expected)
        tell("each good picture there once, equal to the byte, no temporary file, manifest consistent")
        tell(full_disk(folder / "in", folder / "disk", good, expected))


def tell(line: str) -> None:
    """At once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make(folder: Path, count: int, seed: int) -> set[str]:
    """Pictures of several kinds in three folders; the names of those that are not broken."""
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


def command(source: Path, output: Path) -> list[str]:
    """With a bundled checkpoint."""
    words = ("denoise", "--model", "lite", "--offline", "--device", "cpu", "--quiet")
    return [sys.executable, "-m", "restore_cli", *words, str(source), "-o", str(output)]


def restore(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Undisturbed."""
    return subprocess.run(command(source, output), capture_output=True, text=True)


def killed(source: Path, output: Path, kills: int, moments: random.Random) -> list[int]:
    """Run until it ends by itself; how many results were there at each kill. A run is killed as soon as it has written
    some more results, of which the number is drawn, and after a drawn part of the time that one takes.
    """
    counts = []
    total = sum(path.is_file() for path in source.rglob("*"))
    for left in range(kills, 0, -1):
        there = results(output)
        wanted = there + moments.randint(0, max(1, 2 * (total - there) // (left + 1)))
        process = subprocess.Popen(command(source, output), stderr=subprocess.DEVNULL)
        while process.poll() is None and results(output) < wanted:
            pass
        try:
            process.wait(moments.random() * 0.05)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(results(output))
    restore(source, output)
    return counts


def results(folder: Path) -> int:
    """How many files are there, hidden ones left out."""
    return sum(path.is_file() for path in folder.glob("*/[!.]*"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check(folder: Path, good: set[str], expected: dict[str, bytes]) -> None:
    """Raises AssertionError where anything is missing, different, left over, or told otherwise by the manifest."""
    found = contents(folder)
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
    assert done == good, f"the manifest misses {good - done}, tells of {done - good}"
    facts = {name: (folder / name).stat() for name in good}
    assert all(last[name]["result"] == [facts[name].st_size, facts[name].st_mtime_ns] for name in good)


def full_disk(source: Path, folder: Path, good: set[str], expected: dict[str, bytes]) -> str:
    """Onto a disk that is too small, then read-only, then large enough."""
    folder.mkdir()
    size = sum(map(len, expected.values()))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        return f"full disk: not tried, no disk can be mounted here ({mounted.stderr.strip()})"
    try:
        full = restore(source, folder)
        held = contents(folder)
        assert full.returncode == 1
        assert "no space left" in full.stderr.lower()
        assert 0 < len(held) < len(good)
        assert all(expected[name] == data for name, data in held.items()), "half a file on the full disk"
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        barred = restore(source, folder)
        assert barred.returncode == 1
        assert "read-only" in barred.stderr.lower()
        assert contents(folder) == held
        subprocess.run(["mount", "-o", f"remount,rw,size={size * 4}", str(folder)], check=True)
        restore(source, folder)
        check(folder, good, expected)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    line = next(line for line in full.stderr.splitlines() if "space" in line)
    return f"full disk: {len(held)} done, then '{line}'; read-only: nothing changed; with room: all there and equal"


if __name__ == "__main__":
    main()
