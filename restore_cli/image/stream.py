"""A picture on its way into a file: rows from top to bottom, finished and quantised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from restore_cli.image.picture import Metadata, Picture, Samples

__all__ = ["PixelStream", "stream_picture"]


@dataclass
class PixelStream:
    """`blocks` are (n, width, channels) of `dtype`, `height` rows in all; with `alpha` the last channel is it."""

    width: int
    height: int
    channels: int
    """1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha"""
    dtype: np.dtype[Any]
    blocks: Iterator[Samples]
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def alpha(self) -> bool:
        """Whether the last channel is transparency."""
        return self.channels in (2, 4)

    @property
    def nbytes(self) -> int:
        """Of its samples."""
        return self.width * self.height * self.channels * self.dtype.itemsize


def stream_picture(picture: Picture, rows: int = 256) -> PixelStream:
    """The picture in blocks of rows."""
    alpha = picture.alpha

    def blocks() -> Iterator[Samples]:
        for top in range(0, picture.height, rows):
            part = picture.pixels[top : top + rows]
            yield part if alpha is None else np.concatenate([part, alpha[top : top + rows, :, None]], 2)

    channels = picture.channels + (alpha is not None)
    return PixelStream(picture.width, picture.height, channels, picture.pixels.dtype, blocks(), picture.metadata)
