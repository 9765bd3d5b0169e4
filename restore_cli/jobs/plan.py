"""What is left to do: which inputs are done already, which output each other one gets."""

from __future__ import annotations

import hashlib
import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from restore_cli.atomic import sweep
from restore_cli.errors import OutputError, RestoreError
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX, READ_ONLY_SUFFIXES
from restore_cli.jobs.discovery import Search
from restore_cli.jobs.manifest import BEGUN, FAILED, Manifest, fingerprint, options_digest
from restore_cli.jobs.naming import Naming, outputs
from restore_cli.jobs.paths import Input, PassedOver, absolute, is_remote
from restore_cli.jobs.types import Job, Result, Step, Work
from restore_cli.jobs.watch import INTERVAL, Appearing
from restore_cli.special_files import refuse_special_file

__all__ = ["Plan"]


Facts = tuple[int, int]
"""bytes, and time of last change in ns"""


class Begun(NamedTuple):
    """What is being worked on, and where that is written down under which name."""

    item: Input
    manifest: Manifest | None
    name: str
    stamp: int | str
    """of the input as it was then"""


@dataclass
class Plan:
    """The steps of a job, and the books that are kept of them."""

    job: Job
    naming: Naming
    weights: str | None = None
    """sha256 of the checkpoint file that was named"""
    passed: PassedOver = field(default_factory=PassedOver)
    looking: bool = False
    """nothing is written, not even that work has begun"""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    open: dict[str, Begun] = field(default_factory=dict)
    """by output"""
    swept: set[str] = field(default_factory=set)
    found: int = 0
    """inputs, those of other shards left out"""

    def __post_init__(self) -> None:
        self.asked = asked_for(self.job, self.weights)
        self.options = options_digest(self.asked)
        self.sums = {entry.name: entry.sha256 for entry in self.job.catalogue.entries if entry.sha256}
        self.streams = self.job.asked.one_folder and not self.naming.template
        self.folder = self.naming.folder(several=self.streams or self.several)
        self.home = self.home_of_outputs()
        self.appearing = Appearing() if self.job.watch else None

    @property
    def several(self) -> bool:
        """Whether more than one input was named."""
        asked = self.job.asked
        return len(asked.paths) + len(asked.listed or ()) > 1 or any(map(is_folder, asked.paths))

    def home_of_outputs(self) -> str | None:
        """The folder of the manifest where -o decides on it: itself, or what stands before a template's first field."""
        if self.folder is not None:
            return self.folder
        if self.naming.template:
            return (self.naming.output or "").partition("{")[0].rpartition("/")[0] or "."
        return None

    def search(self, passed: PassedOver) -> Search:
        """For the inputs; the outputs' folder is not looked into."""
        return Search(self.job.asked, (*FORMAT_BY_SUFFIX, *READ_ONLY_SUFFIXES), passed, self.folder)

    def steps(self) -> Iterator[Step]:
        """Work, and Results of inputs that need none; folders that cannot be looked into come last.

        Where the folders are watched there is no last: None tells that there is nothing at the moment.
        """
        yield from self.look(self.passed)
        for error in self.passed.unreadable:
            self.found += 1
            yield Result(error.message.partition(": ")[0], "", "failed", error=error)
        while self.appearing is not None:
            self.appearing.look_again()
            next_look = time.monotonic() + INTERVAL
            while time.monotonic() < next_look:
                yield None
            yield from self.look(PassedOver())

    def look(self, passed: PassedOver) -> Iterator[Step]:
        """The steps of everything that is there."""
        for group in self.search(passed).groups():
            yield from self.steps_of(group)

    def steps_of(self, group: list[Input]) -> Iterator[Step]:
        """The steps of inputs that may share names."""
        named = outputs(group, self.naming, self.folder)
        if named.refused and not self.streams:
            raise named.refused[0][2]
        for item, output, error in named.refused:
            if self.wanted(item):
                yield Result(item.path, output, "failed", error=error)
        for item, output in named.pairs:
            if self.wanted(item):
                yield self.step(item, output)

    def wanted(self, item: Input) -> bool:
        """Whether it is this process's to restore, and now."""
        shard = self.job.shard
        if (shard is not None and not mine(item, shard)) or (self.appearing and not self.appearing.settled(item)):
            return False
        self.found += 1
        return True

    def step(self, item: Input, output: str) -> Step:
        """What to do with one input."""
        try:
            there = looked_at(output)
            if there is not None and self.job.again != "overwrite" and (result := self.kept(item, output, there)):
                return result
            return self.begin(item, output, there)
        except RestoreError as error:
            return Result(item.path, output, "failed", error=error)

    def kept(self, item: Input, output: str, there: Facts) -> Result | None:
        """Why an output stays as it is; None where it is to be made again. Raises OutputError."""
        manifest, name = self.book(item, output)
        known = None if manifest is None or self.job.again == "skip-existing" else manifest.known(name)
        if manifest is None or known is None:
            return Result(item.path, output, "skipped", notes=("it is there already; --overwrite writes it again",))
        if known in (BEGUN, FAILED):
            return None
        if known == fingerprint(item.relative, item.bytes, self.stamp(item), self.options):
            return Result(item.path, output, "skipped", notes=("done before; --overwrite does it again",))
        event = manifest.event(name)
        if event["result"] != list(there):
            why = "it was changed after it was restored; --overwrite writes it again"
            return Result(item.path, output, "skipped", notes=(why,))
        if event["source"] != absolute(item.path) and os.path.exists(event["source"]):
            line = f"{item.path} would be written to {output}, which is the result of {event['source']}"
            raise OutputError(line, "-o with another folder, or --overwrite")
        return None

    def begin(self, item: Input, output: str, there: Facts | None) -> Work:
        """The work, written down as begun. Raises OutputError."""
        if there is not None and os.path.exists(item.path) and os.path.samefile(item.path, output):
            raise OutputError(f"{output}: is the input itself, by a link", "-o with another folder")
        manifest, name = self.book(item, output)
        if self.looking:
            return Work(item.path, output, there)
        if manifest is not None:
            manifest.add({"output": name, "status": "begun"})
        self.open[output] = Begun(item, manifest, name, self.stamp(item))
        if (folder := os.path.dirname(output)) not in self.swept and not is_remote(folder):
            self.swept.add(folder)
            sweep(Path(folder))
        return Work(item.path, output, there)

    def end(self, result: Result) -> None:
        """Writes down what became of work. Raises OutputError."""
        begun = self.open.pop(result.output, None)
        if begun is None or begun.manifest is None:
            return
        item, now = begun.item, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event: dict[str, Any] = {"output": begun.name, "status": result.status, "time": now, "input": item.relative}
        if result.error is not None:
            begun.manifest.add({**event, "error": str(result.error)})
            return
        event |= {"source": absolute(item.path), "bytes": item.bytes, "modified": item.modified}
        if self.job.hash:
            event["sha256"] = begun.stamp
        event |= {"options": self.options, "model": result.model, "checkpoint": result.sha256}
        event["pixels"] = result.pixels
        begun.manifest.add({**event, "result": looked_at(result.output), "seconds": round(result.seconds, 3)})

    def stamp(self, item: Input) -> int | str:
        """What tells an input from what it was: the time of its last change, or its sha256."""
        if not self.job.hash:
            return item.modified
        try:
            with open(item.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    def book(self, item: Input, output: str) -> tuple[Manifest | None, str]:
        """Where an output is written down, and its name there: for named files without a folder, nowhere."""
        home = self.home if self.home is not None else item.home
        if home is None or is_remote(home):  # no line can be added to a file there: what is there counts as done
            return None, output
        if (manifest := self.manifests.get(home)) is None:
            manifest = Manifest(home, self.asked, self.current, self.job.shard, self.job.hash)
            self.manifests[home] = manifest
        return manifest, output.removeprefix(home.rstrip("/") + "/")

    def current(self, event: Mapping[str, Any]) -> bool:
        """Whether a result's checkpoint is still what its name stands for."""
        return event["checkpoint"] in (self.sums.get(event["model"]), None) or event["model"] not in self.sums

    def count(self) -> int:
        """How many inputs there are."""
        total, shard = 0, self.job.shard
        for group in self.search(PassedOver()).groups():
            pairs = outputs(group, self.naming, self.folder).pairs
            total += len(pairs) if shard is None else sum(mine(item, shard) for item, _ in pairs)
        return total

    def close(self) -> None:
        """Everything that was written down is on the disk."""
        for manifest in self.manifests.values():
            manifest.close()


def looked_at(path: str) -> Facts | None:
    """(bytes, time of last change in ns) of what is there. Raises OutputError for a device, a pipe or a socket."""
    if is_remote(path):
        from restore_cli.jobs.storage import look_at

        return look_at(path)
    try:
        facts = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        refuse_special_file(Path(path))
    return facts.st_size, facts.st_mtime_ns


def is_folder(path: str) -> bool:
    """Whether inputs are to be found in it; of a URL its name tells."""
    return os.path.splitext(path)[1].lower() not in FORMAT_BY_SUFFIX if is_remote(path) else os.path.isdir(path)


def mine(item: Input, shard: tuple[int, int]) -> bool:
    """Whether an input belongs to shard I of N: by its path alone, so that every machine finds the same."""
    return zlib.crc32(item.relative.encode("utf-8", "surrogateescape")) % shard[1] == shard[0] - 1


def asked_for(job: Job, weights: str | None) -> dict[str, Any]:
    """Everything that has a say in the pixels."""
    request = {name: value for name, value in asdict(job.request).items() if name != "channels"}
    words = ("precision", "tile", "overlap", "format", "frame", "jpeg_quality")
    given = {name: getattr(job, name) for name in words}
    return {**request, **given, **asdict(job.output_options), "weights": weights}
