"""Self-ensemble: the mean of eight passes over flipped and rotated tiles (EDSR, arXiv:1707.02921, section 4.3)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from restore_cli.contract import Contract
from restore_cli.errors import UsageError
from restore_cli.models.network import Checkpoint, Network

__all__ = ["Runner", "SelfEnsemble"]

ORIENTATIONS = tuple((turns, flipped) for turns in range(4) for flipped in (False, True))


class SelfEnsemble:
    """A network that restores each tile in all eight orientations and averages the results in float32."""

    def __init__(self, network: Network) -> None:
        """Raises UsageError for a network of two views, which must stay left and right."""
        if network.contract.channels == 6:
            raise UsageError("--tta flips and rotates the image, but a pair of views must keep its left and right")
        self.network = network

    @property
    def contract(self) -> Contract:
        """Contract of the network, with memory for a turned tile and for the sum."""
        inner = self.network.contract
        floats = inner.channels * (1 + inner.scale**2)
        return replace(inner, activation_floats_per_px=inner.activation_floats_per_px + floats)

    @property
    def architecture(self) -> str:
        """Name of the architecture of the network."""
        return self.network.architecture

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.network.device

    @property
    def precision(self) -> torch.dtype:
        """Precision of the network. The mean is float32."""
        return self.network.precision

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The file that the network was loaded from."""
        return self.network.checkpoint

    @property
    def fp32_fallback(self) -> SelfEnsemble | None:
        """The same eight passes in float32; None if the network is float32."""
        fallback = self.network.fp32_fallback
        return None if fallback is None else SelfEnsemble(fallback)

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Restore (b, c, h, w) float32 in [0, 1] to (b, c, h·scale, w·scale) float32, on the device."""
        total: Tensor | None = None
        for turns, flipped in ORIENTATIONS:
            turned = x.rot90(turns, (2, 3))
            out = self.network((turned.flip(3) if flipped else turned).contiguous())
            out = (out.flip(3) if flipped else out).rot90(-turns, (2, 3))
            total = out.clone() if total is None else total.add_(out)
        assert total is not None
        return total.div_(len(ORIENTATIONS))


Runner = Network | SelfEnsemble
"""A network as the options ask for it."""
