"""Small networks of other architectures with random weights. Importing this module needs spandrel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from restore_cli.models.spandrel_model import import_spandrel

__all__ = ["NETWORKS", "SCALES", "make_foreign_checkpoint", "spandrel"]

spandrel = import_spandrel()


def construct(architecture: str, name: str, **words: object) -> Callable[[], nn.Module]:
    """Return a function that makes a network of a class in one of spandrel's packages."""

    def make() -> nn.Module:
        module: nn.Module = getattr(import_module(f"spandrel.architectures.{architecture}"), name)(**words)
        return module

    return make


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ESRGAN": construct("ESRGAN", "ESRGAN", num_filters=16, num_blocks=3, scale=4),
    "SPAN": construct("SPAN", "SPAN", num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2),
    "PLKSR": construct("PLKSR", "RealPLKSR", dim=16, n_blocks=2, upscaling_factor=2, layer_norm=True),
    "DAT": construct(
        "DAT", "DAT", embed_dim=24, split_size=[8, 16], depth=[2, 2], num_heads=[2, 2], expansion_factor=2.0, upscale=2
    ),
    "NAFNet": construct("NAFNet", "NAFNet", width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
    "DRCT": construct(
        "DRCT", "DRCT", embed_dim=24, depths=(2, 2), num_heads=(2, 2), upscale=2, upsampler="pixelshuffle", gc=8
    ),
    "FDAT": construct("FDAT", "FDAT", embed_dim=24, num_groups=1, depth_per_group=2, num_heads=2, mid_dim=16, scale=2),
    "HAT": construct("HAT", "HAT", embed_dim=24, depths=(2,), num_heads=(2,), window_size=8, squeeze_factor=6),
}
"""By the name of the architecture. RealPLKSR is a variant of PLKSR."""

SCALES = {"ESRGAN": 4, "SPAN": 2, "PLKSR": 2, "DAT": 2, "NAFNet": 1, "DRCT": 2, "FDAT": 2, "HAT": 1}


def make_foreign_checkpoint(
    path: Path, architecture: str, change: Callable[[dict[str, Tensor]], None] = lambda state: None
) -> Path:
    """Write one of NETWORKS. `change` gets its tensors by name and may change them."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        state = {name: value.detach().clone() for name, value in NETWORKS[architecture]().state_dict().items()}
    change(state)
    torch.save({"params_ema": state}, path)
    return path
