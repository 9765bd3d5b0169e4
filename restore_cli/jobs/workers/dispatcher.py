"""Shares tasks out among workers in other processes or on other machines, and restarts workers that die."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from restore_cli.atomic import sweep
from restore_cli.errors import RestoreError
from restore_cli.jobs.events import Event, ModelLoaded, Note, OnEvent, PictureFinished, PictureStarted, TileDone
from restore_cli.jobs.paths import copy_times, is_remote
from restore_cli.jobs.plan import read_file_state
from restore_cli.jobs.types import Job, PlanItem, Result, Stopping, Task
from restore_cli.jobs.workers.loop import Died, Message, Ready, Refused

__all__ = ["Dispatcher", "WorkerBackend", "WorkerHandle"]

MIN_TASKS, MAX_TASKS = 4, 16
"""tasks that one worker has at the same time: it decodes and encodes while its device is busy. Quick tasks need more"""
QUICK_SECONDS = 0.5
"""tasks that take less are quick"""
POLL_SECONDS = 0.1
"""time to wait for messages if there is no task now but there may be more later"""
STOP_CHECK_SECONDS = 0.5
"""time to wait for messages before checking whether to stop"""
ITEMS_PER_ROUND = 100
"""items to take from the plan before handling messages again"""


class WorkerHandle(ABC):
    """What the dispatcher knows of one worker."""

    def __init__(self, name: str, failed_starts: int = 0) -> None:
        """`failed_starts` counts the workers before it in the same place that died without finishing a task."""
        self.name, self.failed_starts = name, failed_starts
        self.tasks: dict[str, Task] = {}
        """unfinished tasks by output"""
        self.is_ready = False
        self.has_finished = False
        """whether it has finished any task"""
        self.is_isolated = False
        """whether it restores a quarantined task, and therefore gets no other one"""
        self.capacity = MIN_TASKS
        self.current_input = ""
        self.current_model = ("", "")
        """name and sha256 of the checkpoint"""
        self.models: dict[str, tuple[str, str]] = {}
        """the model of each unfinished input"""

    @abstractmethod
    def assign(self, task: Task) -> None:
        """Send a task to the worker. Neither wait nor raise: a dead worker is noticed when messages are received."""


class WorkerBackend(Protocol):
    """Starts workers and transports messages."""

    max_failed_starts: int
    """workers that may die in the same place one after the other without finishing a task"""

    def start(self) -> list[WorkerHandle]:
        """Start all workers."""

    def restart(self, worker: WorkerHandle, failed_starts: int) -> WorkerHandle:
        """Start a worker in the place of a dead one."""

    def receive(self, workers: Sequence[WorkerHandle], seconds: float) -> Iterator[tuple[WorkerHandle, Message]]:
        """Yield all messages that have arrived. Wait up to `seconds` for the first one."""

    def close(self, workers: Sequence[WorkerHandle]) -> None:
        """End all workers."""


class Dispatcher:
    """An executor whose workers run in other processes or on other machines."""

    def __init__(self, backend: WorkerBackend, job: Job, on_event: OnEvent, stopping: Stopping) -> None:
        """`stopping` returns whether to start no more tasks."""
        self.backend, self.job, self.on_event, self.stopping = backend, job, on_event, stopping
        self.workers: list[WorkerHandle] = []
        self.quarantined: deque[Task] = deque()
        """tasks on which a worker died: each is restored alone, which shows whether it was the cause"""
        self.fatal_outputs: set[str] = set()
        """outputs of all tasks on which a worker died"""
        self.notes: set[str] = set()
        self.last_started: WorkerHandle | None = None
        """the worker that started an image last: only its tiles are reported"""

    def results(self, items: Iterator[PlanItem]) -> Iterator[Result]:
        """Yield one Result for each item, in the order in which they finish. Raises RestoreError."""
        self.workers = self.backend.start()
        try:
            more = True
            while more or any(worker.tasks for worker in self.workers) or (self.quarantined and not self.stopping()):
                wait = STOP_CHECK_SECONDS
                if more:
                    more, wait = yield from self.assign_tasks(items)
                if not self.stopping():
                    self.assign_quarantined()
                yield from self.handle_messages(wait)
        finally:
            self.backend.close(self.workers)
            for folder in {Path(output).parent for output in self.fatal_outputs if not is_remote(output)}:
                sweep(folder)

    def assign_tasks(self, items: Iterator[PlanItem]) -> Generator[Result, None, tuple[bool, float]]:
        """Assign tasks to workers with room. Return whether there may be more, and the seconds to wait for messages."""
        for _ in range(ITEMS_PER_ROUND):
            if (worker := self.pick_worker()) is None:
                return True, STOP_CHECK_SECONDS
            try:
                item = next(items)
            except StopIteration:
                return False, 0.0
            if item is None:
                return True, POLL_SECONDS
            if isinstance(item, Result):
                yield item
            else:
                assign(worker, item)
        return True, 0.0

    def pick_worker(self) -> WorkerHandle | None:
        """Return the worker with the most room. While a task waits in quarantine, let one worker run out of tasks."""
        available = [worker for worker in self.workers if worker.is_ready and not worker.is_isolated]
        available.sort(key=lambda worker: len(worker.tasks))
        if self.quarantined and not any(worker.is_isolated for worker in self.workers):
            available = available[1:]
        return next((worker for worker in available if len(worker.tasks) < worker.capacity), None)

    def assign_quarantined(self) -> None:
        """Assign one quarantined task to a worker without tasks. Only one of them runs at a time."""
        idle = next((worker for worker in self.workers if worker.is_ready and not worker.tasks), None)
        if self.quarantined and idle and not any(worker.is_isolated for worker in self.workers):
            idle.is_isolated = True
            assign(idle, self.quarantined.popleft())

    def handle_messages(self, seconds: float) -> Iterator[Result]:
        """Handle what the workers have sent. Wait up to `seconds` for a message. Raises WeightsError."""
        for worker, message in self.backend.receive(self.workers, seconds):
            match message:
                case PictureFinished(result):
                    yield self.finish_task(worker, result)
                case Ready():
                    worker.is_ready = True
                case Died(reason):
                    yield from self.handle_worker_death(worker, reason)
                case Refused(error):
                    raise error
                case _:
                    self.forward(worker, message)

    def finish_task(self, worker: WorkerHandle, result: Result) -> Result:
        """Remove a finished task from its worker, and adapt the number of tasks that the worker gets."""
        task = worker.tasks.pop(result.output)
        worker.models.pop(task.input, None)
        worker.is_isolated, worker.has_finished = False, True
        change = 1 if result.seconds < QUICK_SECONDS else -1
        worker.capacity = max(MIN_TASKS, min(MAX_TASKS, worker.capacity + change))
        return result

    def forward(self, worker: WorkerHandle, event: Event) -> None:
        """Report a worker's event: each note once, and tiles only of the image that started last."""
        match event:
            case PictureStarted(path):
                self.last_started, worker.current_input = worker, path
                worker.models[path] = worker.current_model
            case ModelLoaded(name, sha256):
                worker.models[worker.current_input] = worker.current_model = name, sha256
            case TileDone() if worker is not self.last_started:
                return
            case Note(text):
                if text in self.notes:
                    return
                self.notes.add(text)
        self.on_event(event)

    def handle_worker_death(self, worker: WorkerHandle, reason: str) -> Iterator[Result]:
        """Quarantine the unfinished tasks of a dead worker, and start another worker.

        A task that was finished before the death is done. A task on which two workers died has failed.
        Raises RestoreError if this was the last worker.
        """
        self.workers.remove(worker)
        for task in worker.tasks.values():
            if (result := self.recover_result(worker, task)) is not None:
                worker.has_finished = True
                yield result
            elif task.output in self.fatal_outputs:
                error = RestoreError(f"{task.input}: a worker died while restoring it, twice: {reason}")
                yield Result(task.input, task.output, "failed", error=error)
            else:
                self.fatal_outputs.add(task.output)
                self.quarantined.append(task)
        failed_starts = 0 if worker.has_finished else worker.failed_starts + 1
        restart = failed_starts < self.backend.max_failed_starts
        if restart or self.workers:
            then = "another takes its place" if restart else f"{len(self.workers)} left"
            self.on_event(Note(f"{worker.name} died with {len(worker.tasks)} images, {reason}: {then}"))
        if restart:
            self.workers.append(self.backend.restart(worker, failed_starts))
        elif not self.workers:
            hint = "the same command again with --device cpu or a smaller --tile"
            raise RestoreError(f"no worker is left: {worker.name} died ({reason})", hint)

    def recover_result(self, worker: WorkerHandle, task: Task) -> Result | None:
        """Return the Result of a task whose worker died after writing the output. Outputs appear only when complete."""
        try:
            if read_file_state(task.output) in (None, task.replaces):
                return None
        except RestoreError:  # the server does not answer
            return None
        notes: tuple[str, ...] = ("its worker died when it was written",)
        if self.job.run.keep_times and not (is_remote(task.input) or is_remote(task.output)):
            notes += copy_times(task.input, task.output)
        model, sha256 = worker.models.get(task.input, (None, None))
        return Result(task.input, task.output, "done", model=model, sha256=sha256, notes=notes)


def assign(worker: WorkerHandle, task: Task) -> None:
    """Assign a task to a worker and remember it."""
    worker.tasks[task.output] = task
    worker.assign(task)
