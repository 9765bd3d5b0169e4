"""Estimates a run: megapixels from headers, downloads, seconds from earlier runs or from one measured tile."""

from __future__ import annotations

import json
import random
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_cli.errors import RestoreError, UsageError, stating_lack_of_memory
from restore_cli.image.codec import probe
from restore_cli.image.picture import Header
from restore_cli.jobs.model_cache import ModelCache, complete_request
from restore_cli.jobs.paths import is_remote
from restore_cli.jobs.types import Job, ModelOptions, Result, Task
from restore_cli.pipeline.output import check_final_size
from restore_cli.weights.entry import Entry
from restore_cli.weights.store import locate

if TYPE_CHECKING:
    from restore_cli.models.self_ensemble import Runner

__all__ = ["MAX_PROBED", "Estimate", "InputSample", "estimate_run"]

MAX_PROBED = 1000
"""headers that are read; the values of the other files are extrapolated"""
TILE_SIDE = 128
"""side of the measured tile, px"""
TAIL_BYTES = 1 << 18
"""bytes at the end of a manifest that are searched for earlier times"""


@dataclass
class InputSample:
    """A random sample of at most MAX_PROBED tasks. Equal inputs give equal samples."""

    count: int = 0
    kept: list[Task] = field(default_factory=list)
    generator: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, task: Task) -> None:
        """Add a task."""
        self.count += 1
        if len(self.kept) < MAX_PROBED:
            self.kept.append(task)
        elif (place := self.generator.randrange(self.count)) < MAX_PROBED:
            self.kept[place] = task


@dataclass(frozen=True)
class Estimate:
    """What a run would take."""

    count: int
    probed: int
    pixels: int
    """of all inputs; extrapolated if there are more than were probed"""
    unreadable: int
    """of the probed inputs"""
    refused: tuple[Result, ...]
    """of the probed inputs: those whose final size is not allowed"""
    missing: tuple[Entry, ...]
    """checkpoints that would be downloaded"""
    seconds: float | None
    basis: str
    """how the seconds were estimated, or why they are unknown"""


def estimate_run(job: Job, models: ModelCache, sample: InputSample, manifests: Iterable[Path]) -> Estimate:
    """Return the estimate. Reads headers and manifests, and runs a tile through the model if no manifest has times."""
    local = [task for task in sample.kept if not is_remote(task.input)]  # the others would have to be downloaded
    headers, refused = read_headers(local, job)
    share = sample.count / len(local) if local else 1.0
    entries = [select_entry(job.model, header) for header in headers]
    names = [entry.name if entry else str(job.model.weights and job.model.weights.name) for entry in entries]
    needed = {entry.name: entry for entry in entries if entry is not None}
    missing = tuple(entry for entry in needed.values() if locate(entry) is None)
    seconds, basis = None, "nothing would be restored"
    if headers:
        seconds, basis = estimate_seconds(job, models, headers, names, missing, manifests)
    elif len(local) < len(sample.kept):
        basis = "unknown, because remote images are not read for an estimate"
    return Estimate(
        count=sample.count,
        probed=len(local),
        pixels=round(share * sum(map(count_pixels, headers))),
        unreadable=len(local) - len(headers) - len(refused),
        refused=refused,
        missing=missing,
        seconds=None if seconds is None else seconds * share,
        basis=basis,
    )


def estimate_seconds(
    job: Job,
    models: ModelCache,
    headers: list[Header],
    names: list[str],
    missing: Collection[Entry],
    manifests: Iterable[Path],
) -> tuple[float | None, str]:
    """Return the seconds for all headers, None if unknown, and how they were estimated.

    `names` are the checkpoints for the headers. All images are estimated with the most frequent one.
    """
    usual = Counter(names).most_common(1)[0][0]
    if rate := average_past_seconds(manifests, usual, job.model.tta):
        return sum(map(count_pixels, headers)) * rate, "from earlier images in this folder"
    if usual in {entry.name for entry in missing}:
        return None, f"unknown until {usual} is fetched"
    if job.run.cluster is not None:
        return None, "unknown, because the cluster has not restored any image yet"
    return measure_seconds(job, models, headers, usual, headers[names.index(usual)])


def read_headers(tasks: Iterable[Task], job: Job) -> tuple[list[Header], tuple[Result, ...]]:
    """Return the readable headers, and a failed Result for each input whose final size is not allowed."""
    headers, refused = [], []
    for task in tasks:
        try:
            header = probe(Path(task.input), max_pixels=job.file.max_pixels)
            check_final_size(job.file.output, header, job.file.max_pixels)
        except UsageError as error:
            error = UsageError(f"{task.input}: {error.message}", error.hint)
            refused.append(Result(task.input, task.output, "failed", error=error))
        except RestoreError:
            continue
        else:
            headers.append(header)
    return headers, tuple(refused)


def count_pixels(header: Header) -> int:
    """Return the pixels of all pictures of a file."""
    return header.width * header.height * header.frames


def select_entry(options: ModelOptions, header: Header) -> Entry | None:
    """Return the checkpoint for an image, None if --weights names a file or none fits. Offline, prefer one on disk."""
    if options.weights is not None:
        return None
    try:
        entries = options.catalogue.select(complete_request(options.request, header))
    except RestoreError:
        return None
    here = [entry for entry in entries if locate(entry) is not None] if options.offline else []
    return (here or entries)[0]


def measure_seconds(
    job: Job, models: ModelCache, headers: list[Header], model: str, example: Header
) -> tuple[float | None, str]:
    """Run a tile through the model of `example`. Return the seconds for all headers, None if unknown, and the basis."""
    try:
        network = models.get(example)[1]
        rate = measure_seconds_per_pixel(network) / count_devices(job.model.device)
    except RestoreError as error:
        return None, f"unknown: {error}"
    pixels = sum(count_processed_pixels(network, job.model, header) for header in headers)
    return rate * pixels, f"one tile of {models.describe(model)} measured"


def average_past_seconds(manifests: Iterable[Path], model: str, tta: bool) -> float | None:
    """Return the seconds per pixel of the last images restored in this way, None if there are none."""
    events = (event for path in manifests for event in read_recent_events(path) if event.get("model") == model)
    timed = (event for event in events if event.get("pixels") and "seconds" in event)
    done = deque((event for event in timed if event.get("tta", False) == tta), maxlen=200)
    pixels = sum(event["pixels"] for event in done)
    return sum(event["seconds"] for event in done) / pixels if pixels else None


def read_recent_events(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the events at the end of a manifest."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def measure_seconds_per_pixel(network: Runner) -> float:
    """Return the seconds per pixel of the second run of a tile. Raises OutOfMemory."""
    import torch

    from restore_cli.tiling.geometry import padded_side

    contract = network.contract
    side = padded_side(min(TILE_SIDE, contract.tile or TILE_SIDE), contract)
    tile = torch.rand(1, contract.channels, side, side)
    with stating_lack_of_memory(str(network.device), f"a tile of {side} px"):
        for _ in range(2):
            start = time.perf_counter()
            network(tile).cpu()
    return (time.perf_counter() - start) / side**2


def count_processed_pixels(network: Runner, options: ModelOptions, header: Header) -> float:
    """Return the pixels that go through the model. They are more than those of the image, because tiles overlap."""
    from restore_cli.pipeline.array import default_tiling
    from restore_cli.tiling.geometry import padded_side, plan_axis

    contract = network.contract
    tiling = default_tiling(contract, options.tile, options.overlap, options.batch)
    sides = (padded_side(side, contract) for side in (header.height, header.width))
    down, across = (plan_axis(side, tiling.tile, tiling.overlap, contract.tile_multiple) for side in sides)
    return float(len(down.starts) * down.tile * len(across.starts) * across.tile * header.frames)


def count_devices(device: str) -> int:
    if device != "all":
        return device.count(",") + 1
    import torch

    return max(1, torch.cuda.device_count())
