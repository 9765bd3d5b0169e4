"""Detects the architecture and configuration of a checkpoint from its metadata, or its keys and shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from restore_cli.errors import WeightsError

__all__ = ["detect"]

State = Mapping[str, Tensor]
FIRST_BLOCK = "layers.0.residual_group.blocks.0"


def detect(state: State, metadata: Mapping[str, str], path: Path) -> tuple[str, dict[str, Any]] | None:
    """Return (architecture, config) of a checkpoint, None if its tensors belong to none of the four families.

    Metadata takes precedence over keys and shapes. Raises WeightsError if the tensors fit several configurations.
    """
    if "architecture" in metadata and "config" in metadata:
        try:
            return metadata["architecture"], dict(json.loads(metadata["config"]))
        except (ValueError, TypeError, RecursionError) as error:
            raise WeightsError(f"{path}: the configuration in its metadata is not readable: {error}") from None
    readers = {
        f"{FIRST_BLOCK}.conv_block.cab.0.weight": ("hat", read_hat),
        f"{FIRST_BLOCK}.attn.relative_position_bias_table": ("swinir", read_swinir),
        "encoder_level1.0.attn.temperature": ("restormer", read_restormer),
        "body.0.sa_list.0.attn.0.weight": ("emt", read_emt),
    }
    for key, (architecture, reader) in readers.items():
        if key in state:
            try:
                return architecture, reader(state)
            except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
                raise WeightsError(f"{path}: looks like {architecture}, but {explain(error)}") from None
    return None


def explain(error: Exception) -> str:
    """Return the reason for an error while reading a state dict."""
    return f"has no tensor {error}" if isinstance(error, KeyError) else str(error)


def tensor_size(state: State, key: str, axis: int) -> int:
    """Return the size of a tensor along an axis."""
    return state[key].shape[axis]


def count_blocks(state: State, prefix: str, suffix: str) -> int:
    """Return how many keys prefix.n.suffix exist, with n from 0 without a gap."""
    n = 0
    while f"{prefix}.{n}.{suffix}" in state:
        n += 1
    return n


def find_divisor(whole: int, part: int, what: str) -> int:
    """Return the only d with whole // d == part. Raises ValueError if there are none or several."""
    least, most = whole // (part + 1) + 1, whole // part
    if least != most and whole % part:
        raise ValueError(f"{part} of {whole} channels fit a {what} of {least} to {most}")
    return whole // part


def read_window_config(state: State) -> dict[str, Any]:
    """Read what the configurations of SwinIR and HAT share."""
    depths, heads = [], []
    for group in range(count_blocks(state, "layers", "residual_group.blocks.0.norm1.weight")):
        blocks = f"layers.{group}.residual_group.blocks"
        depths.append(count_blocks(state, blocks, "norm1.weight"))
        heads.append(tensor_size(state, f"{blocks}.0.attn.relative_position_bias_table", 1))
    dim = tensor_size(state, "conv_first.weight", 0)
    return {
        "dim": dim,
        "depths": tuple(depths),
        "heads": tuple(heads),
        "window": (isqrt(tensor_size(state, f"{FIRST_BLOCK}.attn.relative_position_bias_table", 0)) + 1) // 2,
        "mlp_ratio": tensor_size(state, f"{FIRST_BLOCK}.mlp.fc1.weight", 0) / dim,
    }


def read_shuffle_scale(state: State) -> int:
    """Read the scale of the published upsampler, which has one step of 3, or steps of 2."""
    steps = [key for key in state if key.startswith("upsample.") and key.endswith(".weight")]
    if tensor_size(state, "upsample.0.weight", 0) == 9 * tensor_size(state, "upsample.0.weight", 1):
        return 3
    return int(2 ** len(steps))


def read_swinir(state: State) -> dict[str, Any]:
    """Read the configuration of a SwinIR. Only JPEG models have windows of 7 px, and values of 0 to 255."""
    common, channels = read_window_config(state), tensor_size(state, "conv_first.weight", 1)
    if "conv_up1.weight" in state:
        head, scale = "nearest+conv", 4 if "conv_up2.weight" in state else 2
    elif "conv_before_upsample.0.weight" in state:
        head, scale = "pixelshuffle", read_shuffle_scale(state)
    elif "upsample.0.weight" in state:
        head, scale = "pixelshuffledirect", isqrt(tensor_size(state, "upsample.0.weight", 0) // channels)
    else:
        head, scale = "", 1
    return common | {
        "scale": scale,
        "channels": channels,
        "head": head,
        "residual": "3conv" if "conv_after_body.0.weight" in state else "1conv",
        "value_range": 255.0 if common["window"] == 7 else 1.0,
    }


def read_hat(state: State) -> dict[str, Any]:
    """Read the configuration of a HAT. No tensor states the weight of the convolution branch, always 0.01."""
    common = read_window_config(state)
    dim, window = common["dim"], common["window"]
    cab, cross = f"{FIRST_BLOCK}.conv_block.cab", "layers.0.residual_group.overlap_attn"
    wide = isqrt(tensor_size(state, f"{cross}.relative_position_bias_table", 0)) - window + 1
    return common | {
        "scale": read_shuffle_scale(state),
        "compress": find_divisor(dim, tensor_size(state, f"{cab}.0.weight", 0), "compress"),
        "squeeze": find_divisor(dim, tensor_size(state, f"{cab}.3.attention.1.weight", 0), "squeeze"),
        "conv_scale": 0.01,
        "overlap_ratio": (wide - window) / window,
    }


def read_restormer(state: State) -> dict[str, Any]:
    """Read the configuration of a Restormer. If several expansions fit, the published 2.66 is preferred."""
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    dims = [tensor_size(state, f"{level}.0.attn.qkv.weight", 1) for level in levels]
    hidden = [tensor_size(state, f"{level}.0.ffn.project_out.weight", 1) for level in levels]
    low = max(h / dim for h, dim in zip(hidden, dims, strict=True))
    high = min((h + 1) / dim for h, dim in zip(hidden, dims, strict=True))
    if low >= high:
        raise ValueError(f"{hidden} hidden channels fit no expansion of {dims}")
    return {
        "channels_in": tensor_size(state, "patch_embed.proj.weight", 1),
        "channels_out": tensor_size(state, "output.weight", 0),
        "dim": dims[0],
        "blocks": tuple(count_blocks(state, level, "attn.temperature") for level in levels),
        "refinement": count_blocks(state, "refinement", "attn.temperature"),
        "heads": tuple(tensor_size(state, f"{level}.0.attn.temperature", 0) for level in levels),
        "expansion": 2.66 if low <= 2.66 < high else (low + high) / 2,
        "norm_bias": "encoder_level1.0.norm1.body.bias" in state,
        "dual_pixel": "skip_conv.weight" in state,
    }


def read_emt(state: State) -> dict[str, Any]:
    """Read the configuration of an EMT. No tensor states heads and windows, so only the published width is known."""
    dim = tensor_size(state, "head.weight", 0)
    if dim != 60:
        raise ValueError(
            f"the tensors of an EMT with {dim} channels do not state heads and windows; name them in a catalogue"
        )
    return {
        "scale": isqrt(tensor_size(state, "tail.0.weight", 0) // 3),
        "dim": dim,
        "blocks": count_blocks(state, "body", "mlp_list.0.fc1.weight"),
        "layers": count_blocks(state, "body.0.mlp_list", "fc1.weight"),
        "attention_layers": count_blocks(state, "body.0.sa_list", "proj.0.weight"),
        "heads": 3,
        "mlp_ratio": tensor_size(state, "body.0.mlp_list.0.fc1.weight", 0) // dim,
        "windows": ((32, 8), (8, 32)),
    }
