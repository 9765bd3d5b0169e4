"""Process-wide settings that several threads change at the same time and restore together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from types import TracebackType

__all__ = ["NO_WARNINGS", "SharedContext"]


class SharedContext:
    """A context manager that all threads share: the first to enter changes the setting, the last to leave restores it.

    With a context of its own, a thread could read the value that another has set and later restore that one, so the
    process would keep it forever.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        """Share the contexts that `make` returns: a new one each time that the first thread enters."""
        self.make, self.lock, self.inside, self.entered = make, Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        """Enter the context if no thread is inside."""
        with self.lock:
            if not self.inside:
                self.entered.enter_context(self.make())
            self.inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the context if no other thread is inside."""
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.entered.close()


@contextmanager
def ignored_warnings() -> Iterator[None]:
    """Ignore every warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


NO_WARNINGS = SharedContext(ignored_warnings)
"""Ignores warnings in all threads. All code that ignores warnings uses this one: the filters are process-wide."""
