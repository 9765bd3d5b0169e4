"""How far a download is, and that it is no larger than it may be."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.entry import Entry

__all__ = ["Progress", "Silent", "WrongSize", "bar_class", "refuse_size"]

LIMIT = 2 * 2**30
"""bytes that a file of unknown size may have"""


class WrongSize(WeightsUnavailable):
    """A source whose file cannot be the one that is meant, by its size alone."""


class Progress(Protocol):
    """Who wants to know how far a download is."""

    def start(self, name: str, total: int | None) -> None:
        """A transfer begins; `total` bytes, where known. Once per source that is tried."""

    def advance(self, n: int) -> None:
        """`n` more bytes are here; negative where the server made us begin again."""

    def finish(self) -> None:
        """The transfer ended, well or not."""

    def passed_over(self, name: str, why: str) -> None:
        """A source of `name` failed, `why` names it, and the next one is tried."""


class Silent:
    """Nobody wants to know."""

    def start(self, name: str, total: int | None) -> None: ...

    def advance(self, n: int) -> None: ...

    def finish(self) -> None: ...

    def passed_over(self, name: str, why: str) -> None: ...


def refuse_size(entry: Entry, size: int | None) -> None:
    """Before anything is stored: a size that the file cannot have is refused."""
    if size is not None and size != (entry.bytes or size):
        raise WrongSize(f"offers {size} bytes, not {entry.bytes}")
    if size is not None and size > LIMIT:
        raise WrongSize(f"offers {size} bytes, more than {LIMIT}")


def bar_class(entry: Entry, progress: Progress) -> type[Any]:
    """A class that the hub's library takes for a tqdm bar: it reports to `progress`, draws nothing, and stops a stream
    that is longer than the file can be.
    """

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
            if self.n > (entry.bytes or LIMIT):
                raise WrongSize(f"sent more than {entry.bytes or LIMIT} bytes")
            progress.advance(int(n))

        def update_transfer(self, n: float = 1) -> None:
            """Bytes on the wire, which `update` counts already."""

        def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
            """Drawn by nobody."""

        def refresh(self) -> None:
            """Drawn by nobody."""

        def close(self) -> None:
            progress.finish()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None:
            self.close()

    return Bar
