"""The bundled checkpoints that this project trains: network, data and schedule of each, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from restore_cli.weights.architectures import CascadeConfig, EMTConfig, RestormerConfig

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    task: Literal["sr", "small", "denoise", "dejpeg"]
    """`small` is the first part of a cascade: small degraded images become small clean ones"""
    config: RestormerConfig | EMTConfig | CascadeConfig
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
    luma: float = 0
    """weight of the error of the lightness in the loss, beside that of the colours"""
    decay: float = 0.998
    """decay of the moving average of the weights"""
    strong: float = 0.45
    """share of patches with strong noise and strong compression, in super-resolution"""

    @property
    def scale(self) -> int:
        """Output side over input side."""
        return getattr(self.config, "scale", 1)


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


# One block less at the lowest resolution than above, so that the bundled files stay below 25 MB.
_CASCADE_X4 = CascadeConfig(4, dim=24, blocks=(0, 5, 4, 1), heads=(1, 2, 4, 8))

RECIPES = {
    "lite-denoise": Recipe("denoise", _UNET, patch=96, batch=4, rate=5e-4, minutes=95),
    "lite-dejpeg": Recipe("dejpeg", _UNET, patch=96, batch=4, rate=5e-4, minutes=60),
    "lite-real-x4-restorer": Recipe("small", _CASCADE_X4.restorer, patch=64, batch=8, rate=4e-4, minutes=80, luma=2),
    "lite-real-x4": Recipe("sr", _CASCADE_X4, patch=48, batch=8, rate=1e-4, minutes=120, luma=2),
    "lite-real-x4-strong": Recipe(
        "sr", _CASCADE_X4, patch=48, batch=8, rate=7e-5, minutes=31, luma=2, decay=0.985, strong=0.78
    ),
    "lite-real-x2": Recipe("sr", CascadeConfig(2, 24, (0, 5, 4, 1), (1, 2, 4, 8)).enlarger, 64, 2, 1e-4, 40),
}
