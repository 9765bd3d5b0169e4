"""Many pictures: which model for each, restored one after the other, a Result for every input."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from restore_cli.errors import ImageError, OutputError, RestoreError, UsageError, WeightsError
from restore_cli.finish import Finish
from restore_cli.image.codec import FORMAT_SUFFIX, MAX_PIXELS, SUFFIXES, Header, format_of
from restore_cli.image.note import Note
from restore_cli.inputs import Input, collect
from restore_cli.naming import Naming, outputs
from restore_cli.weights.catalogue import Catalogue, Entry, Request
from restore_cli.weights.fetch import Progress, fetch_first

if TYPE_CHECKING:
    import torch

    from restore_cli.models.load import Network
    from restore_cli.tiling.engine import Trace
    from restore_cli.tiling.plan import Tiling

__all__ = ["Job", "Result", "Watch", "run"]


@dataclass(frozen=True)
class Job:
    """Everything that was asked for."""

    request: Request
    catalogue: Catalogue
    inputs: tuple[Path, ...]
    output: str | None = None
    weights: Path | None = None
    """a checkpoint file instead of a catalogue entry"""
    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    overlap: int | None = None
    batch: int | None = None
    overwrite: bool = False
    offline: bool = False
    format: str | None = None
    """a value of SUFFIXES; None for the input's"""
    frame: int | None = None
    """counted from 1; None for every one"""
    jpeg_quality: int | None = None
    max_pixels: int = MAX_PIXELS
    finish: Finish = field(default_factory=Finish)


@dataclass(frozen=True)
class Result:
    """What became of one input."""

    input: Path
    output: Path
    status: str
    """done, skipped or failed"""
    model: str | None = None
    """the catalogue entry, or the checkpoint file"""
    seconds: float = 0.0
    size: tuple[int, int] | None = None
    """(width, height) of the output, px"""
    notes: tuple[str, ...] = ()
    error: RestoreError | None = None


@dataclass
class Watch:
    """Who wants to know while it happens."""

    progress: Progress | None = None
    """of downloads"""
    on_note: Callable[[str], None] = lambda text: None
    """something that a person should know, once"""
    on_picture: Callable[[Path, int, int], None] = lambda path, index, total: None
    """work on an input begins"""
    on_tile: Callable[[int, int], None] = lambda done, total: None


@dataclass
class Bench:
    """The models that this job has needed so far, each with the tiling that went through last."""

    job: Job
    watch: Watch
    chosen: dict[Request, tuple[Entry, Path]] = field(default_factory=dict)
    loaded: dict[str, Network] = field(default_factory=dict)
    tilings: dict[str, Tiling] = field(default_factory=dict)
    sums: dict[Path, str] = field(default_factory=dict)

    def model(self, header: Header) -> tuple[str, Network]:
        """The name and the model for a picture of that kind, fetched and loaded where it is not yet."""
        if self.job.weights is not None:
            return self.job.weights.name, self.own(self.job.weights)
        from restore_cli.models.load import load_entry

        entry, path = self.entry(request_for(self.job.request, header))
        if entry.name not in self.loaded:
            self.loaded[entry.name] = load_entry(entry, path, *self.place())
        return entry.name, self.loaded[entry.name]

    def own(self, weights: Path) -> Network:
        """The model of a checkpoint file."""
        from restore_cli.models.load import load_file

        if weights.name not in self.loaded:
            network = load_file(weights, *self.place())
            check_own(self.job.request, weights, network)
            self.loaded[weights.name] = network
        return self.loaded[weights.name]

    def place(self) -> tuple[torch.device, torch.dtype]:
        """Where models run, and at which precision."""
        from restore_cli.models.load import pick_device, pick_precision

        device = pick_device(self.job.device)
        return device, pick_precision(self.job.precision, device)

    def entry(self, request: Request) -> tuple[Entry, Path]:
        """The first catalogue entry for the request that can be had, and its file."""
        if request not in self.chosen:
            entries = self.job.catalogue.select(request)
            taken, path = fetch_first(entries, offline=self.job.offline, progress=self.watch.progress)
            if not self.chosen and (text := advice(request, entries, taken)):  # said once, not for each kind of picture
                self.watch.on_note(text)
            self.chosen[request] = taken, path
        return self.chosen[request]

    def restore(self, item: Input, output: Path) -> Result:
        """Rows from one file through the model into another. Raises RestoreError."""
        from restore_cli.document import Target, Wishes, open_sources, restore_file
        from restore_cli.restoration import default_tiling

        start, job = time.perf_counter(), self.job
        format = job.format or format_of(output)
        wishes = Wishes(job.finish, job.max_pixels, job.frame, job.jpeg_quality)
        sources = open_sources(item.path, format, wishes)
        name, model = self.model(sources[0].header)
        target = Target(output, format, Note(job.request.task, name, self.sha256(name), model.contract.scale))
        tiling = self.tilings.get(name) or default_tiling(model.contract, job.tile, job.overlap, job.batch)
        make_folder(output.parent)
        size, trace = restore_file(model, sources, target, wishes, tiling, self.watch.on_tile)
        self.tilings[name] = trace.tiling
        seconds = time.perf_counter() - start
        return Result(item.path, output, "done", name, seconds, size, notes(trace, tiling))

    def sha256(self, name: str) -> str:
        """Of the checkpoint that is used."""
        path = self.job.weights or next((path for entry, path in self.chosen.values() if entry.name == name), None)
        if path is not None and path not in self.sums:
            with path.open("rb") as file:
                self.sums[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self.sums[path] if path is not None else ""


def run(job: Job, watch: Watch | None = None) -> Iterator[Result]:
    """One Result for each input, failures too.

    Raises before the first one: UsageError for a request that cannot be meant, NothingToDo without inputs; and at any
    time WeightsError, because without its checkpoint no picture can be restored.
    """
    watch = watch or Watch()
    check_request(job)
    found = collect(job.inputs, SUFFIXES)
    bench = Bench(job, watch)
    pairs = outputs(found, naming(job, bench))
    for index, (item, output) in enumerate(pairs):
        watch.on_picture(item.path, index, len(pairs))
        if output.exists() and not job.overwrite:
            yield Result(item.path, output, "skipped", notes=("it is there already; --overwrite writes it again",))
            continue
        try:
            yield bench.restore(item, output)
        except WeightsError:
            raise
        except RestoreError as error:
            yield Result(item.path, output, "failed", error=named(error, item.path))


def make_folder(folder: Path) -> None:
    """The folder and those above it. OutputError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{folder}: no folder can be made there: {error.strerror}"
        raise OutputError(reason, hint="-o with another one") from None


def named(error: RestoreError, path: Path) -> RestoreError:
    """The error with the picture's path in front, where its message does not begin with a path of its own."""
    if isinstance(error, ImageError | OutputError) or str(path) in error.message:
        return error
    return type(error)(f"{path}: {error.message}", hint=error.hint)


def check_request(job: Job) -> None:
    """UsageError where no picture, colour or gray, could be meant by the request."""
    if job.weights is not None:
        if job.request.variant:
            raise UsageError("--weights names the checkpoint, --variant would name another")
        return
    try:
        job.catalogue.select(job.request)
    except UsageError as error:
        try:
            job.catalogue.select(replace(job.request, channels=1))
        except UsageError:
            raise error from None


def naming(job: Job, bench: Bench) -> Naming:
    """The words of output names; they stand before any picture is opened, so that no two outputs are one."""
    task = job.request.task
    forced = FORMAT_SUFFIX[job.format] if job.format else None
    if job.weights is not None:
        return Naming(task, job.weights.stem, bench.own(job.weights).contract.scale, job.output, SUFFIXES, forced)
    entry = job.catalogue.select(job.request)[0]
    return Naming(task, entry.model, entry.scale, job.output, SUFFIXES, forced)


def check_own(request: Request, weights: Path, network: Network) -> None:
    """UsageError where a checkpoint file is not what was asked for: another family, or not the task's scale."""
    scale = network.contract.scale
    if request.model not in (None, network.architecture):
        raise UsageError(f"{weights} is of {network.architecture}, {request.model} was asked for")
    if request.task == "sr" and scale == 1:
        raise UsageError(
            f"{weights} enlarges nothing, sr was asked for", hint="restore denoise, deblur, derain or dejpeg"
        )
    if request.task != "sr" and scale != 1:
        raise UsageError(f"{weights} enlarges ×{scale}, {request.task} was asked for", hint="restore sr")
    if request.scale not in (None, scale):
        raise UsageError(f"{weights} enlarges ×{scale}, ×{request.scale} was asked for", hint=f"-s {scale}")


def advice(request: Request, entries: list[Entry], taken: Entry) -> str | None:
    """What to say where nobody named a model: which one was passed over, and which are larger than a bundled one."""
    if request.model is not None:
        return None
    passed = [f"{entries[0].name} is not to be had now"] if taken is not entries[0] else []
    others = [entry.model for entry in entries if not entry.bundled]
    if taken.bundled and others:
        larger = " or ".join(others)
        passed.append(f"{taken.name} is small and ships with restore; larger: restore {request.task} --model {larger}")
    return "; ".join(passed) or None


def request_for(request: Request, header: Header) -> Request:
    """The request for one picture: gray or colour, and for JPEG repair the quality that its file was saved with."""
    quality = request.quality
    if request.task == "dejpeg" and quality is None:
        quality = header.jpeg_quality
    return replace(request, channels=header.channels, quality=quality)


def notes(trace: Trace, asked: Tiling) -> tuple[str, ...]:
    """What a person should know of how it went."""
    found = []
    if trace.exact_tiles:
        found.append(f"{trace.exact_tiles} of {trace.tiles} tiles overflowed and were run again in float32")
    if trace.tiling != asked:
        found.append(f"memory ran out: went on with tiles of {trace.tiling.tile} px")
    return tuple(found)
