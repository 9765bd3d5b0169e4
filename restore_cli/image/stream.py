"""A picture on its way to a writer: blocks of finished rows, from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from restore_cli.image.picture import Metadata, Picture, Samples

__all__ = ["PixelStream", "stream_picture"]


@dataclass
class PixelStream:
    """The size and type of a picture, and its rows. Iterating over `blocks` consumes them."""

    width: int
    height: int
    channels: int
    """1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha"""
    dtype: np.dtype[Any]
    blocks: Iterator[Samples]
    """(n, width, channels) of `dtype`, `height` rows in total"""
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels in (2, 4)

    @property
    def nbytes(self) -> int:
        """The size of all samples."""
        return self.width * self.height * self.channels * self.dtype.itemsize


def stream_picture(picture: Picture, rows: int = 256) -> PixelStream:
    """Return a stream of the picture in blocks of `rows` rows."""
    alpha = picture.alpha

    def make_blocks() -> Iterator[Samples]:
        for top in range(0, picture.height, rows):
            part = picture.pixels[top : top + rows]
            yield part if alpha is None else np.concatenate([part, alpha[top : top + rows, :, None]], 2)

    channels = picture.channels + (alpha is not None)
    return PixelStream(picture.width, picture.height, channels, picture.pixels.dtype, make_blocks(), picture.metadata)
