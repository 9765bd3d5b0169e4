"""Precision under autocast: which modules run in float32, and where features become float16."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restore_cli.models.emt import EMT
from restore_cli.models.hat import HAT
from restore_cli.models.restormer import Restormer
from restore_cli.models.swinir import SwinIR

__all__ = ["FLOAT32", "InFloat32", "InResidualDtype", "set_precision"]

FLOAT32: dict[tuple[type[nn.Module], str | None], tuple[str, ...]] = {
    (EMT, None): ("head", "tail"),
    (Restormer, None): ("patch_embed", "output"),
    (SwinIR, None): ("conv_first", "conv_after_body"),
    (SwinIR, ""): ("conv_last",),
    (SwinIR, "pixelshuffledirect"): ("upsample",),
}
"""Modules between colours and features that run in float32 (decision 032), by family and head of SwinIR."""

FIRST_OF_BODY: dict[type[nn.Module], str] = {
    EMT: "body",
    HAT: "patch_embed",
    Restormer: "encoder_level1",
    SwinIR: "patch_embed",
}
"""The first module whose features are added up in residual blocks."""


class InFloat32(nn.Module):
    """Runs a module in float32, also under autocast."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Convert the input to float32."""
        with torch.autocast(x.device.type, enabled=False):
            return self.module(x.float())


class InResidualDtype(nn.Module):
    """Runs a module on features in the dtype that residual blocks add up.

    That is float16 under autocast to float16, which halves the memory traffic of a GPU. bfloat16 has too few bits for
    sums (decision 044), except for HAT on a CPU (decision 039).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Convert the input to float16 under autocast to float16."""
        kind = x.device.type
        halves = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
        return self.module(x.half() if halves else x)


def set_precision(network: nn.Module) -> None:
    """Wrap the modules that the tables name, in a published network or in each network of a cascade."""
    for part in list(network.modules()):
        wrap_modules(part)


def wrap_modules(network: nn.Module) -> None:
    """Wrap the modules of one network. Modules that the tables do not name are left as they are."""
    kind, head = type(network), getattr(getattr(network, "config", None), "head", None)
    for name in dict.fromkeys(FLOAT32.get((kind, None), ()) + FLOAT32.get((kind, head), ())):
        setattr(network, name, InFloat32(network.get_submodule(name)))
    if name := FIRST_OF_BODY.get(kind, ""):
        setattr(network, name, InResidualDtype(network.get_submodule(name)))
