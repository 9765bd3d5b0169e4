"""Workers in processes of this machine, one for each device that is named."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import connection as connections
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from threading import Lock, Thread

from restore_cli.atomic import abandon
from restore_cli.errors import UsageError
from restore_cli.jobs.types import Job, Task
from restore_cli.jobs.workers.dispatcher import WorkerHandle
from restore_cli.jobs.workers.loop import Died, Message, WorkerLoop, make_worker_job
from restore_cli.system import block_signals, ignore_signals

__all__ = ["ProcessBackend", "list_devices"]

EXIT_SECONDS = 5.0
"""time that a process gets to end before it is killed"""


def list_devices(requested: str) -> list[str]:
    """Return the devices that --device names. Raises UsageError if one does not exist."""
    from restore_cli.models.load import pick_device

    if requested != "all":
        names = [name.strip() for name in requested.split(",")]
        if len(names) > 1:
            for name in names:
                pick_device(name)
        return names
    import torch

    if not torch.cuda.device_count():
        raise UsageError("--device all: this PyTorch sees no CUDA device", hint="--device auto")
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def share_memory(memory: int | None, device: str, sharing: int) -> int | None:
    """Return the bytes for the model of one process: `memory`, or an equal share of the free memory of its device."""
    from restore_cli.models.load import pick_device
    from restore_cli.pipeline.memory import usable_memory

    if memory is not None or sharing == 1:
        return memory
    room = usable_memory(pick_device(device))
    return room if room is None else room // sharing


class ProcessHandle(WorkerHandle):
    """A worker in a process."""

    def __init__(self, job: Job, device: str, threads: int, number: int, failed_starts: int = 0) -> None:
        super().__init__(f"worker {number} ({device})", failed_starts)
        self.device, self.number = device, number
        spawn = get_context("spawn")  # a fork would copy the state of CUDA and the locks of libvips
        self.connection, far = spawn.Pipe()
        self.process = spawn.Process(target=run_worker, args=(far, make_worker_job(job, device), threads), daemon=True)
        if os.name == "posix":
            resource_tracker.ensure_running()  # before the block, because its start unblocks signals
        with block_signals():  # until run_worker ignores them, a signal to the process group would end the process
            self.process.start()
        far.close()

    def assign(self, task: Task) -> None:
        with suppress(OSError):
            self.connection.send(task)

    def read_messages(self) -> Iterator[Message]:
        """Yield all messages that have arrived. If the process has ended, the last one is Died."""
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if isinstance(message, Died):
                    self.join()
                    yield message
                    return
                yield message
        except (EOFError, OSError):
            self.join()
            yield Died(describe_exit(self.process.exitcode))

    def join(self) -> None:
        """Wait until the process has ended, and kill it if that takes too long."""
        self.connection.close()
        self.process.join(EXIT_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class ProcessBackend:
    """Starts one process for each name in `names`."""

    max_failed_starts = 1

    def __init__(self, job: Job, names: Sequence[str]) -> None:
        from restore_cli.models.processor import count_cores

        self.names = names
        self.threads = max(1, count_cores() // len(names))
        shares = {name: share_memory(job.model.memory, name, names.count(name)) for name in set(names)}
        self.jobs = {name: replace(job, model=replace(job.model, memory=share)) for name, share in shares.items()}

    def start(self) -> list[WorkerHandle]:
        return [ProcessHandle(self.jobs[name], name, self.threads, number) for number, name in enumerate(self.names, 1)]

    def restart(self, worker: WorkerHandle, failed_starts: int) -> WorkerHandle:
        assert isinstance(worker, ProcessHandle)
        return ProcessHandle(self.jobs[worker.device], worker.device, self.threads, worker.number, failed_starts)

    def receive(self, workers: Sequence[WorkerHandle], seconds: float) -> Iterator[tuple[WorkerHandle, Message]]:
        lines = {worker.connection: worker for worker in workers if isinstance(worker, ProcessHandle)}
        for connection in connections.wait(list(lines), seconds):
            worker = lines[connection]  # type: ignore[index]  # wait returns the objects that it got
            for message in worker.read_messages():
                yield worker, message

    def close(self, workers: Sequence[WorkerHandle]) -> None:
        """End all processes. All pipes are closed first, so that the processes end at the same time."""
        processes = [worker for worker in workers if isinstance(worker, ProcessHandle)]
        for worker in processes:
            worker.connection.close()
        for worker in processes:
            worker.join()


def run_worker(connection: Connection, job: Job, threads: int) -> None:
    """Run in the process: restore until the parent closes the pipe or ends."""
    ignore_signals()  # they reach all processes of a group, and the parent decides what to do
    os.dup2(2, 1)  # only the parent writes to standard output
    lock = Lock()

    def send(message: Message) -> None:
        with lock, suppress(OSError):
            connection.send(message)

    loop = WorkerLoop(job, send, threads)
    Thread(target=receive_tasks, args=(connection, loop), daemon=True).start()
    loop.run()
    exit_now()


def receive_tasks(connection: Connection, loop: WorkerLoop) -> None:
    """Put tasks into the queue of the loop until the parent closes the pipe."""
    while True:
        try:
            loop.tasks.put(connection.recv())
        except (EOFError, OSError):
            exit_now()


def exit_now() -> None:
    """End the process at once, without temporary files."""
    abandon()
    os._exit(1)


def describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"
