"""The bundled checkpoints that this project trains: network, data and schedule of each, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from restore_cli.weights.architectures import EMTConfig, RestormerConfig

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    task: Literal["sr", "denoise", "dejpeg"]
    config: RestormerConfig | EMTConfig
    patch: int
    """side of an input patch, px; a multiple of the model's window"""
    batch: int
    """patches per step"""
    rate: float
    """highest learning rate"""
    minutes: float
    """default length of the schedule"""
    warm_up: int = 50
    """steps over which the learning rate rises"""
    decay: float = 0.998
    """decay of the moving average of the weights"""

    @property
    def scale(self) -> int:
        """Output side over input side."""
        return self.config.scale if isinstance(self.config, EMTConfig) else 1


# Level one has no blocks: they would run at full resolution and cost four times as much as those of level two.
_UNET = RestormerConfig(
    channels_in=3,
    channels_out=3,
    dim=24,
    blocks=(0, 5, 4, 2),
    refinement=0,
    heads=(1, 2, 4, 8),
    expansion=2.66,
    norm_bias=False,
    dual_pixel=False,
)


def _emt(scale: int) -> EMTConfig:
    """The published lightweight form."""
    return EMTConfig(
        scale, dim=60, blocks=6, layers=6, attention_layers=2, heads=3, mlp_ratio=2.0, windows=((32, 8), (8, 32))
    )


RECIPES = {
    "lite-denoise": Recipe("denoise", _UNET, patch=96, batch=4, rate=5e-4, minutes=95),
    "lite-dejpeg": Recipe("dejpeg", _UNET, patch=96, batch=4, rate=5e-4, minutes=60),
    "lite-real-x4": Recipe("sr", _emt(4), patch=32, batch=8, rate=2e-4, minutes=65),
    "lite-real-x2": Recipe("sr", _emt(2), patch=64, batch=2, rate=1e-4, minutes=40),
}
