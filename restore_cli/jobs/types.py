"""What was asked for, what is to be done, and what became of it: the words that pass between those who do it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from restore_cli.errors import RestoreError
from restore_cli.image.source import MAX_PIXELS
from restore_cli.jobs.paths import Asked, PassedOver
from restore_cli.pipeline.output import OutputOptions
from restore_cli.weights.catalogue import Catalogue, Request
from restore_cli.weights.fetch import Progress

__all__ = ["Crew", "Job", "Result", "Step", "Watch", "Work", "warnings_as_notes"]


@dataclass(frozen=True)
class Job:
    """Everything that was asked for."""

    request: Request
    catalogue: Catalogue
    asked: Asked = field(default_factory=Asked)
    output: str | None = None
    """a file, a folder, a template, or None for beside the input"""
    weights: Path | None = None
    """a checkpoint file instead of a catalogue entry"""
    device: str = "auto"
    """or several with commas between them, or all"""
    cluster: str | None = None
    """the address of a Ray cluster, or auto"""
    workers: int | None = None
    """on the cluster; None for as many as it has room for"""
    gpus_per_worker: float | None = None
    """on the cluster; None for one where it has any"""
    precision: str = "auto"
    tile: int | None = None
    overlap: int | None = None
    batch: int | None = None
    compile: bool = False
    """whether to try PyTorch's compiler"""
    memory: int | None = None
    """bytes that a model may take on its device; None for most of what is at hand"""
    again: str = "resume"
    """what to do with outputs that are there: resume, skip-existing or overwrite"""
    shard: tuple[int, int] | None = None
    """(I, N): only the I-th of N parts of the inputs, counted from 1"""
    hash: bool = False
    """inputs are told apart by their sha256, not by the time of their last change"""
    keep_times: bool = False
    """outputs get their inputs' time of last change"""
    fail_fast: bool = False
    watch: bool = False
    """to go on with what appears in the folders, until stopped"""
    offline: bool = False
    format: str | None = None
    """a value of SUFFIXES; None for the input's"""
    frame: int | None = None
    """counted from 1; None for every one"""
    jpeg_quality: int | None = None
    max_pixels: int = MAX_PIXELS
    output_options: OutputOptions = field(default_factory=OutputOptions)

    @property
    def several_devices(self) -> bool:
        """Whether more than one of this machine may be meant."""
        return self.device == "all" or "," in self.device

    @property
    def elsewhere(self) -> bool:
        """Whether other processes restore."""
        return self.cluster is not None or self.several_devices


@dataclass(frozen=True, slots=True)
class Work:
    """One picture that is to be restored, and the file that its result will take the place of, if any."""

    input: str
    output: str
    replaces: tuple[int, int] | None = None
    """(bytes, time of last change in ns)"""


@dataclass(slots=True)
class Result:
    """What became of one input. Small: it travels between processes and machines."""

    input: str
    output: str
    status: str
    """done, skipped or failed"""
    model: str | None = None
    """the catalogue entry, or the checkpoint file"""
    sha256: str | None = None
    """of the checkpoint"""
    seconds: float = 0.0
    size: tuple[int, int] | None = None
    """(width, height) of the output, px"""
    pixels: int = 0
    """of the input"""
    tile: int | None = None
    """side of the tiles that went through, px"""
    precision: str | None = None
    """fp32, fp16 or bf16"""
    notes: tuple[str, ...] = ()
    error: RestoreError | None = None


@dataclass
class Watch:
    """Who wants to know while it happens."""

    progress: Progress | None = None
    """of downloads"""
    on_note: Callable[[str], None] = lambda text: None
    """something that a person should know, once"""
    on_total: Callable[[int], None] | None = None
    """how many inputs there are, once that is known; None where nobody asks, because counting takes a while"""
    on_picture: Callable[[str], None] = lambda path: None
    """work on an input begins"""
    on_tile: Callable[[int, int], None] = lambda done, total: None
    """so many tiles of the picture at hand are restored"""
    passed: PassedOver = field(default_factory=PassedOver)
    """filled while folders are read"""
    stopping: Callable[[], bool] = lambda: False
    """whether to take up no more pictures"""


class Notes(logging.Handler):
    """Passes on what modules log."""

    def __init__(self, on_note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.on_note = on_note

    def emit(self, record: logging.LogRecord) -> None:
        """As a note."""
        self.on_note(record.getMessage())


@contextmanager
def warnings_as_notes(on_note: Callable[[str], None]) -> Iterator[None]:
    """Make notes of the warnings that this package logs while the block runs."""
    logger, handler = logging.getLogger("restore_cli"), Notes(on_note)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


Step = Work | Result | None
"""Work to do; or a Result that needs none, to be passed on; or None: nothing at the moment, ask again."""


class Crew(Protocol):
    """Those who restore: threads of this process, several processes, or a cluster."""

    def results(self, steps: Iterator[Step]) -> Iterator[Result]:
        """One Result for every Work and every Result of `steps`, which are taken a few at a time.

        Raises WeightsError, without which no picture can be restored.
        """
