"""The loop of a worker in another process or on another machine: it takes tasks from a queue and sends messages."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from restore_cli.errors import WeightsError
from restore_cli.jobs.events import Event, PictureFinished, PictureStarted, TileDone
from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.types import Job, PlanItem, Task
from restore_cli.models.processor import keep_freed_memory, use_granted_cores

__all__ = ["Died", "Message", "Ready", "Refused", "WorkerLoop", "make_worker_job"]

REPORT_SECONDS = 0.1
"""shortest time between two reports of finished tiles, and longest time to wait for a task"""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker can take tasks."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No worker can restore anything, because the checkpoint cannot be used."""

    error: WeightsError


@dataclass(frozen=True, slots=True)
class Died:
    """The worker has ended. This is its last message."""

    reason: str


Message = Ready | Refused | Died | Event


class WorkerLoop:
    """Restores the tasks of its queue with models and threads of its own."""

    def __init__(self, job: Job, send: Callable[[Message], None], threads: int) -> None:
        """`send` is called from the thread of `run` and must be thread-safe. `threads` limits PyTorch on a CPU."""
        self.send, self.threads = send, threads
        self.job, self.models = job, ModelCache(job.model, self.report)
        self.tasks: SimpleQueue[Task] = SimpleQueue()
        self.unfinished = 0
        self.last_report = 0.0

    def run(self) -> None:
        """Restore tasks until the process ends. An error that is not about one image is sent and ends the loop."""
        try:
            import torch

            from restore_cli.jobs.workers.worker import Worker

            keep_freed_memory()
            use_granted_cores()
            torch.set_num_threads(min(self.threads, torch.get_num_threads()))
            self.send(Ready())
            for result in Worker(self.job, self.models).results(self.items()):
                self.unfinished -= 1
                self.send(PictureFinished(result))
        except WeightsError as error:
            self.send(Refused(error))
        except Exception as error:  # for example a device that has failed: another worker may have a better one
            if os.environ.get("RESTORE_DEBUG") == "1":
                traceback.print_exc()
            lines = str(error).splitlines() or [""]
            self.send(Died(f"{type(error).__name__}: {lines[0][:200]}"))

    def items(self) -> Iterator[PlanItem]:
        """Yield the tasks of the queue. Wait for a task only if no other one is unfinished."""
        while True:
            try:
                task = self.tasks.get(timeout=0 if self.unfinished else REPORT_SECONDS)
            except Empty:
                yield None
            else:
                self.unfinished += 1
                yield task

    def report(self, event: Event) -> None:
        """Send an event, but finished tiles only every REPORT_SECONDS."""
        if isinstance(event, PictureStarted):
            self.last_report = 0.0
        elif isinstance(event, TileDone):
            now = time.monotonic()
            if event.done < event.total and now - self.last_report < REPORT_SECONDS:
                return
            self.last_report = now
        self.send(event)


def make_worker_job(job: Job, device: str) -> Job:
    """Return the job for a worker on one device, without the inputs: they may be a list of a million paths."""
    model, run = replace(job.model, device=device), replace(job.run, cluster=None)
    return replace(job, inputs=InputSpec(), model=model, run=run)
