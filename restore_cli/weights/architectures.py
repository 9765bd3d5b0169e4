"""The configuration of each architecture: the fields of a catalogue entry, and the arguments of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from restore_cli.weights.table import ANY_TEXT, NON_NEGATIVE

__all__ = [
    "ARCHITECTURES",
    "CascadeConfig",
    "EMTConfig",
    "HATConfig",
    "RestormerConfig",
    "SpandrelConfig",
    "SwinIRConfig",
]

Count = Annotated[int, NON_NEGATIVE]
MaybeEmpty = Annotated[str, ANY_TEXT]


@dataclass(frozen=True)
class SwinIRConfig:
    """Hyperparameters of a variant. `depths` and `heads` have one entry per residual group."""

    scale: int
    channels: int
    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    mlp_ratio: float
    head: MaybeEmpty
    """pixelshuffle (classical), pixelshuffledirect (lightweight), nearest+conv (real), or empty (×1)"""
    residual: str
    """1conv, or 3conv in the large model"""
    value_range: float
    """1, or 255 in the JPEG models"""


@dataclass(frozen=True)
class HATConfig:
    """Hyperparameters of a variant. `depths` and `heads` have one entry per residual group."""

    scale: int
    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    compress: int
    """channels of the convolution branch are dim / compress"""
    squeeze: int
    """channels inside the channel attention are dim / squeeze"""
    conv_scale: float
    """weight of the convolution branch"""
    overlap_ratio: float
    """keys of the cross-attention reach beyond a window by half of this share of its side, to each side"""
    mlp_ratio: float


@dataclass(frozen=True)
class RestormerConfig:
    """Hyperparameters of a variant. `blocks` and `heads` have one entry per level."""

    channels_in: int
    channels_out: int
    dim: int
    blocks: tuple[Count, Count, Count, Count]
    refinement: Count
    """blocks after the decoder"""
    heads: tuple[int, int, int, int]
    expansion: float
    """hidden channels of the feed-forward part over dim"""
    norm_bias: bool
    """whether layer norms subtract the mean and add a bias (deblurring, deraining) or not (denoising)"""
    dual_pixel: bool
    """whether the input is two views, six channels"""


@dataclass(frozen=True)
class EMTConfig:
    """Hyperparameters of a variant."""

    scale: int
    dim: int
    blocks: int
    layers: int
    """layers per block"""
    attention_layers: int
    """number of attention layers at the start of a block; the others are pixel mixers"""
    heads: int
    mlp_ratio: float
    windows: tuple[tuple[int, int], ...]
    """sides (h, w) of the windows; each form gets an equal share of the channels"""


@dataclass(frozen=True)
class CascadeConfig:
    """A Restormer that cleans a small image, then an EMT of the published lightweight form that enlarges it."""

    scale: int
    dim: int
    """of the Restormer"""
    blocks: tuple[Count, Count, Count, Count]
    """of the Restormer, per level"""
    heads: tuple[int, int, int, int]
    """of the Restormer, per level"""

    @property
    def restorer(self) -> RestormerConfig:
        return RestormerConfig(
            channels_in=3,
            channels_out=3,
            dim=self.dim,
            blocks=self.blocks,
            refinement=0,
            heads=self.heads,
            expansion=2.66,
            norm_bias=False,
            dual_pixel=False,
        )

    @property
    def enlarger(self) -> EMTConfig:
        return EMTConfig(
            self.scale,
            dim=60,
            blocks=6,
            layers=6,
            attention_layers=2,
            heads=3,
            mlp_ratio=2.0,
            windows=((32, 8), (8, 32)),
        )


@dataclass(frozen=True)
class SpandrelConfig:
    """A network of another architecture. spandrel reads its hyperparameters from the file, which must agree."""

    architecture: str
    """its name in spandrel, such as ESRGAN"""
    scale: int
    channels: int


ARCHITECTURES: dict[str, type[Any]] = {
    "swinir": SwinIRConfig,
    "hat": HATConfig,
    "restormer": RestormerConfig,
    "emt": EMTConfig,
    "cascade": CascadeConfig,
    "spandrel": SpandrelConfig,
}
