"""The desk of a worker in another process or on another machine: work is put there, and what it has to tell."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from restore_cli.errors import WeightsError
from restore_cli.image.picture import Header
from restore_cli.jobs.model_cache import Bench
from restore_cli.jobs.paths import Asked
from restore_cli.jobs.types import Job, Result, Step, Watch, Work
from restore_cli.models.processor import keep_freed_memory, use_granted_cores

if TYPE_CHECKING:
    from restore_cli.models.network import Network

__all__ = ["Begun", "Desk", "Died", "Fetched", "Loaded", "Noted", "Ready", "Refused", "Said", "Tiles", "sent"]

OFTEN = 0.1
"""seconds between two words on the tiles of a picture, and between two looks for work"""


@dataclass(frozen=True, slots=True)
class Ready:
    """It can take work."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Work on an input begins."""

    input: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the picture at hand is restored with."""

    model: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Tiles:
    """How far the picture at hand is."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that a person should know."""

    text: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """A call of Progress: start, advance, finish or passed_over."""

    call: str
    args: tuple[str | int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing can be restored, here or elsewhere."""

    error: WeightsError


@dataclass(frozen=True, slots=True)
class Died:
    """It has met what it cannot go on after."""

    reason: str


Said = Ready | Begun | Loaded | Tiles | Noted | Fetched | Refused | Died | Result


class TellingBench(Bench):
    """One that tells what each picture is restored with."""

    tell: Callable[[Said], None]

    def model(self, header: Header) -> tuple[str, Network]:
        """As ever."""
        name, network = super().model(header)
        self.tell(Loaded(name, self.sha256(name)))
        return name, network


class Desk:
    """Where one worker sits: its own models, its own threads, no inputs but those that are put there."""

    def __init__(self, job: Job, tell: Callable[[Said], None], threads: int) -> None:
        """`tell` is called from the thread that works; `threads` is how many the CPU's models may use."""
        self.tell, self.threads = tell, threads
        self.bench = TellingBench(job, Watch(self, lambda text: tell(Noted(text)), None, self.begin, self.tile))
        self.bench.tell = tell
        self.works: SimpleQueue[Work] = SimpleQueue()
        self.held = 0
        self.told = 0.0

    def work(self) -> None:
        """Until the process ends. What goes wrong beyond one picture is told, and ends it."""
        try:
            import torch

            from restore_cli.jobs.workers.worker import Worker

            keep_freed_memory()
            use_granted_cores()
            torch.set_num_threads(min(self.threads, torch.get_num_threads()))
            self.tell(Ready())
            for result in Worker(self.bench).results(self.steps()):
                self.held -= 1
                self.tell(result)
        except WeightsError as error:
            self.tell(Refused(error))
        except Exception as error:  # a device that answers no more, say: another process may have a better one
            if os.environ.get("RESTORE_DEBUG") == "1":
                traceback.print_exc()
            lines = str(error).splitlines() or [""]
            self.tell(Died(f"{type(error).__name__}: {lines[0][:200]}"))

    def steps(self) -> Iterator[Step]:
        """What was put on the desk; waits for it only where nothing is in hand."""
        while True:
            try:
                work = self.works.get(timeout=0 if self.held else OFTEN)
            except Empty:
                yield None
            else:
                self.held += 1
                yield work

    def begin(self, path: str) -> None:
        """Told at once."""
        self.told = 0.0
        self.tell(Begun(path))

    def tile(self, done: int, total: int) -> None:
        """Told now and then."""
        now = time.monotonic()
        if done == total or now - self.told >= OFTEN:
            self.told = now
            self.tell(Tiles(done, total))

    def start(self, name: str, total: int | None) -> None:
        """A download begins."""
        self.tell(Fetched("start", (name, total)))

    def advance(self, n: int) -> None:
        """It goes on."""
        self.tell(Fetched("advance", (n,)))

    def finish(self) -> None:
        """It ends."""
        self.tell(Fetched("finish"))

    def passed_over(self, name: str, why: str) -> None:
        """A source failed, and the next one is tried."""
        self.tell(Fetched("passed_over", (name, why)))


def sent(job: Job, device: str) -> Job:
    """The job as a worker needs it: for one device, without the inputs, which may be a list of a million."""
    return replace(job, asked=Asked(), device=device, cluster=None)
