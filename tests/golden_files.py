"""Reads the reference files in tests/golden, and converts the authors' hyperparameters to our Configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from restore_cli.models.load import build_module

GOLDEN = Path(__file__).parent / "golden"

SWINIR = {
    "upscale": "scale", "in_chans": "channels", "embed_dim": "dim", "depths": "depths", "num_heads": "heads",
    "window_size": "window", "mlp_ratio": "mlp_ratio", "upsampler": "head", "resi_connection": "residual",
    "img_range": "value_range",
}  # fmt: skip
HAT = {
    "upscale": "scale", "embed_dim": "dim", "depths": "depths", "num_heads": "heads", "window_size": "window",
    "compress_ratio": "compress", "squeeze_factor": "squeeze", "conv_scale": "conv_scale",
    "overlap_ratio": "overlap_ratio", "mlp_ratio": "mlp_ratio",
}  # fmt: skip
RESTORMER = {
    "inp_channels": "channels_in", "out_channels": "channels_out", "dim": "dim", "num_blocks": "blocks",
    "num_refinement_blocks": "refinement", "heads": "heads", "ffn_expansion_factor": "expansion",
    "LayerNorm_type": "norm_bias", "dual_pixel_task": "dual_pixel",
}  # fmt: skip
EMT = {
    "upscale": "scale", "dim": "dim", "n_blocks": "blocks", "n_layers": "layers", "n_GTLs": "attention_layers",
    "num_heads": "heads", "mlp_ratio": "mlp_ratio", "window_list": "windows",
}  # fmt: skip
WORDS = {"swinir": SWINIR, "hat": HAT, "restormer": RESTORMER, "emt": EMT}


def convert_config(architecture: str, published: dict[str, Any]) -> dict[str, Any]:
    """Return our names and values for the published hyperparameters."""
    ours = {WORDS[architecture][key]: value for key, value in published.items() if key in WORDS[architecture]}
    if architecture == "restormer":
        ours["norm_bias"] = ours["norm_bias"] == "WithBias"
    if architecture == "swinir":
        ours["head"] = ours["head"] or ""
    return ours


def read_golden(name: str) -> tuple[str, dict[str, Any], dict[str, Tensor], Tensor, Tensor]:
    """Return (architecture, config, weights by published key, input, output) of a reference file."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    architecture = metadata["architecture"]
    ours = convert_config(architecture, json.loads(metadata["hyperparameters"]))
    return architecture, ours, weights, tensors["input"], tensors["output"]


def build_on_meta(architecture: str, ours: dict[str, Any]) -> nn.Module:
    """Return the module on the meta device, where weights take no memory."""
    with torch.device("meta"):
        return build_module(architecture, ours)
