"""Our model and the peer's model of each family, built from one state dict of the published size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from restore_cli import weights
from restore_cli.models.emt import EMT
from restore_cli.models.load import build_module, build_network
from restore_cli.models.network import Network, Reload
from restore_cli.models.spandrel_model import import_spandrel
from restore_cli.weights.architectures import EMTConfig, HATConfig, RestormerConfig, SwinIRConfig

__all__ = ["CASES", "Case", "build_ours", "build_peer", "make_weights"]

PUBLISHED_EMT = Path(weights.__file__).parent / "bundled/emt-x4.safetensors"

Config = EMTConfig | HATConfig | RestormerConfig | SwinIRConfig


@dataclass(frozen=True)
class Case:
    """One model of the table in docs/performance.md."""

    name: str
    architecture: str
    config: Config
    side: int = 256
    """of the tile on a CPU, px: OpenVINO needs many minutes to convert the largest networks for 256 px"""


CASES = (
    Case("EMT ×4", "emt", EMTConfig(4, 60, 6, 6, 2, 3, 2, ((32, 8), (8, 32)))),
    Case(
        "SwinIR-S ×4",
        "swinir",
        SwinIRConfig(4, 3, 60, (6,) * 4, (6,) * 4, 8, 2, "pixelshuffledirect", "1conv", 1.0),
    ),
    Case("SwinIR-M ×4", "swinir", SwinIRConfig(4, 3, 180, (6,) * 6, (6,) * 6, 8, 2, "pixelshuffle", "1conv", 1.0), 128),
    Case("HAT ×4", "hat", HATConfig(4, 180, (6,) * 6, (6,) * 6, 16, 3, 30, 0.01, 0.5, 2), 64),
    Case("Restormer", "restormer", RestormerConfig(3, 3, 48, (4, 6, 6, 8), 4, (1, 2, 4, 8), 2.66, True, False)),
    Case("lite", "restormer", RestormerConfig(3, 3, 24, (0, 5, 4, 2), 0, (1, 2, 4, 8), 2.66, False, False)),
)


def make_weights(case: Case) -> dict[str, Tensor]:
    """Return EMT's published weights, or for the other networks random ones, the same in each call.

    With these random weights rounding errors do not grow from layer to layer. Bias tables get random values instead of
    zeros. With random weights EMT, which does not scale its scores, would have scores that no photograph causes.
    """
    if isinstance(case.config, EMTConfig):
        return {
            key: value.float() if value.is_floating_point() else value
            for key, value in load_file(PUBLISHED_EMT).items()
        }
    torch.manual_seed(0)
    state = build_module(case.architecture, asdict(case.config)).state_dict()
    for key, value in state.items():
        if "bias_table" in key:
            state[key] = torch.randn_like(value) / 4
    return state


def build_ours(
    case: Case, state: dict[str, Tensor], device: torch.device, precision: torch.dtype, reload: Reload | None = None
) -> Network:
    """Return our model with the weights. With `reload` it frees those that its precision does not need."""
    return build_network(case.architecture, asdict(case.config), state, Path(case.name), device, precision, reload)


def build_peer(case: Case, state: dict[str, Tensor], device: torch.device) -> nn.Module:
    """Return the peer's model with the weights. Tables that it computes itself are not in the state dict."""
    module = EMT(case.config) if isinstance(case.config, EMTConfig) else build_spandrel_model(case.config)
    missing, unexpected = module.load_state_dict(state, strict=False)
    computed = ("relative_position_index", "attn_mask")
    wrong = [key for key in missing if not any(word in key for word in computed)] + list(unexpected)
    if wrong:
        raise ValueError(f"{case.name}: the peer does not share {wrong[0]}")
    return module.requires_grad_(False).eval().to(device)


def build_spandrel_model(config: Config) -> nn.Module:
    """Return spandrel's module for our configuration, before its weights are loaded."""
    import_spandrel()
    if isinstance(config, RestormerConfig):
        path = "spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch"
        return construct(path, "Restormer", convert_restormer_config(config))
    if isinstance(config, HATConfig):
        return construct(
            "spandrel.architectures.HAT.__arch.HAT", "HAT", convert_window_config(config) | convert_hat_config(config)
        )
    words = convert_window_config(config) | {"upsampler": getattr(config, "head", "")}
    return construct("spandrel.architectures.SwinIR.__arch.SwinIR", "SwinIR", words)


def construct(path: str, name: str, words: dict[str, object]) -> nn.Module:
    """Return an instance of the class `name` in the module `path`."""
    module: nn.Module = getattr(import_module(path), name)(**words)
    return module


def convert_window_config(config: Config) -> dict[str, object]:
    """Return the arguments that SwinIR and HAT have in common."""
    words = {"upscale": "scale", "embed_dim": "dim", "depths": "depths", "num_heads": "heads"}
    words |= {"window_size": "window", "mlp_ratio": "mlp_ratio"}
    return {word: getattr(config, name) for word, name in words.items()} | {"img_size": 64, "img_range": 1.0}


def convert_hat_config(config: HATConfig) -> dict[str, object]:
    """Return the arguments that only HAT has."""
    return {
        "compress_ratio": config.compress,
        "squeeze_factor": config.squeeze,
        "conv_scale": config.conv_scale,
        "overlap_ratio": config.overlap_ratio,
        "upsampler": "pixelshuffle",
    }


def convert_restormer_config(config: RestormerConfig) -> dict[str, object]:
    """Return the arguments of Restormer."""
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
