"""Workers on a Ray cluster: one actor for each. Actors get paths and send messages; pixels stay on their machine."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from restore_cli.errors import INSTALL_EXTRA, UsageError
from restore_cli.jobs.events import Note, OnEvent, PictureFinished, PictureStarted
from restore_cli.jobs.paths import is_remote
from restore_cli.jobs.types import Job, Task
from restore_cli.jobs.workers.dispatcher import WorkerHandle
from restore_cli.jobs.workers.loop import Died, Message, Ready, Refused, WorkerLoop, make_worker_job

__all__ = ["RayBackend", "check_cluster"]

HEARTBEAT_SECONDS = 1.0
"""longest time until an actor returns its messages"""
WAIT_NOTICE_SECONDS = 30.0
"""time until the user is told that the cluster has no room"""
CONNECT_SECONDS = 5.0
"""time that the cluster gets to accept a connection"""
DEVICES = ("auto", "cpu", "cuda")


def check_cluster(job: Job) -> None:
    """Raise UsageError for options that no cluster supports, or if Ray is not installed."""
    if find_spec("ray") is None:
        raise UsageError("--cluster needs Ray, which is not installed", hint=INSTALL_EXTRA.format("cluster"))
    if job.model.device not in DEVICES:
        line = f"--device {job.model.device}: on a cluster Ray chooses the devices"
        raise UsageError(line, hint="--gpus-per-worker 1")


class RayWorker:
    """The actor: a WorkerLoop in a thread."""

    def __init__(self, job: Job, threads: int) -> None:
        self.messages: SimpleQueue[Message] = SimpleQueue()
        self.loop = WorkerLoop(job, self.messages.put, threads)
        threading.Thread(target=self.loop.run, daemon=True).start()

    def exchange(self, tasks: list[Task]) -> list[Message]:
        """Take tasks, and return messages: as soon as an image is finished, or after HEARTBEAT_SECONDS."""
        for task in tasks:
            self.loop.tasks.put(task)
        ready: list[Message] = []
        until = time.monotonic() + HEARTBEAT_SECONDS
        with suppress(Empty):  # raised when the time is over, or when there are no more messages
            while not (ready and isinstance(ready[-1], PictureFinished | Ready | Refused | Died)):
                ready.append(self.messages.get(timeout=max(0.0, until - time.monotonic())))
            while True:
                ready.append(self.messages.get_nowait())
        return ready


class RayHandle(WorkerHandle):
    """A worker on the cluster."""

    def __init__(self, actor: Any, number: int, failed_starts: int = 0) -> None:  # noqa: ANN401  # Ray's handle of a RayWorker
        super().__init__(f"worker {number} of the cluster", failed_starts)
        self.actor, self.number = actor, number
        self.outbox: list[Task] = []
        """tasks to send with the next call"""
        self.call: Any = None
        """the running call of `exchange`, if there is one"""
        self.original_paths: dict[str, str] = {}
        """the paths that the user typed, by the absolute paths that the actor gets"""

    def assign(self, task: Task) -> None:
        """Send absolute paths, because an actor has its own working directory."""
        there = replace(task, input=make_absolute(task.input), output=make_absolute(task.output))
        self.original_paths |= {there.input: task.input, there.output: task.output}
        self.outbox.append(there)

    def pending_call(self) -> Any:  # noqa: ANN401  # Ray's reference to the answer
        """Return the running call. If there is none, start one with the tasks of the outbox."""
        if self.call is None:
            self.call = self.actor.exchange.remote(self.outbox)
            self.outbox = []
        return self.call

    def translate(self, message: Message) -> Message:
        """Return the message with the paths that the user typed."""
        if isinstance(message, PictureStarted):
            return PictureStarted(self.original_paths[message.input])
        if isinstance(message, PictureFinished):
            result, paths = message.result, self.original_paths
            return PictureFinished(replace(result, input=paths.pop(result.input), output=paths.pop(result.output)))
        return message


class RayBackend:
    """Starts actors on a Ray cluster."""

    max_failed_starts = 3

    def __init__(self, job: Job, on_event: OnEvent) -> None:
        """Connect to the cluster. Raises UsageError if there is none, or if it has no room for a worker."""
        self.on_event, self.started = on_event, time.monotonic()
        self.ray, self.connected_here = connect(job.run.cluster or "auto")
        own = None if job.model.weights is None else job.model.weights.absolute()
        job = make_worker_job(job, job.model.device)
        self.job = replace(job, model=replace(job.model, weights=own))
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.count, self.needs = plan_workers(job, nodes)
        self.notice_given = False

    def start(self) -> list[WorkerHandle]:
        return [self.start_worker(number) for number in range(1, self.count + 1)]

    def start_worker(self, number: int, failed_starts: int = 0) -> WorkerHandle:
        kind = self.ray.remote(RayWorker).options(**self.needs, max_restarts=0, scheduling_strategy="SPREAD")
        return RayHandle(kind.remote(self.job, max(1, int(self.needs["num_cpus"]))), number, failed_starts)

    def restart(self, worker: WorkerHandle, failed_starts: int) -> WorkerHandle:
        assert isinstance(worker, RayHandle)
        return self.start_worker(worker.number, failed_starts)

    def receive(self, workers: Sequence[WorkerHandle], seconds: float) -> Iterator[tuple[WorkerHandle, Message]]:
        calls = {worker.pending_call(): worker for worker in workers if isinstance(worker, RayHandle)}
        if self.ray.wait(list(calls), timeout=seconds)[0]:
            for call in self.ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]:
                for message in self.read_messages(calls[call]):
                    yield calls[call], message
            return
        is_late = time.monotonic() > self.started + WAIT_NOTICE_SECONDS
        if is_late and not self.notice_given and not any(worker.is_ready for worker in workers):
            self.notice_given = True
            needs = " and ".join(f"{value:g} {name[4:-1].upper()}" for name, value in self.needs.items() if value)
            self.on_event(Note(f"the cluster has no room yet for a worker of {needs}: waiting"))

    def read_messages(self, worker: RayHandle) -> Iterator[Message]:
        """Yield the messages that a call has returned. Died is the last one if the actor has ended."""
        try:
            messages = self.ray.get(worker.call)
        except self.ray.exceptions.ActorUnavailableError:
            messages = [Died("it does not answer")]
        except self.ray.exceptions.RayError as error:
            messages = [Died(describe_ray_error(error))]
        worker.call = None
        for message in messages:
            if isinstance(message, Died):
                self.stop_worker(worker)
            yield worker.translate(message)

    def stop_worker(self, worker: RayHandle) -> None:
        with suppress(self.ray.exceptions.RayError, ValueError):
            self.ray.kill(worker.actor)

    def close(self, workers: Sequence[WorkerHandle]) -> None:
        """Stop all actors. Disconnect if this job has connected."""
        for worker in workers:
            if isinstance(worker, RayHandle):
                self.stop_worker(worker)
        if self.connected_here:
            self.ray.shutdown()


def make_absolute(path: str) -> str:
    """Return an absolute path with its links: they may have other targets on other machines."""
    return path if is_remote(path) else str(Path(path).absolute())


def connect(requested: str) -> tuple[Any, bool]:
    """Return Ray, connected to the cluster, and whether this call has connected it. Raises UsageError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    import ray

    if ray.is_initialized():
        return ray, False
    # raylets would write to our standard output; the dispatcher reports workers that die
    ray._private.worker._worker_logs_enabled = False
    address = find_address(requested, ray)
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
        raise UsageError(f"--cluster {requested}: {describe_ray_error(error)}", hint="ray status") from None
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray has replaced the handlers of the command
            for number, handler in kept.items():
                signal.signal(number, handler)
    return ray, True


def find_address(requested: str, ray: Any) -> str:  # noqa: ANN401  # the module
    """Return the address of the cluster: for `auto` RAY_ADDRESS, the cluster of this machine, or a new local one.

    Raises UsageError if the cluster does not answer. Ray itself would try for two minutes.
    """
    named = os.environ.get("RAY_ADDRESS", "auto") if requested == "auto" else requested
    if named in ("", "auto"):
        left: str | None = ray._private.utils.read_ray_address()  # of a cluster that may have ended
        return left if left and is_reachable(left) else "local"
    if named != "local" and not is_reachable(named):
        raise UsageError(f"--cluster {requested}: nothing answers at {named}", hint="ray status --address HOST:PORT")
    return named


def is_reachable(address: str) -> bool:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def plan_workers(job: Job, nodes: Sequence[Mapping[str, float]]) -> tuple[int, dict[str, float]]:
    """Return the number of workers and the resources of each. Raises UsageError if none has room."""
    gpus, cpus = ([node.get(name, 0.0) for node in nodes] for name in ("GPU", "CPU"))
    share = job.run.gpus_per_worker
    if share is None:
        share = 1.0 if any(gpus) and job.model.device != "cpu" else 0.0
    if share:
        needs = {"num_gpus": share, "num_cpus": 0.0}  # no CPUs, so that a GPU is never idle because they are taken
        count = job.run.workers or count_slots(gpus, share)
    else:
        count = job.run.workers or count_slots(cpus, 1)
        most = max(1, int(sum(cpus)) // max(1, count))
        needs = {"num_cpus": float(next((n for n in range(most, 1, -1) if count_slots(cpus, n) >= count), 1))}
    if not count:
        raise UsageError("the cluster has no room for a worker now", hint="--workers N, if machines will join it")
    return count, needs


def count_slots(nodes: Sequence[float], share: float) -> int:
    """Return how many workers fit. Each runs on one machine."""
    return sum(int(node / share + 1e-6) for node in nodes)


def describe_ray_error(error: Exception) -> str:
    """Return one line: the first line of a Ray error says what failed, the last one why."""
    plain = re.sub("\x1b\\[[0-9;]*m", "", str(error))  # Ray adds colours
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or [type(error).__name__]
    return " … ".join(dict.fromkeys((lines[0][:200], lines[-1][:200])))
