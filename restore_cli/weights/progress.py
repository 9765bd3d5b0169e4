"""Reports the progress of downloads, and stops those that are too large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.entry import Entry

__all__ = [
    "DownloadEvent",
    "DownloadFinished",
    "DownloadProgress",
    "DownloadStarted",
    "OnDownload",
    "SourceFailed",
    "WrongSize",
    "ignore_download",
    "make_bar_class",
    "refuse_size",
]

MAX_BYTES = 2 * 2**30
"""of a file whose size the catalogue does not state"""


class WrongSize(WeightsUnavailable):
    """A file whose size is not that of the catalogue, or above the limit."""


@dataclass(frozen=True, slots=True)
class DownloadStarted:
    """The download of a checkpoint has started. Each source that is tried starts a new one."""

    name: str
    total: int | None
    """bytes; None if the source does not say"""


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """More bytes of the current download are on disk."""

    bytes: int
    """negative if the server made the download start again"""


@dataclass(frozen=True, slots=True)
class DownloadFinished:
    """The current download has ended, successfully or not."""


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """One source of a checkpoint failed. The next source is tried."""

    name: str
    reason: str


DownloadEvent = DownloadStarted | DownloadProgress | DownloadFinished | SourceFailed
OnDownload = Callable[[DownloadEvent], None]


def ignore_download(event: DownloadEvent) -> None:
    """Do nothing: the default of functions that report downloads."""


def refuse_size(entry: Entry, size: int | None) -> None:
    """Raise WrongSize if the file cannot have that size. None is an unknown size."""
    if size is not None and size != (entry.bytes or size):
        raise WrongSize(f"offers {size} bytes, not {entry.bytes}")
    if size is not None and size > MAX_BYTES:
        raise WrongSize(f"offers {size} bytes, more than {MAX_BYTES}")


def make_bar_class(entry: Entry, on_event: OnDownload) -> type[Any]:
    """Return a class like tqdm that reports to `on_event`, draws nothing, and raises WrongSize for too many bytes."""

    class Bar:
        format_dict: ClassVar[dict[str, object]] = {}

        def __init__(self, *, total: float | None = None, initial: int = 0, **_looks: object) -> None:
            self.total = None if total is None else int(total)
            refuse_size(entry, self.total)
            self.n = 0
            on_event(DownloadStarted(entry.name, self.total))
            self.update(initial)

        def update(self, n: float = 1) -> None:
            self.n += int(n)
            if self.n > (entry.bytes or MAX_BYTES):
                raise WrongSize(f"sent more than {entry.bytes or MAX_BYTES} bytes")
            on_event(DownloadProgress(int(n)))

        def update_transfer(self, n: float = 1) -> None:
            """Transferred bytes, which `update` has counted."""

        def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
            """Part of the interface of tqdm."""

        def refresh(self) -> None:
            """Part of the interface of tqdm."""

        def close(self) -> None:
            on_event(DownloadFinished())

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None:
            self.close()

    return Bar
