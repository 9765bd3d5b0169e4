"""What happens during a run, as immutable objects that workers send to the main process unchanged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from restore_cli.weights.progress import DownloadEvent

if TYPE_CHECKING:  # commands import this module before they know whether they need numpy
    from restore_cli.jobs.types import Result

__all__ = [
    "Event",
    "InputsCounted",
    "ModelLoaded",
    "Note",
    "OnEvent",
    "PictureFinished",
    "PictureStarted",
    "StopRequested",
    "TileDone",
    "ignore_event",
    "report_warnings",
]


@dataclass(frozen=True, slots=True)
class InputsCounted:
    """All inputs have been counted."""

    count: int


@dataclass(frozen=True, slots=True)
class Note:
    """Information for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class PictureStarted:
    """The restoration of an input has started."""

    input: str


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The input that started last, and those after it, are restored with this model."""

    name: str
    """of the catalogue entry or the checkpoint file"""
    sha256: str
    """of the checkpoint file"""


@dataclass(frozen=True, slots=True)
class TileDone:
    """`done` of `total` tiles of the current picture are restored."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class PictureFinished:
    """An input is done, skipped or failed."""

    result: Result


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The user asked to stop. The run ends when the images in progress are finished."""

    in_flight: int


Event = DownloadEvent | InputsCounted | Note | PictureStarted | ModelLoaded | TileDone | PictureFinished | StopRequested
OnEvent = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Do nothing: the default of functions that report events."""


class NoteHandler(logging.Handler):
    """Reports log records as notes."""

    def __init__(self, on_event: OnEvent) -> None:
        super().__init__(logging.WARNING)
        self.on_event = on_event

    def emit(self, record: logging.LogRecord) -> None:
        self.on_event(Note(record.getMessage()))


@contextmanager
def report_warnings(on_event: OnEvent) -> Iterator[None]:
    """Report the warnings that this package logs as notes while the block runs."""
    logger, handler = logging.getLogger("restore_cli"), NoteHandler(on_event)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
