"""A Ray cluster: an actor for each worker, to whom paths go and from whom Results come; pixels stay where they are."""

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
from restore_cli.jobs.paths import is_remote
from restore_cli.jobs.types import Job, Result, Watch, Work
from restore_cli.jobs.workers.dispatcher import Hand
from restore_cli.jobs.workers.loop import Begun, Desk, Died, Ready, Refused, Said, sent

__all__ = ["Cluster", "check_cluster"]

BEAT = 1.0
"""seconds after which a worker tells what it has to tell even if nothing has come to an end"""
SLOW = 30.0
"""seconds until it is said that the cluster has no room"""
CALL = 5.0
"""seconds that a cluster may take to answer"""
DEVICES = ("auto", "cpu", "cuda")


def check_cluster(job: Job) -> None:
    """UsageError for what no cluster could do, or where Ray is not installed."""
    if find_spec("ray") is None:
        raise UsageError("--cluster needs Ray, which is not installed", hint=INSTALL_EXTRA.format("cluster"))
    if job.device not in DEVICES:
        raise UsageError(f"--device {job.device}: on a cluster Ray hands out the devices", hint="--gpus-per-worker 1")
    if job.workers is not None and job.workers < 1:
        raise UsageError(f"--workers {job.workers}: expected 1 or more")
    if job.gpus_per_worker is not None and job.gpus_per_worker < 0:
        raise UsageError(f"--gpus-per-worker {job.gpus_per_worker:g}: expected 0 or more")


class Seat:
    """The actor."""

    def __init__(self, job: Job, threads: int) -> None:
        self.said: SimpleQueue[Said] = SimpleQueue()
        self.desk = Desk(job, self.said.put, threads)
        threading.Thread(target=self.desk.work, daemon=True).start()

    def exchange(self, works: list[Work]) -> list[Said]:
        """Takes work; tells what there is to tell, as soon as something has come to an end."""
        for work in works:
            self.desk.works.put(work)
        said: list[Said] = []
        until = time.monotonic() + BEAT
        with suppress(Empty):
            while not (said and isinstance(said[-1], Result | Ready | Refused | Died)):
                said.append(self.said.get(timeout=max(0.0, until - time.monotonic())))
            while True:
                said.append(self.said.get_nowait())
        return said


class Actor(Hand):
    """A worker on the cluster."""

    def __init__(self, seat: Any, number: int, barren: int = 0) -> None:  # noqa: ANN401  # Ray's handle of a Seat
        super().__init__(f"worker {number} of the cluster", barren)
        self.seat, self.number = seat, number
        self.tray: list[Work] = []
        """what goes with the next call"""
        self.call: Any = None
        self.typed: dict[str, str] = {}
        """paths as they were typed, by what the actor calls them"""

    def give(self, work: Work) -> None:
        """By absolute paths: an actor has a working directory of its own."""
        there = replace(work, input=from_root(work.input), output=from_root(work.output))
        self.typed |= {there.input: work.input, there.output: work.output}
        self.tray.append(there)

    def pending(self) -> Any:  # noqa: ANN401  # Ray's reference to the answer
        """The call that is under way; a new one takes along what lies on the tray."""
        if self.call is None:
            self.call = self.seat.exchange.remote(self.tray)
            self.tray = []
        return self.call

    def heard(self, word: Said) -> Said:
        """With paths as they were typed."""
        if isinstance(word, Begun):
            return Begun(self.typed[word.input])
        if isinstance(word, Result):
            word.input, word.output = self.typed.pop(word.input), self.typed.pop(word.output)
        return word


class Cluster:
    """The workers of a Ray cluster. Raises UsageError where there is none, or no room for one."""

    lives = 3

    def __init__(self, job: Job, watch: Watch) -> None:
        self.watch, self.started = watch, time.monotonic()
        self.ray, self.joined = joined(job.cluster or "auto")
        own = None if job.weights is None else job.weights.absolute()
        self.job = replace(sent(job, job.device), weights=own)
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.count, self.needs = places(job, nodes)
        self.waited = False

    def open(self) -> list[Hand]:
        """As many actors as there is room for."""
        return [self.hire(number) for number in range(1, self.count + 1)]

    def hire(self, number: int, barren: int = 0) -> Hand:
        """An actor on whichever machine has room."""
        kind = self.ray.remote(Seat).options(**self.needs, max_restarts=0, scheduling_strategy="SPREAD")
        return Actor(kind.remote(self.job, max(1, int(self.needs["num_cpus"]))), number, barren)

    def replace(self, hand: Hand, barren: int) -> Hand:
        """On another machine, or on the same when it is back."""
        assert isinstance(hand, Actor)
        return self.hire(hand.number, barren)

    def hear(self, hands: Sequence[Hand], seconds: float) -> Iterator[tuple[Hand, Said]]:
        """From every actor that has answered."""
        calls = {hand.pending(): hand for hand in hands if isinstance(hand, Actor)}
        if self.ray.wait(list(calls), timeout=seconds)[0]:
            for call in self.ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]:
                for word in self.answer(calls[call]):
                    yield calls[call], word
        elif not self.waited and not any(hand.ready for hand in hands) and time.monotonic() > self.started + SLOW:
            self.waited = True
            needs = " and ".join(f"{value:g} {name[4:-1].upper()}" for name, value in self.needs.items() if value)
            self.watch.on_note(f"the cluster has no room yet for a worker of {needs}: waiting")

    def answer(self, hand: Actor) -> Iterator[Said]:
        """What an actor has said, or why it says no more."""
        try:
            words = self.ray.get(hand.call)
        except self.ray.exceptions.ActorUnavailableError:
            words = [Died("it answers no more")]
        except self.ray.exceptions.RayError as error:
            words = [Died(reason(error))]
        hand.call = None
        for word in words:
            if isinstance(word, Died):
                self.dismiss(hand)
            yield hand.heard(word)

    def dismiss(self, hand: Actor) -> None:
        """It works no more, if it still does."""
        with suppress(self.ray.exceptions.RayError, ValueError):
            self.ray.kill(hand.seat)

    def close(self, hands: Sequence[Hand]) -> None:
        """The cluster stays as it was; one that was started for this job ends."""
        for hand in hands:
            if isinstance(hand, Actor):
                self.dismiss(hand)
        if self.joined:
            self.ray.shutdown()


def from_root(path: str) -> str:
    """The path from the root, its links as they are: they may lead elsewhere on other machines."""
    return path if is_remote(path) else str(Path(path).absolute())


def joined(asked: str) -> tuple[Any, bool]:
    """Ray, connected; and whether that was done here. Raises UsageError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    import ray

    if ray.is_initialized():
        return ray, False
    # what raylets have to say would come out on our standard output; that a worker died is said by the foreman
    ray._private.worker._worker_logs_enabled = False
    address = found(asked, ray)
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
        raise UsageError(f"--cluster {asked}: {reason(error)}", hint="ray status") from None
    finally:
        if threading.current_thread() is threading.main_thread():  # what an interrupt means is decided elsewhere
            for number, handler in kept.items():
                signal.signal(number, handler)
    return ray, True


def found(asked: str, ray: Any) -> str:  # noqa: ANN401  # the module
    """The address; `auto` is RAY_ADDRESS, or the cluster that this machine belongs to, or a new one of this machine.

    Raises UsageError where nobody answers, of which Ray would be sure after two minutes.
    """
    named = os.environ.get("RAY_ADDRESS", "auto") if asked == "auto" else asked
    if named in ("", "auto"):
        left: str | None = ray._private.utils.read_ray_address()  # by a cluster that may have ended since
        return left if left and answers(left) else "local"
    if named != "local" and not answers(named):
        raise UsageError(f"--cluster {asked}: nobody answers at {named}", hint="ray status --address HOST:PORT")
    return named


def answers(address: str) -> bool:
    """Whether anybody listens there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CALL).close()
    except (OSError, ValueError):
        return False
    return True


def places(job: Job, nodes: Sequence[Mapping[str, float]]) -> tuple[int, dict[str, float]]:
    """How many workers, and what each needs of its machine. Raises UsageError where there is room for none."""
    gpus, cpus = ([node.get(name, 0.0) for node in nodes] for name in ("GPU", "CPU"))
    share = job.gpus_per_worker
    if share is None:
        share = 1.0 if any(gpus) and job.device != "cpu" else 0.0
    if share:
        needs = {"num_gpus": share, "num_cpus": 0.0}  # reading and writing must not keep a GPU from being used
        count = job.workers or room(gpus, share)
    else:
        count = job.workers or room(cpus, 1)
        most = max(1, int(sum(cpus)) // max(1, count))
        needs = {"num_cpus": float(next((n for n in range(most, 1, -1) if room(cpus, n) >= count), 1))}
    if not count:
        raise UsageError("the cluster has no room for a worker now", hint="--workers N, where machines will join it")
    return count, needs


def room(nodes: Sequence[float], share: float) -> int:
    """How many shares there are; a share lies on one machine."""
    return sum(int(node / share + 1e-6) for node in nodes)


def reason(error: Exception) -> str:
    """In one line: Ray's first one says what, its last one why."""
    plain = re.sub("\x1b\\[[0-9;]*m", "", str(error))  # Ray colours them
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or [type(error).__name__]
    return " … ".join(dict.fromkeys((lines[0][:200], lines[-1][:200])))
