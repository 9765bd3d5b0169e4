"""What has been done in a folder of results: one JSON line for each event, only ever appended.

A picture has a line when work on it begins and another when it is done or has failed. The last line counts: after a
kill, what has begun and is not done is done again, whatever lies in its place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from restore_cli.atomic import describe_refusal, make_folder

__all__ = ["BEGUN", "FAILED", "NAME", "Manifest", "fingerprint", "options_digest"]

STEM = ".restore-manifest"
NAME = f"{STEM}.jsonl"
"""of shard I of N it is .restore-manifest.I-of-N.jsonl; every one of them is read"""

BEGUN, FAILED = 1, 0
"""fingerprints of lines that stand for no finished picture"""


def fingerprint(relative: str, size: int, stamp: int | str, options: str) -> int:
    """A number for an input as it was and what was asked for; equal in this process only. `stamp`: ns, or a sha256."""
    return hash((relative, size, stamp, options)) & 0xFFFF_FFFF_FFFF_FFFF | 2


class Manifest:
    """The lines of one folder: 24 bytes in memory for each that was there, however long its paths are."""

    def __init__(
        self,
        folder: str,
        asked: Mapping[str, Any],
        current: Callable[[Mapping[str, Any]], bool],
        shard: tuple[int, int] | None = None,
        by_hash: bool = False,
    ) -> None:
        """Reads every manifest in the folder. `asked` is written down before the first line of this run; a picture that
        is not `current` has been made with what is not any more.
        """
        self.folder, self.asked, self.current, self.by_hash = Path(folder), asked, current, by_hash
        self.path = self.folder / (NAME if shard is None else f"{STEM}.{shard[0]}-of-{shard[1]}.jsonl")
        self.files = sorted(self.folder.glob(f"{STEM}*.jsonl"))
        self.keys, self.prints, self.places = self.read()
        self.fresh: dict[int, tuple[int, int]] = {}
        """fingerprint and place of the lines that this process has written, by key"""
        self.descriptor = -1

    def read(self) -> tuple[array[int], array[int], array[int]]:
        """Keys in order, what is known of each, and where its line stands (number of the file, then its offset)."""
        keys, prints, places = array("Q"), array("Q"), array("Q")
        for number, path in enumerate(self.files):
            for place, event in lines(path):
                if "status" not in event:
                    continue
                keys.append(key_of(event["output"]))
                prints.append(self.print_of(event))
                places.append(number << 48 | place)
        order = np.argsort(np.frombuffer(keys, np.uint64) if keys else np.empty(0, np.uint64), kind="stable")
        return sorted_by(keys, order), sorted_by(prints, order), sorted_by(places, order)

    def print_of(self, event: Mapping[str, Any]) -> int:
        """What an event says of its output."""
        if event["status"] != "done":
            return BEGUN if event["status"] == "begun" else FAILED
        stamp = event.get("sha256", "") if self.by_hash else event["modified"]
        return fingerprint(event["input"], event["bytes"], stamp, event["options"] if self.current(event) else "")

    def known(self, output: str) -> int | None:
        """The fingerprint of the finished picture there, BEGUN, FAILED, or None where no line tells of it."""
        found = self.found(output)
        return None if found is None else found[0]

    def found(self, output: str) -> tuple[int, int] | None:
        """Fingerprint and place of an output's last line."""
        if self.fresh and (fresh := self.fresh.get(key_of(output))):
            return fresh
        last = self.last(output)
        return None if last is None else (self.prints[last], self.places[last])

    def last(self, output: str) -> int | None:
        """Where the last line of an output stands among the keys."""
        key = key_of(output)
        found = bisect_left(self.keys, key)
        if found == len(self.keys) or self.keys[found] != key:
            return None
        while found + 1 < len(self.keys) and self.keys[found + 1] == key:
            found += 1
        return found

    def event(self, output: str) -> Mapping[str, Any]:
        """The last line of an output; empty where there is none."""
        found = self.found(output)
        if found is None:
            return {}
        number, place = found[1] >> 48, found[1] & (1 << 48) - 1
        with self.files[number].open("rb") as file:
            file.seek(place)
            event: Mapping[str, Any] = json.loads(file.readline())
        return event

    def add(self, event: Mapping[str, Any]) -> None:
        """One line, in one write. `status` "begun" says that what lies at its output is ours to replace until it is
        done. Raises OutputError.
        """
        try:
            if self.descriptor < 0:
                self.open()
            place = self.append(event)
        except OSError as error:
            self.close()
            raise describe_refusal(self.path, error) from None
        number = self.files.index(self.path)
        self.fresh[key_of(event["output"])] = self.print_of(event), number << 48 | place

    def append(self, event: Mapping[str, Any]) -> int:
        """Where its line begins."""
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        if os.write(self.descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.lseek(self.descriptor, 0, os.SEEK_CUR) - len(line)

    def open(self) -> None:
        """For appending; a last line that a kill or a full disk has torn is ended first."""
        make_folder(self.folder)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        size = os.fstat(self.descriptor).st_size
        if size and os.pread(self.descriptor, 1, size - 1) != b"\n":
            os.write(self.descriptor, b"\n")
        if self.path not in self.files:
            self.files.append(self.path)
        self.append({"restore": version("restore-cli"), "options": options_digest(self.asked), "asked": self.asked})

    def close(self) -> None:
        """Lines on disk."""
        if self.descriptor >= 0:
            with suppress(OSError):
                os.fsync(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


def lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each whole line with its offset; torn ones are passed over."""
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


def key_of(output: str) -> int:
    """A number for a path; equal in this process only."""
    return hash(output) & 0xFFFF_FFFF_FFFF_FFFF


def sorted_by(values: array[int], order: Any) -> array[int]:  # noqa: ANN401  # an array of indices
    """The values in that order."""
    out = array("Q")
    if values:
        out.frombytes(np.frombuffer(values, np.uint64)[order].tobytes())
    return out


def options_digest(asked: Mapping[str, Any]) -> str:
    """Sixteen hex digits for everything that has a say in the pixels."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
