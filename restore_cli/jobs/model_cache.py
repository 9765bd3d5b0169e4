"""Models that are loaded once for each run, with the tiling that worked last."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from restore_cli.errors import UsageError
from restore_cli.image.picture import Header
from restore_cli.jobs.events import Note, OnEvent, ignore_event
from restore_cli.jobs.types import ModelOptions
from restore_cli.weights.catalogue import Catalogue, Request, check_values
from restore_cli.weights.entry import Entry
from restore_cli.weights.fetch import fetch_first
from restore_cli.weights.store import compute_sha256

if TYPE_CHECKING:
    import torch

    from restore_cli.models.network import Network
    from restore_cli.models.self_ensemble import Runner
    from restore_cli.tiling.engine import Trace
    from restore_cli.tiling.geometry import Tiling

__all__ = ["ModelCache", "check_request", "complete_request", "describe_fallbacks"]


@dataclass
class ModelCache:
    """Loads models when they are first needed, and keeps them with the tiling that worked last."""

    options: ModelOptions
    on_event: OnEvent = ignore_event
    entries: dict[Request, tuple[Entry, Path]] = field(default_factory=dict)
    loaded: dict[str, Runner] = field(default_factory=dict)
    tilings: dict[str, Tiling] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)
    compiled: set[str] = field(default_factory=set)
    """models for which PyTorch's compiler has been tried"""

    def get(self, header: Header) -> tuple[str, Runner]:
        """Return the name and the model for an image with this header. The first use fetches and loads the model."""
        if self.options.weights is not None:
            return self.options.weights.name, self.get_custom(self.options.weights)
        from restore_cli.models.load import load_entry

        entry, path = self.fetch_entry(complete_request(self.options.request, header))
        if entry.name not in self.loaded:
            self.loaded[entry.name] = self.wrap(load_entry(entry, path, *self.choose_placement()))
        return entry.name, self.loaded[entry.name]

    def get_custom(self, weights: Path) -> Runner:
        """Return the model of a checkpoint file. Raises UsageError if it does not fit the request."""
        from restore_cli.models.load import load_file

        if weights.name not in self.loaded:
            network = load_file(weights, *self.choose_placement())
            check_custom(self.options.request, weights, network)
            self.loaded[weights.name] = self.wrap(network)
        return self.loaded[weights.name]

    def wrap(self, network: Network) -> Runner:
        """Return the network as the options ask for it, after reporting what users must know about it."""
        from restore_cli.models.self_ensemble import SelfEnsemble

        for text in network.notes:
            self.on_event(Note(text))
        return SelfEnsemble(network) if self.options.tta else network

    def choose_placement(self) -> tuple[torch.device, torch.dtype]:
        from restore_cli.models.load import pick_device, pick_precision

        device = pick_device(self.options.device)
        return device, pick_precision(self.options.precision, device)

    def fetch_entry(self, request: Request) -> tuple[Entry, Path]:
        """Return the first catalogue entry for the request that is available, and its file."""
        if request not in self.entries:
            entries = self.options.catalogue.select(request)
            taken, path = fetch_first(entries, offline=self.options.offline, on_event=self.on_event)
            advice = None if self.entries else advise_larger_models(request, entries, taken)
            if advice is not None:
                self.on_event(Note(advice))
            self.entries[request] = taken, path
        return self.entries[request]

    def describe(self, name: str) -> str:
        """Return the name of a model that is loaded, for a checkpoint file with its architecture."""
        return name if self.options.weights is None else f"{name} ({self.loaded[name].architecture})"

    def get_tiling(self, name: str, model: Runner, side: int) -> Tiling:
        """Return the tiling for an image of `side` px: as requested, as it worked last, or as memory allows."""
        from restore_cli.pipeline.array import choose_tiling

        options = self.options
        if name not in self.tilings:
            self.tilings[name] = choose_tiling(
                model,
                model.device,
                side,
                tile=options.tile,
                overlap=options.overlap,
                batch=options.batch,
                memory=options.memory,
            )
        if options.compile and name not in self.compiled and side > self.tilings[name].tile > 0:
            self.compile(name, model, self.tilings[name])
        return self.tilings[name]

    def compile(self, name: str, model: Runner, tiling: Tiling) -> None:
        """Try PyTorch's compiler for full tiles. Smaller images run without it."""
        from restore_cli.models.compile import compile_if_faster
        from restore_cli.models.self_ensemble import SelfEnsemble
        from restore_cli.weights.store import get_cache_dir, refuse_unsafe_cache

        refuse_unsafe_cache()  # compiled code is stored there
        self.compiled.add(name)
        network = model.network if isinstance(model, SelfEnsemble) else model
        shape = (tiling.batch, model.contract.channels, tiling.tile, tiling.tile)
        self.on_event(Note(compile_if_faster(network, shape, get_cache_dir() / "compiled")))

    def sha256(self, name: str) -> str:
        """Return the sha256 of the checkpoint of a model."""
        path = self.options.weights or next((path for entry, path in self.entries.values() if entry.name == name), None)
        if path is not None and path not in self.digests:
            self.digests[path] = compute_sha256(path)
        return self.digests[path] if path is not None else ""


def check_request(options: ModelOptions) -> None:
    """Raise UsageError if no checkpoint for colour or gray images fits the request."""
    if options.weights is not None:
        if options.request.variant:
            raise UsageError("--weights names a checkpoint file, so --variant has no effect")
        check_values(options.request)
        return
    try:
        options.catalogue.select(options.request)
    except UsageError as error:
        try:
            options.catalogue.select(replace(options.request, channels=1))
        except UsageError:
            raise error from None


def check_custom(request: Request, weights: Path, network: Network) -> None:
    """Raise UsageError if a checkpoint file does not fit the request: another family, or another scale."""
    scale = network.contract.scale
    if request.model not in (None, network.architecture):
        raise UsageError(f"{weights} is a checkpoint of {network.architecture}, not of {request.model}")
    if request.task == "sr" and scale == 1:
        others = "restore denoise, deblur, derain or dejpeg"
        raise UsageError(f"{weights} does not enlarge, so sr cannot use it", others)
    if request.task != "sr" and scale != 1:
        raise UsageError(f"{weights} enlarges ×{scale}, so {request.task} cannot use it", hint="restore sr")
    if request.scale not in (None, scale):
        raise UsageError(f"{weights} enlarges ×{scale}, not ×{request.scale}", hint=f"-s {scale}")


def advise_larger_models(request: Request, entries: list[Entry], taken: Entry) -> str | None:
    """Return a note for users who did not name a model: what was unavailable, and which models are larger."""
    if request.model is not None:
        return None
    passed = [f"{entries[0].name} is not available now"] if taken is not entries[0] else []
    others = [entry.model for entry in entries if not entry.bundled]
    if taken.bundled and others:
        larger = " or ".join(others)
        passed.append(f"{taken.name} is small and ships with restore; larger: restore {request.task} --model {larger}")
    return "; ".join(passed) or None


def suggest_for_compressed(catalogue: Catalogue, name: str) -> str | None:
    """Return the command for compressed images, if `name` is a model that enlarges clean ones only."""
    used = catalogue.find_entry(name)
    if "real" in (used.variant or ""):
        return None
    wanted = ("sr", "lite", "real", used.scale)
    if any((entry.task, entry.model, entry.variant, entry.scale) == wanted for entry in catalogue.entries):
        return f"restore sr --model lite --variant real -s {used.scale}"
    return "restore dejpeg, then restore sr"


def complete_request(request: Request, header: Header) -> Request:
    """Return the request for one image: gray or colour, and for JPEG repair the quality of the file."""
    quality = request.quality
    if request.task == "dejpeg" and quality is None:
        quality = header.jpeg_quality
    return replace(request, channels=header.channels, quality=quality)


def describe_fallbacks(trace: Trace, requested: Tiling) -> tuple[str, ...]:
    """Return notes about tiles that overflowed and about memory that ran out."""
    found = []
    if trace.fp32_tiles:
        found.append(f"{trace.fp32_tiles} of {trace.tiles} tiles overflowed and were run again in float32")
    if trace.tiling.tile != requested.tile:
        found.append(f"memory ran out: continued with tiles of {trace.tiling.tile} px")
    elif trace.tiling.batch != requested.batch:
        tiles = "1 tile" if trace.tiling.batch == 1 else f"{trace.tiling.batch} tiles"
        found.append(f"memory ran out: continued with {tiles} at a time")
    return tuple(found)
