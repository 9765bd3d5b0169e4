"""How tasks are shared out, with workers that only say what a test lets them say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from restore_cli.jobs.events import PictureFinished, ignore_event
from restore_cli.jobs.types import Job, ModelOptions, Result, Task
from restore_cli.jobs.workers.dispatcher import Dispatcher, WorkerHandle
from restore_cli.jobs.workers.loop import Died, Message, Ready
from restore_cli.weights.catalogue import Catalogue, Request


class Handle(WorkerHandle):
    """A worker that keeps the inputs that it gets."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.inputs: list[str] = []

    def assign(self, task: Task) -> None:
        self.inputs.append(task.input)


class Backend:
    """Three workers. Each call of `receive` returns the next messages."""

    max_failed_starts = 1

    def __init__(self, *rounds: Sequence[tuple[int, Message]]) -> None:
        self.rounds, self.handles = iter(rounds), [Handle("a"), Handle("b"), Handle("c")]

    def start(self) -> list[WorkerHandle]:
        return list(self.handles)

    def restart(self, worker: WorkerHandle, failed_starts: int) -> WorkerHandle:
        raise AssertionError

    def receive(self, workers: Sequence[WorkerHandle], seconds: float) -> Iterator[tuple[WorkerHandle, Message]]:
        for number, message in next(self.rounds):
            yield self.handles[number], message

    def close(self, workers: Sequence[WorkerHandle]) -> None:
        """Nothing has to end."""


def test_a_quarantined_task_does_not_start_after_a_request_to_stop() -> None:
    done = PictureFinished(Result("2.png", "out/2.png", "done"))
    ready = [(number, Ready()) for number in range(3)]
    backend = Backend(ready, [], [(0, Died("killed"))], [], [(1, done)])
    stopped: list[bool] = []

    def tasks() -> Iterator[Task]:
        yield Task("1.png", "out/1.png")
        yield Task("2.png", "out/2.png")
        stopped.append(True)

    job = Job(ModelOptions(Request("denoise"), Catalogue((), {})))
    results = list(Dispatcher(backend, job, ignore_event, lambda: bool(stopped)).results(tasks()))
    assert [result.input for result in results] == ["2.png"]
    assert [handle.inputs for handle in backend.handles] == [["1.png"], ["2.png"], []]
