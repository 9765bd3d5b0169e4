"""Ours and the peer's model of each family, built from one state dict of the published size."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.plain_emt import PlainEMT
from restore_cli.models.load import build_module, build_network
from restore_cli.models.network import Network
from restore_cli.weights.architectures import EMTConfig, HATConfig, RestormerConfig, SwinIRConfig

__all__ = ["CASES", "Case", "ours", "peer", "weights"]

Config = EMTConfig | HATConfig | RestormerConfig | SwinIRConfig


@dataclass(frozen=True)
class Case:
    """One model of the table."""

    name: str
    architecture: str
    config: Config


CASES = (
    Case("EMT ×4", "emt", EMTConfig(4, 60, 6, 6, 2, 3, 2, ((32, 8), (8, 32)))),
    Case(
        "SwinIR-S ×4",
        "swinir",
        SwinIRConfig(4, 3, 60, (6,) * 4, (6,) * 4, 8, 2, "pixelshuffledirect", "1conv", 1.0),
    ),
    Case("SwinIR-M ×4", "swinir", SwinIRConfig(4, 3, 180, (6,) * 6, (6,) * 6, 8, 2, "pixelshuffle", "1conv", 1.0)),
    Case("HAT ×4", "hat", HATConfig(4, 180, (6,) * 6, (6,) * 6, 16, 3, 30, 0.01, 0.5, 2)),
    Case("Restormer", "restormer", RestormerConfig(3, 3, 48, (4, 6, 6, 8), 4, (1, 2, 4, 8), 2.66, True, False)),
)


def weights(case: Case) -> dict[str, Tensor]:
    """Random weights of the size, always the same, such that rounding does not grow from layer to layer.

    Tables of biases are not left at zero. EMT's scores are not scaled, so its queries are made small.
    """
    torch.manual_seed(0)
    state = build_module(case.architecture, asdict(case.config)).state_dict()
    for key, value in state.items():
        if "bias_table" in key:
            state[key] = torch.randn_like(value) / 4
        elif ".attn.0.weight" in key:
            state[key] = value / 32
    return state


def ours(case: Case, state: dict[str, Tensor], device: torch.device, precision: torch.dtype) -> Network:
    """Our model with the weights."""
    return build_network(case.architecture, asdict(case.config), state, Path(case.name), device, precision)


def peer(case: Case, state: dict[str, Tensor], device: torch.device) -> nn.Module:
    """The peer's model with the weights; what it lacks in them are tables that it computes itself."""
    module = PlainEMT(case.config) if isinstance(case.config, EMTConfig) else spandrel_model(case.config)
    missing, unexpected = module.load_state_dict(state, strict=False)
    computed = ("relative_position_index", "attn_mask")
    wrong = [key for key in missing if not any(word in key for word in computed)] + list(unexpected)
    if wrong:
        raise ValueError(f"{case.name}: the peer does not share {wrong[0]}")
    return module.requires_grad_(False).eval().to(device)


def spandrel_model(config: Config) -> nn.Module:
    """spandrel's class of the architecture, given our configuration in its words."""
    placeholder_for_torchvision()
    if isinstance(config, RestormerConfig):
        path = "spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch"
        return built(path, "Restormer", restormer_words(config))
    if isinstance(config, HATConfig):
        return built("spandrel.architectures.HAT.__arch.HAT", "HAT", window_words(config) | hat_words(config))
    words = window_words(config) | {"upsampler": getattr(config, "head", "")}
    return built("spandrel.architectures.SwinIR.__arch.SwinIR", "SwinIR", words)


def built(path: str, name: str, words: dict[str, object]) -> nn.Module:
    """The class of that name in that module, built with the words."""
    module: nn.Module = getattr(import_module(path), name)(**words)
    return module


def window_words(config: Config) -> dict[str, object]:
    """What SwinIR and HAT call by the same names."""
    words = {"upscale": "scale", "embed_dim": "dim", "depths": "depths", "num_heads": "heads"}
    words |= {"window_size": "window", "mlp_ratio": "mlp_ratio"}
    return {word: getattr(config, name) for word, name in words.items()} | {"img_size": 64, "img_range": 1.0}


def hat_words(config: HATConfig) -> dict[str, object]:
    """What is HAT's own."""
    return {
        "compress_ratio": config.compress,
        "squeeze_factor": config.squeeze,
        "conv_scale": config.conv_scale,
        "overlap_ratio": config.overlap_ratio,
        "upsampler": "pixelshuffle",
    }


def restormer_words(config: RestormerConfig) -> dict[str, object]:
    """Restormer's configuration."""
    return {
        "inp_channels": config.channels_in,
        "out_channels": config.channels_out,
        "dim": config.dim,
        "num_blocks": list(config.blocks),
        "num_refinement_blocks": config.refinement,
        "heads": list(config.heads),
        "ffn_expansion_factor": config.expansion,
        "LayerNorm_type": "WithBias" if config.norm_bias else "BiasFree",
        "dual_pixel_task": config.dual_pixel,
    }


def placeholder_for_torchvision() -> None:
    """Stand in for three functions that spandrel imports for families not measured here; spares the installation."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules.setdefault(name, ModuleType(name))
    functional: Any = sys.modules["torchvision.transforms.functional"]
    functional.InterpolationMode = functional.rotate = functional.normalize = None
