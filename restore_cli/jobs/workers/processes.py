"""Several devices of one machine: a process for each, one queue, one report."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from threading import Lock, Thread

from restore_cli.atomic import abandon
from restore_cli.errors import UsageError
from restore_cli.jobs.types import Job, Work
from restore_cli.jobs.workers.dispatcher import Hand
from restore_cli.jobs.workers.loop import Desk, Died, Said, sent

__all__ = ["Pool", "devices"]

FAREWELL = 5.0
"""seconds that a process has to end"""


def devices(asked: str) -> list[str]:
    """Those that --device names. UsageError where one of them is not here."""
    from restore_cli.models.load import pick_device

    if asked != "all":
        names = [name.strip() for name in asked.split(",")]
        if len(names) > 1:
            for name in names:
                pick_device(name)
        return names
    import torch

    if not torch.cuda.device_count():
        raise UsageError("--device all: this PyTorch sees no CUDA device", hint="--device auto")
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def portion(memory: int | None, device: str, mates: int) -> int | None:
    """Bytes for the model of each process on a device: what was asked, or an equal part of what is there."""
    from restore_cli.models.load import pick_device
    from restore_cli.pipeline.memory import usable_memory

    if memory is not None or mates == 1:
        return memory
    room = usable_memory(pick_device(device))
    return room if room is None else room // mates


class Process(Hand):
    """A worker in a process of its own."""

    def __init__(self, job: Job, device: str, threads: int, number: int, barren: int = 0) -> None:
        super().__init__(f"worker {number} ({device})", barren)
        self.device, self.number = device, number
        spawn = get_context("spawn")  # a fork would share what CUDA and the threads of libvips hold
        self.line, far = spawn.Pipe()
        self.process = spawn.Process(target=attend, args=(far, sent(job, device), threads), daemon=True)
        self.process.start()
        far.close()

    def give(self, work: Work) -> None:
        """Through the pipe."""
        with suppress(OSError):
            self.line.send(work)

    def said(self) -> Iterator[Said]:
        """What has come through the pipe, and how the process ended if it did."""
        try:
            while self.line.poll():
                word = self.line.recv()
                if isinstance(word, Died):
                    self.end()
                    yield word
                    return
                yield word
        except (EOFError, OSError):
            self.end()
            yield Died(ending(self.process.exitcode))

    def end(self) -> None:
        """Until nothing of it is left, its locks neither."""
        self.line.close()
        self.process.join(FAREWELL)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Pool:
    """The devices of this machine."""

    lives = 1

    def __init__(self, job: Job, names: Sequence[str]) -> None:
        from restore_cli.models.processor import cores

        self.names = names
        self.threads = max(1, cores() // len(names))
        self.jobs = {name: replace(job, memory=portion(job.memory, name, names.count(name))) for name in set(names)}

    def open(self) -> list[Hand]:
        """A process for each device."""
        return [Process(self.jobs[name], name, self.threads, number) for number, name in enumerate(self.names, 1)]

    def replace(self, hand: Hand, barren: int) -> Hand:
        """Another process on its device."""
        assert isinstance(hand, Process)
        return Process(self.jobs[hand.device], hand.device, self.threads, hand.number, barren)

    def hear(self, hands: Sequence[Hand], seconds: float) -> Iterator[tuple[Hand, Said]]:
        """From whichever process speaks first."""
        lines = {hand.line: hand for hand in hands if isinstance(hand, Process)}
        for line in connection.wait(list(lines), seconds):
            hand = lines[line]  # type: ignore[index]  # wait gives what it was given
            for word in hand.said():
                yield hand, word

    def close(self, hands: Sequence[Hand]) -> None:
        """All at once, then each is waited for."""
        processes = [hand for hand in hands if isinstance(hand, Process)]
        for hand in processes:
            hand.line.close()
        for hand in processes:
            hand.end()


def attend(line: Connection, job: Job, threads: int) -> None:
    """What the process does: it ends when its parent does, or wants it to."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # these reach the whole group, the parent decides
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # standard output is the parent's alone
    lock = Lock()

    def tell(said: Said) -> None:
        with lock, suppress(OSError):
            line.send(said)

    desk = Desk(job, tell, threads)
    Thread(target=receive, args=(line, desk), daemon=True).start()
    desk.work()
    leave()


def receive(line: Connection, desk: Desk) -> None:
    """Puts work on the desk until the other end of the pipe is closed."""
    while True:
        try:
            desk.works.put(line.recv())
        except (EOFError, OSError):
            leave()


def leave() -> None:
    """At once, with no temporary file left."""
    abandon()
    os._exit(1)


def ending(code: int | None) -> str:
    """In words."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"
