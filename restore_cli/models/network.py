"""A module on its device at its precision: what the engine calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore_cli.contract import Contract
from restore_cli.models import emt, hat, restormer, swinir
from restore_cli.models.cascade import Cascade
from restore_cli.models.contracts import (
    make_cascade_contract,
    make_emt_contract,
    make_hat_contract,
    make_restormer_contract,
    make_swinir_contract,
)
from restore_cli.models.emt import EMT
from restore_cli.models.hat import HAT
from restore_cli.models.inference import keep_biases
from restore_cli.models.restormer import Restormer
from restore_cli.models.spandrel_model import SpandrelNetwork
from restore_cli.models.stored_precision import copy_network, store_in_precision
from restore_cli.models.swinir import SwinIR
from restore_cli.pinned import PINNED
from restore_cli.weights.architectures import CascadeConfig, EMTConfig, HATConfig, RestormerConfig, SwinIRConfig

__all__ = ["ARCHITECTURES", "Checkpoint", "Network", "Reload"]

ARCHITECTURES: dict[str, tuple[type[Any], type[nn.Module], Callable[[Any], Contract]]] = {
    "swinir": (SwinIRConfig, SwinIR, make_swinir_contract),
    "hat": (HATConfig, HAT, make_hat_contract),
    "restormer": (RestormerConfig, Restormer, make_restormer_contract),
    "emt": (EMTConfig, EMT, make_emt_contract),
    "cascade": (CascadeConfig, Cascade, make_cascade_contract),
}
"""The configuration, the published module and the contract of each architecture."""

LOG = logging.getLogger(__name__)

HALF_PRECISION_TILES = 4
"""Tiles that run in half precision before it may be given up."""

REPEATED_BLOCKS = (
    emt.StripedAttention,
    emt.PixelMixer,
    emt.ShiftMlp,
    hat.HybridBlock,
    hat.OverlappingCrossAttention,
    restormer.TransformerBlock,
    swinir.TransformerLayer,
    SpandrelNetwork,  # whole: its blocks are not known
)
"""Modules that a network repeats. PyTorch's compiler compiles one of each kind."""


Reload = Callable[[], "Network"]
"""Loads the same checkpoint again, in float32."""


@dataclass(frozen=True)
class Checkpoint:
    """The file that a network was loaded from."""

    name: str
    """of the catalogue entry, or of the file"""
    path: Path
    task: str | None
    """of the catalogue entry"""


class Network:
    """A module on its device. Half precisions run under autocast, with weights stored in them (decision 005).

    If `reload` is given, the weights of products are in `precision` already. `reload` loads them in float32 if a tile
    overflows.
    """

    blocks = REPEATED_BLOCKS

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        precision: torch.dtype,
        repeats: Network | None = None,
        reload: Reload | None = None,
    ) -> None:
        if device.type != "cpu":
            keep_biases(module)
        self.module, self.device, self.reload = module, device, reload
        self.loaded: nn.Module | None = module if reload is None else None
        """the module with float32 weights; None until it is loaded again"""
        known = not isinstance(module, SpandrelNetwork)  # others may compute with their weights
        if precision != torch.float32 and known and reload is None:
            self.module = copy_network(module)
            store_in_precision(self.module, precision, device)
        self.requested = self.precision = precision
        self.compiled_size: tuple[int, int] | None = None
        """(h, w) of the tiles whose blocks run compiled; None if no block does"""
        self.has_compiled_blocks = False
        self.repeats = repeats
        """the half-precision network whose overflowed tiles this one runs again"""
        self.tiles, self.overflowed = 0, 0
        self.checkpoint: Checkpoint | None = None
        self.notes: tuple[str, ...] = ()
        """what users must know about it: its licence, or another precision than the requested one"""

    @property
    def contract(self) -> Contract:
        """What the tiling engine needs to know."""
        if isinstance(self.module, SpandrelNetwork):
            return self.module.contract
        return ARCHITECTURES[self.architecture][2](self.module.config)

    @property
    def architecture(self) -> str:
        """Name of the architecture: a key of ARCHITECTURES, or a name of spandrel."""
        if isinstance(self.module, SpandrelNetwork):
            return self.module.architecture
        return next(name for name, (_, kind, _) in ARCHITECTURES.items() if isinstance(self.module, kind))

    @property
    def float32_module(self) -> nn.Module:
        """The module with float32 weights. Raises RestoreError if these were freed and cannot be loaded again."""
        if self.loaded is None and self.reload is not None:
            self.loaded = self.reload().module
        assert self.loaded is not None
        return self.loaded

    @property
    def fp32_fallback(self) -> Network | None:
        """The same weights in float32, for tiles that overflow; None if float32 was requested."""
        if self.requested == torch.float32:
            return None
        return Network(self.float32_module, self.device, torch.float32, repeats=self)

    def __call__(self, x: Tensor) -> Tensor:
        """Restore (b, c, h, w) float32 in [0, 1] to (b, c, h·scale, w·scale) float32, on the device."""
        precision = self.precision  # another thread may change it
        half = precision != torch.float32
        module = self.module if half else self.float32_module
        self.tiles += len(x)
        if self.repeats is not None:
            self.repeats.count_overflows(len(x))
        with (
            self.without_compiled_blocks(x),
            torch.inference_mode(),
            torch.autocast(self.device.type, precision, enabled=half),
        ):
            out: Tensor = module(self.to_device(x))
            return out.float()

    def without_compiled_blocks(self, x: Tensor) -> AbstractContextManager[None]:
        """Run compiled blocks without the compiler for tiles of other sizes than they were compiled for.

        The compiler's stance is process-wide, so it changes only if this model has compiled blocks.
        """
        eager = self.has_compiled_blocks and x.shape[-2:] != self.compiled_size
        return torch.compiler.set_stance("force_eager") if eager else nullcontext()

    def count_overflows(self, tiles: int) -> None:
        """Change to float32 once most tiles have overflowed, as all do on a GPU whose float16 is broken."""
        self.overflowed += tiles
        if self.precision != torch.float32 and self.tiles >= HALF_PRECISION_TILES and 2 * self.overflowed > self.tiles:
            half, self.precision, self.compiled_size = self.precision, torch.float32, None
            LOG.warning("most tiles overflow in %s: going on in float32", str(half).removeprefix("torch."))

    def to_device(self, x: Tensor) -> Tensor:
        """Copy the tiles to the device. With pinned memory, a GPU copies them while the program goes on."""
        waits = self.device.type == "cuda" and x.device.type == "cpu"
        pinned = PINNED.like(x, self.device) if waits else None
        return x.to(self.device) if pinned is None else pinned.copy_(x).to(self.device, non_blocking=True)
