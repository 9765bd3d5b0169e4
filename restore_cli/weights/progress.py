"""Reports the progress of downloads, and stops those that are too large."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.entry import Entry

__all__ = ["NoProgress", "Progress", "WrongSize", "make_bar_class", "refuse_size"]

MAX_BYTES = 2 * 2**30
"""of a file whose size the catalogue does not state"""


class WrongSize(WeightsUnavailable):
    """A file whose size is not that of the catalogue, or above the limit."""


class Progress(Protocol):
    """Receives the progress of a download."""

    def start(self, name: str, total: int | None) -> None:
        """A download from one source begins. It has `total` bytes, or an unknown number."""

    def advance(self, n: int) -> None:
        """`n` more bytes are on disk. `n` is negative if the server starts again from the beginning."""

    def finish(self) -> None:
        """The download ended, with or without success."""

    def report_failure(self, name: str, why: str) -> None:
        """A source of `name` failed, and the next one is tried. `why` has the source and the reason."""


class NoProgress:
    """Ignores the progress."""

    def start(self, name: str, total: int | None) -> None: ...

    def advance(self, n: int) -> None: ...

    def finish(self) -> None: ...

    def report_failure(self, name: str, why: str) -> None: ...


def refuse_size(entry: Entry, size: int | None) -> None:
    """Raise WrongSize if the file cannot have that size. None is an unknown size."""
    if size is not None and size != (entry.bytes or size):
        raise WrongSize(f"offers {size} bytes, not {entry.bytes}")
    if size is not None and size > MAX_BYTES:
        raise WrongSize(f"offers {size} bytes, more than {MAX_BYTES}")


def make_bar_class(entry: Entry, progress: Progress) -> type[Any]:
    """Return a class like tqdm that reports to `progress`, draws nothing, and raises WrongSize for too many bytes."""

    class Bar:
        format_dict: ClassVar[dict[str, object]] = {}

        def __init__(self, *, total: float | None = None, initial: int = 0, **_looks: object) -> None:
            self.total = None if total is None else int(total)
            refuse_size(entry, self.total)
            self.n = 0
            progress.start(entry.name, self.total)
            self.update(initial)

        def update(self, n: float = 1) -> None:
            self.n += int(n)
            if self.n > (entry.bytes or MAX_BYTES):
                raise WrongSize(f"sent more than {entry.bytes or MAX_BYTES} bytes")
            progress.advance(int(n))

        def update_transfer(self, n: float = 1) -> None:
            """Transferred bytes, which `update` has counted."""

        def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
            """Part of the interface of tqdm."""

        def refresh(self) -> None:
            """Part of the interface of tqdm."""

        def close(self) -> None:
            progress.finish()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None:
            self.close()

    return Bar
