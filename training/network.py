"""Networks ready to be trained: one per scale, with one body, and weights to start from."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from restore_cli.models.restormer import Restormer, RestormerConfig
from restore_cli.models.swinir import SwinIR, SwinIRConfig
from training.data import Bytes, as_floats, to_tensor
from training.recipe import Recipe

__all__ = ["build", "initialise", "interpolate"]


def build(recipe: Recipe) -> nn.ModuleDict:
    """The recipe's networks by name: x2, x3, x4, or x1 alone. All but the head is shared between scales."""
    config = recipe.config
    if isinstance(config, RestormerConfig):
        return nn.ModuleDict({"x1": Restormer(config)})
    networks = {f"x{scale}": SwinIR(replace(config, scale=scale)) for scale in recipe.scales}
    first = next(iter(networks.values()))
    for network in networks.values():
        for part in ("conv_first", "patch_embed", "layers", "norm", "conv_after_body"):
            setattr(network, part, getattr(first, part))
    return nn.ModuleDict(networks)


def initialise(networks: nn.ModuleDict, seed: int = 0) -> None:
    """Linear layers and position biases as in the papers: a normal of σ 0.02, cut at 2; convolutions as torch has them.

    The last convolution before the shortcut starts small, so that a network starts near what the shortcut gives.
    """
    torch.manual_seed(seed)
    for name, parameter in networks.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in networks.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            module.reset_parameters()
    network = next(iter(networks.values()))
    last = network.conv_after_body if isinstance(network, SwinIR) else network.output
    assert isinstance(last, nn.Conv2d)
    for tensor in last.parameters():
        tensor.data *= 0.001


@torch.no_grad()
def interpolate(network: SwinIR, small: Bytes, photos: Bytes) -> None:
    """Let a fresh network begin as the best 3×3 linear interpolation, not as noise, which saves the first minutes.

    The first three features become the colours themselves; the head reads them with weights fitted by least squares to
    (n, h, w, 3) photographs and their (n, h / scale, w / scale, 3) small versions.
    """
    config: SwinIRConfig = network.config
    head = network.upsample[0]
    assert isinstance(head, nn.Conv2d)
    weights = fit(to_tensor(as_floats(small)), to_tensor(as_floats(photos)), config.scale)
    network.conv_first.weight[:3] = 0
    network.conv_first.bias.data[:3] = 0  # type: ignore[union-attr]
    head.weight.zero_()
    head.bias.data.zero_()  # type: ignore[union-attr]
    for colour in range(3):
        network.conv_first.weight[colour, colour, 1, 1] = 1
        rows = slice(colour * config.scale**2, (colour + 1) * config.scale**2)
        head.weight[rows, colour] = weights.T.view(-1, 3, 3)


def fit(small: Tensor, large: Tensor, scale: int) -> Tensor:
    """(9, scale²) weights of the 3×3 neighbours for each of the pixels that one small pixel becomes."""
    large = large[..., : small.shape[2] * scale, : small.shape[3] * scale]
    planes = small.flatten(0, 1)[:, None]
    taps = nn.functional.unfold(planes, 3)
    targets = nn.functional.pixel_unshuffle(large.flatten(0, 1)[:, None], scale)[..., 1:-1, 1:-1].flatten(2)
    a, b = taps.transpose(1, 2).flatten(0, 1), targets.transpose(1, 2).flatten(0, 1)
    return torch.linalg.solve(a.T @ a, a.T @ b)
