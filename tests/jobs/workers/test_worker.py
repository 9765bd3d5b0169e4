"""A worker that ends early leaves neither a waiting thread nor a copy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from images import make_image, save_image
from nearest_model import NearestModel

from restore_cli.errors import ImageError, OutputError, WeightsUnavailable
from restore_cli.image.picture import Header, Samples
from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.types import Job, ModelOptions, Result, Task
from restore_cli.jobs.workers import worker as module
from restore_cli.jobs.workers.opened import OpenedTask
from restore_cli.jobs.workers.worker import Worker
from restore_cli.weights.catalogue import Catalogue, Request

JOB = Job(ModelOptions(Request("denoise"), Catalogue((), {})), InputSpec(("photos",)), "out")


class WaitingTask(Future[OpenedTask | Result]):
    """A task that no thread has taken. When it is cancelled, a thread takes the task behind it."""

    def __init__(self, worker: Worker, turn: int, behind: WaitingTask | None) -> None:
        super().__init__()
        self.worker, self.turn, self.behind = worker, turn, behind

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled and self.behind is not None and self.behind.set_running_or_notify_cancel():
            Thread(target=self.behind.open, daemon=True).start()
        return cancelled

    def open(self) -> None:
        """Do as a decoding thread."""
        self.worker.budget.acquire(self.turn, 0)
        self.set_result(Result("photos/b.png", "out/b.png", "failed"))


def test_no_thread_waits_for_the_turn_of_a_cancelled_task() -> None:
    worker = Worker(JOB, ModelCache(JOB.model))
    last = WaitingTask(worker, 1, None)
    waiting: deque[Result | Future[OpenedTask | Result]] = deque([WaitingTask(worker, 0, last), last])
    ending = Thread(target=worker.discard_waiting, args=(waiting,), daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive()


def test_an_error_of_one_task_does_not_keep_the_memory_of_the_others() -> None:
    worker = Worker(JOB, ModelCache(JOB.model))
    failed = Future[OpenedTask | Result]()
    failed.set_exception(OSError("no space left"))
    worker.discard_waiting(deque([failed]))


def test_copies_of_remote_inputs_are_removed_if_there_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = fsspec.filesystem("memory")
    store.pipe_file("/photos/a.png", save_image(tmp_path / "a.png", make_image(9, 9)).read_bytes())

    def refuse(models: ModelCache, header: Header) -> None:
        raise WeightsUnavailable("no source has it")

    monkeypatch.setattr(ModelCache, "get", refuse)
    worker = Worker(JOB, ModelCache(JOB.model))
    with pytest.raises(WeightsUnavailable):
        list(worker.results(iter([Task("memory://photos/a.png", str(tmp_path / "out" / "a.png"))])))
    store.store.clear()
    assert not list(tmp_path.glob("restore-*"))


def test_a_failure_to_write_hides_behind_no_other_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails, the copy of a remote input is removed, so its next page cannot be read."""

    def fail_to_read(*_: object) -> Iterator[Iterator[Samples]]:
        raise ImageError("a.png: no such file")
        yield

    def fail_to_write(*_: object) -> None:
        raise OutputError("out/a.png: no space left on its disk")

    monkeypatch.setattr(module, "restore_pages", fail_to_read)
    monkeypatch.setattr(module, "write_file", fail_to_write)
    monkeypatch.setattr(ModelCache, "get", lambda models, header: ("model", NearestModel()))
    monkeypatch.setattr(ModelCache, "sha256", lambda models, name: "")
    task = Task(str(save_image(tmp_path / "a.png", make_image(9, 9))), str(tmp_path / "out" / "a.png"))
    (result,) = Worker(JOB, ModelCache(JOB.model)).results(iter([task]))
    assert "no space left" in str(result.error)
