"""What the tiling engine needs to know about each architecture: multiples, overlap and memory of its tiles."""

from __future__ import annotations

from math import ceil, lcm

from restore_cli.contract import Contract
from restore_cli.models.layers import HEAD_WIDTH
from restore_cli.weights.architectures import CascadeConfig, EMTConfig, HATConfig, RestormerConfig, SwinIRConfig

__all__ = [
    "make_cascade_contract",
    "make_emt_contract",
    "make_hat_contract",
    "make_restormer_contract",
    "make_swinir_contract",
]

WINDOW_FLOATS, RESTORMER_FLOATS = 20, 20
"""Floats that networks with windows, and Restormer, hold at the same time per px and channel, measured (decision 042).

SwinIR and HAT hold fewer where a tile is larger than a strip of attention, which depends on the number of threads.
"""


def make_swinir_contract(c: SwinIRConfig) -> Contract:
    """Windows shift within the picture, so tiles need context, but no particular size."""
    head = c.channels if c.head == "pixelshuffledirect" else HEAD_WIDTH
    return Contract(
        c.scale,
        c.channels,
        tile_multiple=c.window,
        pad_multiple=c.window,
        minimum=c.window,
        overlap=4 * c.window,
        tile=None,
        activation_floats_per_px=WINDOW_FLOATS * c.dim + head * c.scale**2,
    )


def make_hat_contract(c: HATConfig) -> Contract:
    """Channel attention averages over the tile, so the tile should be large enough to represent the picture."""
    return Contract(
        c.scale,
        3,
        tile_multiple=c.window,
        pad_multiple=c.window,
        minimum=c.window,
        overlap=2 * c.window,
        tile=32 * c.window,
        activation_floats_per_px=WINDOW_FLOATS * c.dim + HEAD_WIDTH * c.scale**2,
    )


def make_restormer_contract(c: RestormerConfig) -> Contract:
    """Attention weighs channels by their covariance over the tile, so the tile should be large."""
    widest = 2 * c.dim if c.blocks[0] + c.refinement else c.dim  # channels at full resolution
    return Contract(
        1,
        c.channels_in,
        tile_multiple=8,
        pad_multiple=8,
        minimum=8,
        overlap=48,
        tile=512,
        activation_floats_per_px=RESTORMER_FLOATS * widest,
    )


def make_emt_contract(c: EMTConfig) -> Contract:
    """Windows wrap around the edges of a tile, so tiles need context that is discarded.

    The attention pads its features to whole windows by reflection, which needs more than half a window.
    """
    longest = max(side for window in c.windows for side in window)
    return Contract(
        c.scale,
        3,
        tile_multiple=longest,
        pad_multiple=1,
        minimum=longest // 2 + 1,
        overlap=longest,
        tile=None,
        activation_floats_per_px=WINDOW_FLOATS * c.dim + 3 * c.scale**2,
    )


def make_cascade_contract(c: CascadeConfig) -> Contract:
    """The EMT needs its context in pixels that the Restormer has cleaned with context of its own."""
    first, second = make_restormer_contract(c.restorer), make_emt_contract(c.enlarger)
    multiple = lcm(first.pad_multiple, second.pad_multiple)
    return Contract(
        c.scale,
        first.channels,
        tile_multiple=lcm(first.tile_multiple, second.tile_multiple),
        pad_multiple=multiple,
        minimum=multiple * ceil(max(first.minimum, second.minimum) / multiple),
        overlap=first.overlap + second.overlap,
        tile=first.tile,
        activation_floats_per_px=max(first.activation_floats_per_px, second.activation_floats_per_px),
    )
