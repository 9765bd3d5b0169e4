"""Networks that store weights in the dtype in which autocast uses them, so that no call converts them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from restore_cli.models import restormer
from restore_cli.models.aligned import BlockTail, align_rows, can_align_rows
from restore_cli.models.forms.emt import FastPixelMixer, FastStripedAttention
from restore_cli.models.forms.layers import FastWindowAttention, PositionBias
from restore_cli.models.forms.restormer import FastGatedFeedForward
from restore_cli.models.inference import optimize
from restore_cli.models.precision import InFloat32

__all__ = ["copy_network", "optimize_in_bfloat16", "store_in_precision"]

Names = dict[type[nn.Module], tuple[str, ...]]

PRODUCTS: Names = {
    nn.Conv2d: ("weight", "bias"),
    nn.Linear: ("weight", "bias"),
    FastGatedFeedForward: ("into", "depthwise", "out"),
    FastPixelMixer: ("weight", "bias"),
    FastStripedAttention: ("weight", "bias"),
    BlockTail: ("projection", "projection_bias", "into", "into_bias", "back", "back_bias"),
}
"""Weights of products and convolutions, which autocast computes in half precision. Keys include their subclasses."""

NORMS: Names = {
    nn.LayerNorm: ("weight", "bias"),
    restormer.Affine: ("weight", "bias"),
    BlockTail: ("norm_weight", "norm_bias"),
}
"""Weights of layer norms, which are float16 where features are."""

SCORES: Names = {PositionBias: ("bias",)}
"""What is added to scores: float16 on a GPU. On a CPU attention scales it in float32 before it rounds it."""


def copy_network(network: nn.Module) -> nn.Module:
    """Return a copy of a network that shares its weights."""
    return deepcopy(network, {id(weight): weight for weight in (*network.parameters(), *network.buffers())})


def optimize_in_bfloat16(network: nn.Module) -> None:
    """Do what `inference.optimize` does, for a CPU and with weights of products in bfloat16, in place.

    The weights of each module are converted before the next one is prepared, so those that a form derives are in memory
    in float32 for one module at a time.
    """
    wide: set[nn.Module] = set()

    def finish(module: nn.Module) -> None:
        if isinstance(module, InFloat32):
            wide.update(module.modules())
        if module not in wide:
            store_weights(module, [PRODUCTS], torch.bfloat16)

    optimize(network, finish)


def store_in_precision(network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Change an optimized network in place for autocast to `dtype`. Weights that stay float32 are not copied.

    On a GPU, rows of features are aligned where the kernels for that are correct.
    """
    tables = [PRODUCTS]
    if dtype == torch.float16:
        tables += [NORMS] if device.type == "cpu" else [NORMS, SCORES]
    if can_align_rows(network, dtype, device):
        align_rows(network)
    for module in half_modules(network):
        if isinstance(module, FastWindowAttention) and device.type != "cpu":
            module.add_masks()
        store_weights(module, tables, dtype)


def store_weights(module: nn.Module, tables: Iterable[Names], dtype: torch.dtype) -> None:
    """Convert the weights of one module that the tables name, in place."""
    names = {name for table in tables for kind, row in table.items() if isinstance(module, kind) for name in row}
    for name in names:
        if isinstance(weight := getattr(module, name), Tensor):
            half = weight.to(dtype)
            setattr(module, name, nn.Parameter(half, False) if isinstance(weight, nn.Parameter) else half)


def half_modules(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the network and its modules, except those that run in float32."""
    if isinstance(network, InFloat32):
        return
    yield network
    for module in network.children():
        yield from half_modules(module)
