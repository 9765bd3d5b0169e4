"""EMT's moves of channels by one px, for feature maps (b, h, w, c)."""

from __future__ import annotations

import torch
from torch import Tensor

from restore_cli.models.ops.convolution import convolve
from restore_cli.models.ops.linear import channels_first, channels_last

__all__ = ["DIRECTIONS", "mix_pixels", "shift_channels"]

DIRECTIONS = slice(0, None, 5), slice(1, None, 5), slice(2, None, 5), slice(3, None, 5)
"""The channels that the pixel mixer moves left, right, up and down."""


def shift_channels(x: Tensor) -> Tensor:
    """Move the first fifth of the channels one px left, the next ones right, up and down. Zeros move in."""
    fifth = x.shape[-1] // 5
    left, right, up, down = (slice(way * fifth, (way + 1) * fifth) for way in range(4))
    out = torch.empty_like(x)
    out[:, :, :-1, left], out[:, :, -1, left] = x[:, :, 1:, left], 0
    out[:, :, 1:, right], out[:, :, 0, right] = x[:, :, :-1, right], 0
    out[:, :-1, :, up], out[:, -1, :, up] = x[:, 1:, :, up], 0
    out[:, 1:, :, down], out[:, 0, :, down] = x[:, :-1, :, down], 0
    out[..., 4 * fifth :] = x[..., 4 * fifth :]
    return out


def mix_pixels(x: Tensor, weight: Tensor, bias: Tensor, edges: Tensor) -> Tensor:
    """Apply the depthwise convolution of a pixel mixer, with weights (c, 1, 3, 3), to a map that wraps around.

    `edges` (4, c/5) are the weights of moved pixels in each direction. They stay float32 in half precision.
    """
    out = channels_last(convolve(channels_first(x), weight, bias, groups=x.shape[-1]))
    # the convolution shifts zeros in, where pixels of the opposite edge belong
    left, right, up, down = DIRECTIONS
    out[:, :, -1, left] += edges[0] * x[:, :, 0, left]
    out[:, :, 0, right] += edges[1] * x[:, :, -1, right]
    out[:, -1, :, up] += edges[2] * x[:, 0, :, up]
    out[:, 0, :, down] += edges[3] * x[:, -1, :, down]
    return out
