"""Opens image files: header and metadata at once, rows on demand and any number of times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import IO

import pyvips

from restore_cli.errors import ImageError, RestoreError
from restore_cli.image.formats import vips
from restore_cli.image.formats.openers import OPENERS, OpenRequest, open_with_pillow
from restore_cli.image.formats.pillow import pillow_settings
from restore_cli.image.formats.sniff import detect_format
from restore_cli.image.picture import Samples
from restore_cli.image.picture_source import OpenRows, PictureSource
from restore_cli.image.reasons import (
    UnreadableImage,
    UnsupportedImage,
    describe_os_error,
    join_lines,
    suggest_command,
)
from restore_cli.image.rows import FetchRows
from restore_cli.limits import MAX_PIXELS

__all__ = ["open_source"]


def open_source(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> PictureSource:
    """Read the header and metadata of one picture of a file. `frame` counts from 0.

    The content decides the format, not the name. Raises ImageError.
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
    return PictureSource(name, header, metadata, guard_opener(name, opener))


def guard_opener(name: str, opener: OpenRows) -> OpenRows:
    """Return an opener whose errors, and those of its reader, are ImageErrors."""

    def open_rows() -> FetchRows:
        with raise_image_errors(name):
            fetch = opener()

        def fetch_guarded(top: int, bottom: int) -> Samples:
            with raise_image_errors(name):
                return fetch(top, bottom)

        return fetch_guarded

    return open_rows


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
