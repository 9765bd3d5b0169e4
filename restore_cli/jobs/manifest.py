"""The manifest of a folder of results: JSON lines that are only ever appended.

An output has a line when its restoration starts and another when it is done or has failed. Its last line counts: after
a kill, an output that was started and not finished is restored again, whatever file is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from restore_cli.atomic import describe_refusal, make_folder

__all__ = [
    "FAILED",
    "MANIFEST_NAME",
    "STARTED",
    "Manifest",
    "compute_fingerprint",
    "digest_options",
    "open_manifest",
]

STEM = ".restore-manifest"
MANIFEST_NAME = f"{STEM}.jsonl"
"""the manifest of shard I of N is .restore-manifest.I-of-N.jsonl; all of them are read"""

STARTED, FAILED = 1, 0
"""fingerprints of outputs that are not finished"""

DONE_KEYS = frozenset(("input", "source", "bytes", "modified", "options", "model", "checkpoint", "result"))
"""keys of a line with the status "done", as far as they are read"""


def compute_fingerprint(relative: str, size: int, stamp: int | str, options: str) -> int:
    """Return a number for an input and the options, valid in this process. `stamp`: mtime in ns, tag or sha256."""
    return hash((relative, size, stamp, options)) & 0xFFFF_FFFF_FFFF_FFFF | 2


class Manifest:
    """The manifest of one folder. In memory it takes 24 bytes for each line, however long the paths are."""

    def __init__(
        self,
        path: Path,
        files: list[Path],
        options: Mapping[str, Any],
        is_current: Callable[[Mapping[str, Any]], bool],
        by_hash: bool = False,
    ) -> None:
        """Read `files`, the manifests of all runs and shards. `path` is the one that this run appends to.

        `options` are recorded before the first line of this run. `is_current` tells whether the checkpoint of an event
        is still the one that the catalogue has under this name.
        """
        self.path, self.files = path, files
        self.options, self.is_current, self.by_hash = options, is_current, by_hash
        self.keys, self.fingerprints, self.places = self.read_lines()
        self.written: dict[int, tuple[int, int]] = {}
        """fingerprint and place of the lines that this process has written, by key"""
        self.descriptor = -1

    def read_lines(self) -> tuple[array[int], array[int], array[int]]:
        """Return the sorted keys, the fingerprint of each, and its place: file number << 48 | offset."""
        keys, fingerprints, places = array("Q"), array("Q"), array("Q")
        for number, path in enumerate(self.files):
            for place, event in parse_lines(path):
                if not is_record(event):
                    continue
                keys.append(hash_path(event["output"]))
                fingerprints.append(self.fingerprint_event(event))
                places.append(number << 48 | place)
        order = np.argsort(np.frombuffer(keys, np.uint64) if keys else np.empty(0, np.uint64), kind="stable")
        return reorder(keys, order), reorder(fingerprints, order), reorder(places, order)

    def fingerprint_event(self, event: Mapping[str, Any]) -> int:
        if event["status"] != "done":
            return STARTED if event["status"] == "begun" else FAILED
        stamp = event.get("sha256", "") if self.by_hash else event["modified"]
        options = event["options"] if self.is_current(event) else ""
        return compute_fingerprint(event["input"], event["bytes"], stamp, options)

    def find(self, output: str) -> tuple[int, int] | None:
        """Return the fingerprint and the place of the last line of an output, None if the manifest has no line of it.

        The fingerprint is STARTED or FAILED if the output is not finished.
        """
        key = hash_path(output)
        if key in self.written:
            return self.written[key]
        last = bisect_right(self.keys, key) - 1
        return (self.fingerprints[last], self.places[last]) if last >= 0 and self.keys[last] == key else None

    def read_event(self, output: str) -> Mapping[str, Any]:
        """Return the last line of an output, empty if there is none."""
        found = self.find(output)
        if found is None:
            return {}
        number, place = found[1] >> 48, found[1] & (1 << 48) - 1
        with self.files[number].open("rb") as file:
            file.seek(place)
            event: Mapping[str, Any] = json.loads(file.readline())
        return event

    def append(self, event: Mapping[str, Any]) -> None:
        """Append one line in one write. Raises OutputError.

        The status "begun" means that restore may replace the file at the output until it is done.
        """
        try:
            if self.descriptor < 0:
                self.open()
            place = self.write_line(event)
        except OSError as error:
            self.close()
            raise describe_refusal(self.path, error) from None
        number = self.files.index(self.path)
        self.written[hash_path(event["output"])] = self.fingerprint_event(event), number << 48 | place

    def write_line(self, event: Mapping[str, Any]) -> int:
        """Write one line and return its offset."""
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        if os.write(self.descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.lseek(self.descriptor, 0, os.SEEK_CUR) - len(line)

    def open(self) -> None:
        """Open the file for appending. A last line that a kill or a full disk has cut is ended first."""
        make_folder(self.path.parent)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        end = os.lseek(self.descriptor, 0, os.SEEK_END)
        if end:
            os.lseek(self.descriptor, end - 1, os.SEEK_SET)
            if os.read(self.descriptor, 1) != b"\n":
                os.write(self.descriptor, b"\n")
        if self.path not in self.files:
            self.files.append(self.path)
        self.write_line(
            {"restore": version("restore-cli"), "options": digest_options(self.options), "asked": self.options}
        )

    def publish(self) -> None:
        """Make all lines visible to other runs. They are visible at once in a local folder."""

    def close(self) -> None:
        """Write everything to the disk and close the file."""
        if self.descriptor >= 0:
            with suppress(OSError):
                os.fsync(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


def open_manifest(
    folder: str,
    options: Mapping[str, Any],
    is_current: Callable[[Mapping[str, Any]], bool],
    shard: tuple[int, int] | None = None,
    by_hash: bool = False,
) -> Manifest:
    """Return the manifest of a local folder. The arguments are those of Manifest."""
    path = Path(folder, MANIFEST_NAME if shard is None else f"{STEM}.{shard[0]}-of-{shard[1]}.jsonl")
    return Manifest(path, sorted(path.parent.glob(f"{STEM}*.jsonl")), options, is_current, by_hash)


def parse_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield each complete line with its offset. Lines that were cut are skipped."""
    place, read = 0, json.JSONDecoder().raw_decode  # loads() would guess the encoding of every line
    with path.open("rb") as file:
        for line in file:
            try:
                event, _ = read(line.decode("ascii"))
            except ValueError:
                event = None
            if isinstance(event, dict):
                yield place, event
            place += len(line)


def is_record(event: Mapping[str, Any]) -> bool:
    """Whether a line records an output. The other lines have the options of a run, or were not written by restore."""
    output, status = event.get("output"), event.get("status")
    return isinstance(output, str) and isinstance(status, str) and (status != "done" or event.keys() >= DONE_KEYS)


def hash_path(output: str) -> int:
    """Return a number for a path, valid in this process."""
    return hash(output) & 0xFFFF_FFFF_FFFF_FFFF


def reorder(values: array[int], order: Any) -> array[int]:  # noqa: ANN401  # an array of indices
    out = array("Q")
    if values:
        out.frombytes(np.frombuffer(values, np.uint64)[order].tobytes())
    return out


def digest_options(options: Mapping[str, Any]) -> str:
    """Return sixteen hex digits for the options that change the pixels."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
