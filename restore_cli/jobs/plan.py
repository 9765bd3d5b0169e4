"""Plans a job: which inputs are done already, and which output each other one gets."""

from __future__ import annotations

import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from restore_cli.atomic import sweep
from restore_cli.errors import OutputError, RestoreError, StorageError
from restore_cli.image.formats.capabilities import READABLE_SUFFIXES
from restore_cli.jobs.discovery import Search, is_inside
from restore_cli.jobs.manifest import FAILED, STARTED, Manifest, compute_fingerprint, digest_options, open_manifest
from restore_cli.jobs.naming import Naming, assign_outputs
from restore_cli.jobs.paths import FileState, IgnoredFiles, Input, canonicalize_path, is_remote
from restore_cli.jobs.types import Job, PlanItem, Result, Task
from restore_cli.jobs.watch import SCAN_SECONDS, StableFileWatcher
from restore_cli.special_files import refuse_special_file
from restore_cli.weights.store import compute_sha256

__all__ = ["Plan"]

REMOTE_CHUNK = 32
"""tasks that start together if their manifest is remote: one part records them"""


class StartedTask(NamedTuple):
    """A task that is being restored, and where the manifest records it."""

    item: Input
    manifest: Manifest | None
    name: str
    stamp: int | str
    """modification time or sha256 of the input when it was started"""


@dataclass
class Plan:
    """The items of a job, and the manifests that record them."""

    job: Job
    naming: Naming
    weights_sha256: str | None = None
    """of the checkpoint file, if --weights names one"""
    ignored: IgnoredFiles = field(default_factory=IgnoredFiles)
    dry_run: bool = False
    """whether nothing is written, also not that a task has started"""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    started: dict[str, StartedTask] = field(default_factory=dict)
    """by output"""
    swept: set[str] = field(default_factory=set)
    states: dict[str, dict[str, FileState]] = field(default_factory=dict)
    """states of all files below remote output folders, by their relative paths"""
    found: int = 0
    """number of inputs, without those of other shards"""

    def __post_init__(self) -> None:
        self.pixel_options = select_pixel_options(self.job, self.weights_sha256)
        self.options_digest = digest_options(self.pixel_options)
        self.published = {entry.name: entry.sha256 for entry in self.job.model.catalogue.entries if entry.sha256}
        self.by_folder = self.job.inputs.one_folder and not self.naming.is_template
        self.folder = self.naming.find_folder(several=self.by_folder or self.has_several_inputs)
        self.manifest_folder = self.find_manifest_folder()
        self.watcher = StableFileWatcher() if self.job.run.watch else None
        self.group: list[Input] = []
        """the inputs that are planned now"""
        self.real_inputs: frozenset[str] | None = None
        """their paths without links, once they are needed"""

    @property
    def has_several_inputs(self) -> bool:
        """Whether the user named more than one input, or a folder."""
        spec = self.job.inputs
        return len(spec.paths) + len(spec.listed or ()) > 1 or any(map(names_folder, spec.paths))

    def find_manifest_folder(self) -> str | None:
        """Return the folder of the manifest if -o decides it, else None.

        It is the folder that -o names, or the part of a template before its first field.
        """
        if self.folder is not None:
            return self.folder
        if self.naming.is_template:
            return (self.naming.output or "").partition("{")[0].rpartition("/")[0] or "."
        return None

    def make_search(self, ignored: IgnoredFiles) -> Search:
        """Return a search for the inputs that leaves out the folder of the outputs."""
        return Search(self.job.inputs, READABLE_SUFFIXES, ignored, self.folder)

    def items(self) -> Iterator[PlanItem]:
        """Yield tasks, and Results of inputs that need no work. Folders that cannot be read come last, as failures.

        With `watch` the items never end: None means that there is nothing to do at the moment.
        """
        yield from self.scan(self.ignored)
        for folder, error in self.ignored.unreadable.items():
            self.found += 1
            yield Result(folder, "", "failed", error=error)
        while self.watcher is not None:
            self.watcher.end_scan()
            next_look = time.monotonic() + SCAN_SECONDS
            while time.monotonic() < next_look:
                yield None
            yield from self.scan(IgnoredFiles())

    def scan(self, ignored: IgnoredFiles) -> Iterator[PlanItem]:
        """Yield the items of all inputs that exist now."""
        for group in self.make_search(ignored).find_groups():
            items = self.plan_group(group)
            while chunk := list(islice(items, REMOTE_CHUNK if self.uses_remote_manifest else 1)):
                yield from self.publish_started(chunk)

    @property
    def uses_remote_manifest(self) -> bool:
        """Whether a manifest of this run is in remote storage."""
        return any(map(is_remote, self.manifests))

    def publish_started(self, chunk: list[PlanItem]) -> list[PlanItem]:
        """Make visible that tasks have started, before a worker gets them. Return the items, or failures."""
        try:
            self.publish()
            return chunk
        except OutputError as error:
            return [self.refuse(item, error) if isinstance(item, Task) else item for item in chunk]

    def refuse(self, task: Task, error: OutputError) -> Result:
        """Return the failure of a task that cannot be recorded."""
        del self.started[task.output]
        return Result(task.input, task.output, "failed", error=error)

    def plan_group(self, group: list[Input]) -> Iterator[PlanItem]:
        """Yield the items of inputs whose outputs may get the same name."""
        self.group, self.real_inputs = group, None
        named = assign_outputs(group, self.naming, self.folder)
        if named.refused and not self.by_folder:
            raise named.refused[0][2]
        for item, output, error in named.refused:
            if self.accept(item):
                yield Result(item.path, output, "failed", error=error)
        for item, output in named.pairs:
            if self.accept(item):
                yield self.plan_input(item, output)

    def accept(self, item: Input) -> bool:
        """Whether an input belongs to this shard and is complete. Counts it if so."""
        shard = self.job.run.shard
        if (shard is not None and not in_shard(item, shard)) or (self.watcher and not self.watcher.is_stable(item)):
            return False
        self.found += 1
        return True

    def plan_input(self, item: Input, output: str) -> PlanItem:
        """Return the task of one input, or its Result if it needs no work."""
        try:
            existing = self.read_output_state(item, output)
            if (
                existing is not None
                and self.job.run.if_exists != "overwrite"
                and (result := self.check_existing(item, output, existing))
            ):
                return result
            return self.start_task(item, output, existing)
        except StorageError:
            raise  # every other input would fail too
        except RestoreError as error:
            return Result(item.path, output, "failed", error=error)

    def check_existing(self, item: Input, output: str, existing: FileState) -> Result | None:
        """Return a skipped Result if the existing output is kept, None if it is restored again. Raises OutputError."""
        manifest, name = self.find_manifest(item, output)
        found = manifest.find(name) if manifest is not None and self.job.run.if_exists != "skip-existing" else None
        if manifest is None or found is None:
            return Result(item.path, output, "skipped", notes=("it exists already; --overwrite replaces it",))
        fingerprint, _ = found
        if fingerprint in (STARTED, FAILED):
            return None
        if fingerprint == compute_fingerprint(item.relative, item.bytes, self.compute_stamp(item), self.options_digest):
            return Result(item.path, output, "skipped", notes=("done before; --overwrite restores it again",))
        event = manifest.read_event(name)
        if event["result"] != list(existing):
            why = "it was changed after it was restored; --overwrite replaces it"
            return Result(item.path, output, "skipped", notes=(why,))
        if event["source"] != canonicalize_path(item.path) and file_exists(event["source"]):
            line = f"{item.path} would be written to {output}, which is the result of {event['source']}"
            raise OutputError(line, "-o with another folder, or --overwrite")
        return None

    def start_task(self, item: Input, output: str, existing: FileState | None) -> Task:
        """Return the task and record that it has started. Raises OutputError."""
        if existing is not None and not is_remote(output) and self.leads_to_input(item, output):
            raise OutputError(f"{output}: is a link to an input", "-o with another folder")
        manifest, name = self.find_manifest(item, output)
        if self.dry_run:
            return Task(item.path, output, existing)
        if manifest is not None:
            manifest.append({"output": name, "status": "begun"})
        self.started[output] = StartedTask(item, manifest, name, self.compute_stamp(item))
        if (folder := os.path.dirname(output)) not in self.swept and not is_remote(folder):
            self.swept.add(folder)
            sweep(Path(folder))
        return Task(item.path, output, existing)

    def leads_to_input(self, item: Input, output: str) -> bool:
        """Whether an existing output is an input, of this task or of another one, because of links.

        The inputs of a folder are not all known at the same time, so every file in it counts, except the outputs.
        """
        with suppress(OSError):  # the input is remote, or one of the files was removed
            if os.path.samefile(item.path, output):
                return True
        is_link, real = os.path.islink(output), os.path.realpath(output)
        if not self.by_folder:
            return is_link and real in self.find_real_inputs()
        folder = os.path.dirname(real)
        is_own = self.folder is None or is_inside(folder, os.path.realpath(self.folder))
        return is_inside(folder, os.path.realpath(self.job.inputs.paths[0])) and (is_link or not is_own)

    def find_real_inputs(self) -> frozenset[str]:
        """Return the paths of the inputs without links."""
        if self.real_inputs is None:
            self.real_inputs = frozenset(os.path.realpath(item.path) for item in self.group)
        return self.real_inputs

    def record(self, result: Result) -> None:
        """Record the Result of a task. Raises OutputError."""
        started = self.started.pop(result.output, None)
        if started is None or started.manifest is None:
            return
        item, now = started.item, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event: dict[str, Any] = {"output": started.name, "status": result.status, "time": now, "input": item.relative}
        if result.error is not None:
            started.manifest.append({**event, "error": str(result.error)})
            return
        event |= {"source": canonicalize_path(item.path), "bytes": item.bytes, "modified": item.modified}
        if self.job.run.compare_by_hash:
            event["sha256"] = started.stamp
        event |= {"options": self.options_digest, "model": result.model, "checkpoint": result.sha256}
        event["pixels"] = result.pixels
        if self.job.model.tta:
            event["tta"] = True
        started.manifest.append(
            {**event, "result": read_file_state(result.output), "seconds": round(result.seconds, 3)}
        )

    def compute_stamp(self, item: Input) -> int | str:
        """Return what shows that an input has changed: its modification time, or its sha256."""
        if not self.job.run.compare_by_hash:
            return item.modified
        try:
            return compute_sha256(item.file)
        except OSError:
            return ""

    def find_manifest(self, item: Input, output: str) -> tuple[Manifest | None, str]:
        """Return the manifest that records an output, if any, and the name of the output in it."""
        folder = self.choose_manifest_folder(item)
        if folder is None:
            return None, output
        if folder not in self.manifests:
            self.manifests[folder] = self.open_manifest(folder)
        return self.manifests[folder], output.removeprefix(folder.rstrip("/") + "/")

    def choose_manifest_folder(self, item: Input) -> str | None:
        """Return the folder of the manifest that records an input: that of the outputs, or else of the inputs."""
        return self.manifest_folder if self.manifest_folder is not None else item.root

    def open_manifest(self, folder: str) -> Manifest:
        """Return the manifest of a folder. Raises OutputError, StorageError."""
        run = self.job.run
        if not is_remote(folder):
            return open_manifest(folder, self.pixel_options, self.is_current, run.shard, run.compare_by_hash)
        from restore_cli.jobs.remote_manifest import open_remote_manifest

        return open_remote_manifest(folder, self.pixel_options, self.is_current, run.shard)

    def read_output_state(self, item: Input, output: str) -> FileState | None:
        """Return the state of an output. For the inputs of a folder, a remote output folder is listed once.

        Raises OutputError, StorageError.
        """
        folder = self.choose_manifest_folder(item)
        if folder is None or item.root is None or self.naming.is_template or not is_remote(output):
            return read_file_state(output)
        if folder not in self.states:
            from restore_cli.jobs.storage import find_states

            self.states[folder] = find_states(folder)
        return self.states[folder].get(output.removeprefix(folder.rstrip("/") + "/"))

    def is_current(self, event: Mapping[str, Any]) -> bool:
        """Whether the checkpoint of a result is still the catalogue's file of that name."""
        return event["checkpoint"] in (self.published.get(event["model"]), None) or event["model"] not in self.published

    def count_inputs(self) -> int:
        """Return the number of inputs of this shard. Those that are refused count, because they have Results."""
        total, shard = 0, self.job.run.shard
        for group in self.make_search(IgnoredFiles()).find_groups():
            named = assign_outputs(group, self.naming, self.folder)
            inputs = [pair[0] for pair in named.pairs] + [refusal[0] for refusal in named.refused]
            total += len(inputs) if shard is None else sum(in_shard(item, shard) for item in inputs)
        return total

    def publish(self) -> None:
        """Make the lines of all manifests visible to other runs. Raises OutputError, StorageError."""
        for manifest in self.manifests.values():
            manifest.publish()

    def close(self) -> None:
        """Write all manifests to the disk."""
        for manifest in self.manifests.values():
            manifest.close()


def read_file_state(path: str) -> FileState | None:
    """Return the state of a file, None if it does not exist. Raises OutputError if a server does not answer."""
    if is_remote(path):
        from restore_cli.jobs.storage import read_remote_state

        return read_remote_state(path)
    try:
        facts = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        refuse_special_file(Path(path))
    return facts.st_size, facts.st_mtime_ns


def file_exists(path: str) -> bool:
    """Whether a file exists, local or remote. Raises OutputError, StorageError."""
    return read_file_state(path) is not None if is_remote(path) else os.path.exists(path)


def names_folder(path: str) -> bool:
    """Whether a path is a folder. For a URL the suffix decides."""
    return os.path.splitext(path)[1].lower() not in READABLE_SUFFIXES if is_remote(path) else os.path.isdir(path)


def in_shard(item: Input, shard: tuple[int, int]) -> bool:
    """Whether an input belongs to shard I of N. It depends on the relative path alone, so all machines agree."""
    return zlib.crc32(item.relative.encode("utf-8", "surrogateescape")) % shard[1] == shard[0] - 1


def select_pixel_options(job: Job, weights_sha256: str | None) -> dict[str, Any]:
    """Return the options that change the pixels. The manifest compares them with those of earlier runs."""
    request = {name: value for name, value in asdict(job.model.request).items() if name != "channels"}
    model = {name: getattr(job.model, name) for name in ("precision", "tile", "overlap")}
    output = asdict(job.file.output)
    if output["strength"] == 1:  # left out, as is tta, because manifests of versions without these options lack them
        del output["strength"]
    if job.model.tta:
        model["tta"] = True
    file = {"format": job.format, "frame": job.file.frame, "jpeg_quality": job.file.jpeg_quality}
    return {**request, **model, **file, **output, "weights": weights_sha256}
