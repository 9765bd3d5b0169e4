"""The models that a job has needed so far, each with the tiling that went through last."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from restore_cli.errors import UsageError
from restore_cli.image.picture import Header
from restore_cli.jobs.events import DownloadEvents, Note, OnEvent, ignore_event
from restore_cli.jobs.types import Job
from restore_cli.weights.catalogue import Catalogue, Entry, Request, check_values
from restore_cli.weights.fetch import fetch_first

if TYPE_CHECKING:
    import torch

    from restore_cli.models.network import Network
    from restore_cli.tiling.engine import Trace
    from restore_cli.tiling.geometry import Tiling

__all__ = ["ModelCache", "check_request", "describe_fallbacks", "request_for", "sha256_of"]


@dataclass
class ModelCache:
    """The models that this job has needed so far, each with the tiling that went through last."""

    job: Job
    on_event: OnEvent = ignore_event
    entries: dict[Request, tuple[Entry, Path]] = field(default_factory=dict)
    loaded: dict[str, Network] = field(default_factory=dict)
    tilings: dict[str, Tiling] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)
    compiled: set[str] = field(default_factory=set)
    """models that PyTorch's compiler has been tried on"""

    def get(self, header: Header) -> tuple[str, Network]:
        """Return the name and the model for a picture with this header. The first use fetches and loads the model."""
        if self.job.weights is not None:
            return self.job.weights.name, self.get_custom(self.job.weights)
        from restore_cli.models.load import load_entry

        entry, path = self.fetch_entry(request_for(self.job.request, header))
        if entry.name not in self.loaded:
            self.loaded[entry.name] = load_entry(entry, path, *self.device_and_precision())
        return entry.name, self.loaded[entry.name]

    def get_custom(self, weights: Path) -> Network:
        """The model of a checkpoint file."""
        from restore_cli.models.load import load_file

        if weights.name not in self.loaded:
            network = load_file(weights, *self.device_and_precision())
            check_custom(self.job.request, weights, network)
            self.loaded[weights.name] = network
        return self.loaded[weights.name]

    def device_and_precision(self) -> tuple[torch.device, torch.dtype]:
        """Where models run, and at which precision."""
        from restore_cli.models.load import pick_device, pick_precision

        device = pick_device(self.job.device)
        return device, pick_precision(self.job.precision, device)

    def fetch_entry(self, request: Request) -> tuple[Entry, Path]:
        """The first catalogue entry for the request that can be had, and its file."""
        if request not in self.entries:
            entries = self.job.catalogue.select(request)
            taken, path = fetch_first(entries, offline=self.job.offline, progress=DownloadEvents(self.on_event))
            advice = None if self.entries else advise_larger_models(request, entries, taken)
            if advice is not None:
                self.on_event(Note(advice))
            self.entries[request] = taken, path
        return self.entries[request]

    def tiling_for(self, name: str, model: Network, side: int) -> Tiling:
        """For a picture of `side` px: as asked, as went through before, or as memory allows at the first one."""
        from restore_cli.pipeline.array import choose_tiling

        job = self.job
        if name not in self.tilings:
            self.tilings[name] = choose_tiling(
                model,
                model.device,
                side,
                tile=job.tile,
                overlap=job.overlap,
                batch=job.batch,
                memory=job.memory,
            )
        if job.compile and name not in self.compiled and side > self.tilings[name].tile > 0:
            self.compile(name, model, self.tilings[name])
        return self.tilings[name]

    def compile(self, name: str, model: Network, tiling: Tiling) -> None:
        """Tries PyTorch's compiler for full tiles, once there are some. Smaller pictures run as they would."""
        from restore_cli.models.compile import compile_if_faster
        from restore_cli.weights.store import cache_dir, check_cache

        check_cache()  # it holds compiled code
        self.compiled.add(name)
        shape = (tiling.batch, model.contract.channels, tiling.tile, tiling.tile)
        self.on_event(Note(compile_if_faster(model, shape, cache_dir() / "compiled")))

    def sha256(self, name: str) -> str:
        """Of the checkpoint that is used."""
        path = self.job.weights or next((path for entry, path in self.entries.values() if entry.name == name), None)
        if path is not None and path not in self.digests:
            self.digests[path] = sha256_of(path)
        return self.digests[path] if path is not None else ""


def sha256_of(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_request(job: Job) -> None:
    """UsageError where no picture, colour or gray, could be meant by the request."""
    if job.weights is not None:
        if job.request.variant:
            raise UsageError("--weights names the checkpoint, --variant would name another")
        check_values(job.request)
        return
    try:
        job.catalogue.select(job.request)
    except UsageError as error:
        try:
            job.catalogue.select(replace(job.request, channels=1))
        except UsageError:
            raise error from None


def check_custom(request: Request, weights: Path, network: Network) -> None:
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


def advise_larger_models(request: Request, entries: list[Entry], taken: Entry) -> str | None:
    """What to say where nobody named a model: which one was passed over, and which are larger than a bundled one."""
    if request.model is not None:
        return None
    passed = [f"{entries[0].name} is not to be had now"] if taken is not entries[0] else []
    others = [entry.model for entry in entries if not entry.bundled]
    if taken.bundled and others:
        larger = " or ".join(others)
        passed.append(f"{taken.name} is small and ships with restore; larger: restore {request.task} --model {larger}")
    return "; ".join(passed) or None


def suggest_for_compressed(catalogue: Catalogue, name: str) -> str | None:
    """Return the command for compressed images, if `name` is a model that enlarges clean ones only."""
    used = catalogue.entry(name)
    if "real" in (used.variant or ""):
        return None
    wanted = ("sr", "lite", "real", used.scale)
    if any((entry.task, entry.model, entry.variant, entry.scale) == wanted for entry in catalogue.entries):
        return f"restore sr --model lite --variant real -s {used.scale}"
    return "restore dejpeg, then restore sr"


def request_for(request: Request, header: Header) -> Request:
    """The request for one picture: gray or colour, and for JPEG repair the quality that its file was saved with."""
    quality = request.quality
    if request.task == "dejpeg" and quality is None:
        quality = header.jpeg_quality
    return replace(request, channels=header.channels, quality=quality)


def describe_fallbacks(trace: Trace, requested: Tiling) -> tuple[str, ...]:
    """What a person should know of how it went."""
    found = []
    if trace.fp32_tiles:
        found.append(f"{trace.fp32_tiles} of {trace.tiles} tiles overflowed and were run again in float32")
    if trace.tiling.tile != requested.tile:
        found.append(f"memory ran out: went on with tiles of {trace.tiling.tile} px")
    elif trace.tiling.batch != requested.batch:
        tiles = "1 tile" if trace.tiling.batch == 1 else f"{trace.tiling.batch} tiles"
        found.append(f"memory ran out: went on with {tiles} at a time")
    return tuple(found)
