"""Image files opened for reading: header and metadata at once, rows on demand and any number of times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import IO

import numpy as np
import pyvips

from restore_cli.errors import ImageError, RestoreError
from restore_cli.image.formats import vips
from restore_cli.image.formats.openers import OPENERS, OpenRequest, OpenRows, open_with_pillow
from restore_cli.image.formats.pillow import pillow_settings
from restore_cli.image.formats.sniff import detect_format
from restore_cli.image.picture import Header, Metadata, Samples
from restore_cli.image.reasons import (
    UnreadableImage,
    UnsupportedImage,
    describe_os_error,
    join_lines,
    suggest_command,
)
from restore_cli.image.rows import RowReader, read_blocks

__all__ = ["MAX_PIXELS", "PictureSource", "open_source"]

MAX_PIXELS = 2_000_000_000


@dataclass(frozen=True)
class PictureSource:
    """One picture of a file. Its rows are (n, w, c), upright, alpha last, colours not premultiplied."""

    name: str
    """of the file, for messages"""
    header: Header
    metadata: Metadata
    opener: OpenRows

    def open_rows(self) -> RowReader:
        """Start reading at the first row. Raises: ImageError, also from the reader when it reaches damaged data."""
        with raise_image_errors(self.name):
            fetch = self.opener()

        def fetch_guarded(top: int, bottom: int) -> Samples:
            with raise_image_errors(self.name):
                return fetch(top, bottom)

        return RowReader(fetch_guarded, self.header.height, self.header.width)

    @property
    def nbytes(self) -> int:
        """The size of all samples, decoded."""
        header = self.header
        return header.width * header.height * (header.channels + header.alpha) * header.depth // 8

    def preload(self) -> PictureSource:
        """Return the same picture with all rows decoded in memory. Raises: ImageError."""
        parts = list(read_blocks(self.open_rows(), self.header.width * 4))
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return replace(self, opener=lambda: lambda top, bottom: samples[top:bottom])


def open_source(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> PictureSource:
    """Read the header and metadata of one picture of a file. `frame` counts from 0.

    The content decides the format, not the name. Raises: ImageError.
    """
    name = str(path) if isinstance(path, Path) else str(getattr(path, "name", "image"))
    with raise_image_errors(name), pillow_settings():
        file = path if isinstance(path, Path) and S_ISREG(path.stat().st_mode) else read_all(path)
        with file.open("rb") if isinstance(file, Path) else BytesIO(file) as stream:
            head = stream.read(32)
            if not head:
                raise UnreadableImage("the file is empty")
            request = OpenRequest(stream, file, detect_format(head), frame, max_pixels)
            header, metadata, opener = OPENERS.get(request.format, open_with_pillow)(request)
    return PictureSource(name, header, metadata, opener)


def read_all(path: Path | IO[bytes]) -> bytes:
    """Return the content of a stream or pipe. A pipe can be read only once."""
    if isinstance(path, Path):
        return path.read_bytes()
    if path.seekable():
        path.seek(0)
    return path.read()


@contextmanager
def raise_image_errors(name: str) -> Iterator[None]:
    """Turn every error into an ImageError of one line that begins with the file's name."""
    try:
        yield
    except RestoreError:
        raise
    except UnreadableImage as error:
        raise ImageError(f"{name}: {error}") from error
    except UnsupportedImage as error:
        raise ImageError(f"{name}: {error.what}", suggest_command(error.step, name)) from error
    except pyvips.Error as error:
        raise ImageError(f"{name}: {vips.describe_error(error)}") from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory for its pixels") from error
    except OSError as error:
        raise ImageError(f"{name}: {describe_os_error(error)}") from error
    except Exception as error:  # damaged bytes can make the parsers raise anything
        raise ImageError(f"{name}: damaged, or a variant that cannot be read ({join_lines(error)})") from error
