"""Networks of other architectures, built by spandrel (extra `spandrel`) from tensors that restore has read."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, lcm
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from restore_cli.contract import Contract
from restore_cli.errors import INSTALL_EXTRA, WeightsError, is_out_of_memory
from restore_cli.models.allocations import AllocationLimit, PeakMeter
from restore_cli.shared_context import NO_WARNINGS

__all__ = ["SpandrelNetwork", "build_spandrel_network", "import_spandrel"]

OVERLAP = 32
"""Overlap of tiles, input px. How far the network sees is not known."""

GRID = 32
"""Tiles start on multiples of this, px. Windows and strides of networks are powers of two, so they do not shift."""

PROBE = 64
"""Side of the tile whose memory is measured, px."""

KERNEL_MEMORY = 2.5
"""Memory that a network takes over that of its tensors. Kernels copy inputs and outputs into layouts of their own."""

MAX_INDEX = 4096
"""Largest number in the name of a tensor. spandrel counts up to it, also where tensors are missing."""

BUILD_ELEMENTS = 2**28
"""Elements of tensors that a network may make while it is built, besides eight for each one of the file."""

REFUSED = {"FaceSR": "faces", "Inpainting": "inpainting"}
"""Purposes of networks that restore does not run: they need aligned faces, or a mask."""

TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


@dataclass(frozen=True)
class Registry:
    """The architectures of spandrel, and of spandrel_extra_arches if that is installed."""

    architectures: Any
    restricted: frozenset[str]
    """ids of the architectures of spandrel_extra_arches"""


class SpandrelNetwork(nn.Module):
    """A network of spandrel. (b, c, h, w) in [0, 1] -> (b, c, h·scale, w·scale)."""

    def __init__(self, descriptor: Any) -> None:  # noqa: ANN401  spandrel is not always installed
        super().__init__()
        self.network: nn.Module = descriptor.model
        self.call = descriptor._call_fn  # a call of the descriptor clips to [0, 1], which would hide overflows
        self.scale: int = descriptor.scale
        self.channels: int = descriptor.input_channels
        self.sizes = descriptor.size_requirements
        self.architecture: str = descriptor.architecture.name
        self.halves = {torch.float16: descriptor.supports_half, torch.bfloat16: descriptor.supports_bfloat16}
        self.activation_floats_per_px = 0

    @property
    def contract(self) -> Contract:
        """What the tiling engine needs to know."""
        multiple = self.sizes.multiple_of
        return Contract(
            self.scale,
            self.channels,
            tile_multiple=lcm(GRID, multiple),
            pad_multiple=multiple,
            minimum=max(self.sizes.minimum, multiple),
            overlap=OVERLAP,
            tile=None,
            activation_floats_per_px=self.activation_floats_per_px,
        )

    def supports(self, precision: torch.dtype) -> bool:
        """Return whether spandrel says that the network may run in this precision."""
        return self.halves.get(precision, True)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h·scale, w·scale). Descriptors promise to take one image at a time."""
        return torch.cat([self.restore(image) for image in torch.split(x, 1)])

    def restore(self, x: Tensor) -> Tensor:
        """(1, c, h, w) -> (1, c, h·scale, w·scale)."""
        h, w = x.shape[-2:]
        if self.sizes.square and h != w:
            x = x[:, :, reflect(h, max(h, w))][..., reflect(w, max(h, w))]
        out: Tensor = self.call(self.network, x)
        return out[..., : h * self.scale, : w * self.scale]


def reflect(length: int, side: int) -> Tensor:
    """Return, for each px of a padded side, the px of the image that it shows."""
    period = max(1, 2 * (length - 1))
    places = torch.arange(side) % period
    return torch.minimum(places, period - places)


def build_spandrel_network(state: Mapping[str, Tensor], path: Path) -> tuple[SpandrelNetwork, str | None]:
    """Return the network of the tensors of a file, and the terms of its architecture if they restrict its use.

    Raises WeightsError if spandrel is not installed or does not know the network, or if restore cannot run it.
    """
    first = f"the first of its {len(state)} tensors is {next(iter(state))!r}"
    registry = load_registry(f"{path}: belongs to none of the four families: {first}")
    check_names(state, path)
    elements = sum(tensor.numel() for tensor in state.values())
    try:
        with NO_WARNINGS, torch.random.fork_rng(devices=[]), AllocationLimit(BUILD_ELEMENTS + 8 * elements):
            descriptor = registry.architectures.load(dict(state))
    except Exception as error:  # many types: shapes and names that an architecture does not expect
        if is_out_of_memory(error):
            raise
        if type(error).__name__ == "UnsupportedModelError":
            families = "none of the four families and to no architecture of spandrel"
            raise WeightsError(f"{path}: belongs to {families}: {first}") from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{path}: spandrel cannot build its network: {reason}") from None
    check_kinds(descriptor.model.state_dict(), state, path)
    check_descriptor(descriptor, path)
    network = SpandrelNetwork(descriptor).requires_grad_(False).eval()
    measure_activations(network, path)
    if descriptor.architecture.id not in registry.restricted:
        return network, None
    return network, (
        f"{path.name}: the code of {network.architecture} comes from spandrel_extra_arches, "
        "under a non-commercial or copyleft licence"
    )


def load_registry(problem: str) -> Registry:
    """Import spandrel. Raises WeightsError, which begins with the problem, if it is not installed."""
    try:
        with NO_WARNINGS:
            spandrel = import_spandrel()
            registry = spandrel.MAIN_REGISTRY.copy()
            try:
                from spandrel_extra_arches import EXTRA_REGISTRY
            except ModuleNotFoundError:
                return Registry(registry, frozenset())
    except ModuleNotFoundError as error:
        if error.name != "spandrel":
            raise WeightsError(f"{problem}; spandrel cannot be imported: {error}") from None
        hint = INSTALL_EXTRA.format("spandrel")
        raise WeightsError(f"{problem}; spandrel may know it, but is not installed", hint) from None
    registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return Registry(registry, frozenset(support.architecture.id for support in EXTRA_REGISTRY))


def import_spandrel() -> Any:  # noqa: ANN401
    """Import spandrel, without torchvision if that is missing or was built for another PyTorch.

    spandrel needs torchvision only for one network of faces and one of inpainting. restore refuses both.
    """
    try:
        import spandrel
    except ModuleNotFoundError as error:
        if error.name == "spandrel":
            raise
    except Exception:  # of torchvision: RuntimeError, OSError, ImportError
        pass
    else:
        return spandrel
    with placeholder_of_torchvision():
        import spandrel
    return spandrel


@contextmanager
def placeholder_of_torchvision() -> Iterator[None]:
    """Make the functions of torchvision that spandrel imports importable, until spandrel has been imported."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchvision"}
    modules = {name: ModuleType(name) for name in TORCHVISION}
    for name in ("InterpolationMode", "normalize", "rotate"):
        setattr(modules[TORCHVISION[-1]], name, None)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in TORCHVISION:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def check_names(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError for a tensor whose name has a number that no network has."""
    for name in state:
        if any(len(digits) > 9 or int(digits) > MAX_INDEX for digits in re.findall(r"\d+", name)):
            raise WeightsError(f"{path}: {name[:100]!r} has a number above {MAX_INDEX}, so no network has this tensor")


def check_kinds(loaded: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError if the network has a float where the file has an integer or a truth value, or the reverse."""
    for name in loaded.keys() & state.keys():
        if loaded[name].is_floating_point() != state[name].is_floating_point():
            kinds = f"{state[name].dtype} instead of {loaded[name].dtype}".replace("torch.", "")
            raise WeightsError(f"{path}: {name[:100]!r} has another kind of number: {kinds}")


def check_descriptor(descriptor: Any, path: Path) -> None:  # noqa: ANN401
    """Raise WeightsError for a network that restore does not run: another purpose, or other channels."""
    name = descriptor.architecture.name
    if descriptor.purpose in REFUSED:
        raise WeightsError(f"{path}: {name} is a network for {REFUSED[descriptor.purpose]}, which restore does not do")
    channels = descriptor.input_channels, descriptor.output_channels
    if channels not in ((1, 1), (3, 3)):
        counts = f"{channels[0]} input and {channels[1]} output channels"
        raise WeightsError(f"{path}: {name} has {counts}, expected 1 and 1, or 3 and 3")


def measure_activations(network: SpandrelNetwork, path: Path) -> None:
    """Run a small tile, and set the number of floats that the network holds per px. Raises WeightsError."""
    contract, meter = network.contract, PeakMeter()
    side = contract.pad_multiple * ceil(max(PROBE, contract.minimum) / contract.pad_multiple)
    try:
        with NO_WARNINGS, torch.inference_mode(), meter:
            found = network(torch.full((1, network.channels, side, side), 0.5)).shape
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise WeightsError(f"{path}: {network.architecture} does not run: {error}") from None
    expected = (1, network.channels, side * network.scale, side * network.scale)
    if found != expected:
        raise WeightsError(f"{path}: {network.architecture} returns {tuple(found)} for ×{network.scale}")
    network.activation_floats_per_px = ceil(KERNEL_MEMORY * meter.peak / 4 / side**2)
