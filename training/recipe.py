"""What each bundled checkpoint is and how it is trained: a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from restore_cli.models.restormer import RestormerConfig
from restore_cli.models.swinir import SwinIRConfig

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    task: Literal["sr", "denoise", "dejpeg"]
    config: SwinIRConfig | RestormerConfig
    scales: tuple[int, ...]
    """one network per scale, with one body; the steps take turns"""
    patch: int
    """side of an input patch, px; a multiple of the model's grid"""
    batch: int
    """patches per step"""
    rate: float
    """highest learning rate"""
    minutes: float
    """length of the schedule unless told otherwise"""
    start: str | None = None
    """the recipe whose averaged weights are the start"""
    warm_up: int = 300
    """steps over which the rate rises"""
    decay: float = 0.999
    """of the moving average of the weights"""


_SR = SwinIRConfig(
    scale=2,
    channels=3,
    dim=64,
    depths=(2, 2, 2, 2),
    heads=(2, 2, 2, 2),
    window=8,
    mlp_ratio=2,
    head="pixelshuffledirect",
    residual="1conv",
    value_range=1,
)

# No blocks at full resolution: level one is a shortcut, and a step costs a quarter.
_DENOISE = RestormerConfig(
    channels_in=3,
    channels_out=3,
    dim=24,
    blocks=(0, 3, 1, 1),
    refinement=0,
    heads=(1, 2, 4, 8),
    expansion=2.66,
    norm_bias=False,
    dual_pixel=False,
)

_JOINT = Recipe("sr", _SR, scales=(2, 3, 4), patch=40, batch=8, rate=1e-3, minutes=36)


def _tuned(scale: int) -> Recipe:
    """One scale on its own, from the joint run, with a lower rate."""
    config = replace(_SR, scale=scale)
    return replace(_JOINT, config=config, scales=(scale,), rate=4e-4, minutes=5, start="lite-sr", warm_up=50)


RECIPES = {
    "lite-sr": _JOINT,
    "lite-sr-x2": _tuned(2),
    "lite-sr-x3": _tuned(3),
    "lite-sr-x4": _tuned(4),
    "lite-denoise": Recipe("denoise", _DENOISE, scales=(1,), patch=96, batch=4, rate=1e-3, minutes=28),
    "lite-dejpeg": Recipe(
        "dejpeg", replace(_DENOISE, dim=16, blocks=(0, 4, 2, 1)), scales=(1,), patch=96, batch=4, rate=1e-3, minutes=18
    ),
}
