"""One picture whose rows are read on demand, from a file or from memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from restore_cli.image.picture import Header, Metadata
from restore_cli.image.rows import FetchRows, RowReader, read_blocks

__all__ = ["OpenRows", "PictureSource"]

OpenRows = Callable[[], FetchRows]


@dataclass(frozen=True)
class PictureSource:
    """One picture. Its rows are (n, w, c), upright, alpha last, colours not premultiplied."""

    name: str
    """of the file, for messages"""
    header: Header
    metadata: Metadata
    opener: OpenRows

    def open_rows(self) -> RowReader:
        """Start reading at the first row. Raises ImageError, also from the reader when it reaches damaged data."""
        return RowReader(self.opener(), self.header.height, self.header.width)

    @property
    def nbytes(self) -> int:
        """The size of all samples, decoded."""
        header = self.header
        return header.width * header.height * (header.channels + header.alpha) * header.depth // 8

    def preload(self) -> PictureSource:
        """Return the same picture with all rows decoded in memory. Raises ImageError."""
        parts = list(read_blocks(self.open_rows(), self.header.width * 4))
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return replace(self, opener=lambda: lambda top, bottom: samples[top:bottom])
