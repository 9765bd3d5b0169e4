"""Shares work out among workers elsewhere, in processes or on machines, and gives it to others where one dies."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from restore_cli.atomic import sweep
from restore_cli.errors import RestoreError
from restore_cli.jobs.paths import is_remote
from restore_cli.jobs.plan import looked_at
from restore_cli.jobs.types import Job, Result, Step, Watch, Work
from restore_cli.jobs.workers.loop import Begun, Died, Fetched, Loaded, Noted, Ready, Refused, Said, Tiles

__all__ = ["Foreman", "Hall", "Hand"]

FEW, MANY = 4, 16
"""pictures that one worker has at once: decoded ahead, restored, written; more of those that are restored quickly"""
QUICK = 0.5
"""seconds that such a picture takes"""
IDLE = 0.1
"""seconds between two looks for work that comes while others go on"""
PATIENCE = 0.5
"""seconds between two looks whether it is time to stop"""
TURN = 100
"""steps that are taken before the workers are listened to again"""


class Hand(ABC):
    """A worker elsewhere, as the foreman knows it."""

    def __init__(self, name: str, barren: int = 0) -> None:
        self.name, self.barren = name, barren
        """`barren`: how many in its place died before it without having finished anything"""
        self.held: dict[str, Work] = {}
        """by output"""
        self.ready = False
        self.finished = False
        """anything"""
        self.alone = False
        """with a picture on which another died: it gets no other beside it"""
        self.room = FEW
        self.picture = ""
        self.using = ("", "")
        """name and sha256 of the checkpoint"""
        self.models: dict[str, tuple[str, str]] = {}
        """by input"""

    @abstractmethod
    def give(self, work: Work) -> None:
        """One more picture. Does not wait and does not raise: whether it has died is heard."""


class Hall(Protocol):
    """Where the workers are."""

    lives: int
    """how many may die in one place, one after the other, without having finished anything"""

    def open(self) -> list[Hand]:
        """The first workers."""

    def replace(self, hand: Hand, barren: int) -> Hand:
        """One in the place of a dead one."""

    def hear(self, hands: Sequence[Hand], seconds: float) -> Iterator[tuple[Hand, Said]]:
        """What they have to say; waits so long for a first word. Died is a worker's last one."""

    def close(self, hands: Sequence[Hand]) -> None:
        """Nobody works on."""


class Foreman:
    """A crew of workers elsewhere."""

    def __init__(self, hall: Hall, job: Job, watch: Watch) -> None:
        self.hall, self.job, self.watch = hall, job, watch
        self.hands: list[Hand] = []
        self.suspects: deque[Work] = deque()
        """pictures on which a worker died: each goes on alone, so that it is seen whether it was the cause"""
        self.deaths: set[str] = set()
        """their outputs"""
        self.noted: set[str] = set()
        self.last: Hand | None = None
        """who has begun a picture last: its tiles are shown"""

    def results(self, steps: Iterator[Step]) -> Iterator[Result]:
        """One Result for each step, in the order in which they come to an end. RestoreError when all are dead."""
        self.hands = self.hall.open()
        try:
            more = True
            while more or any(hand.held for hand in self.hands) or (self.suspects and not self.watch.stopping()):
                wait = PATIENCE
                if more:
                    more, wait = yield from self.share_out(steps)
                self.hand_suspects()
                yield from self.listen(wait)
        finally:
            self.hall.close(self.hands)
            for folder in {Path(output).parent for output in self.deaths if not is_remote(output)}:
                sweep(folder)

    def share_out(self, steps: Iterator[Step]) -> Generator[Result, None, tuple[bool, float]]:
        """Gives work to those who have room. Returns whether there may be more, and how long to listen for a word."""
        for _ in range(TURN):
            if (hand := self.free()) is None:
                return True, PATIENCE
            try:
                step = next(steps)
            except StopIteration:
                return False, 0.0
            if step is None:
                return True, IDLE
            if isinstance(step, Result):
                yield step
            else:
                give(hand, step)
        return True, 0.0

    def free(self) -> Hand | None:
        """Who has most room. With a suspect waiting, one worker is left to come to its end."""
        able = sorted((hand for hand in self.hands if hand.ready and not hand.alone), key=lambda hand: len(hand.held))
        if self.suspects and not any(hand.alone for hand in self.hands):
            able = able[1:]
        return next((hand for hand in able if len(hand.held) < hand.room), None)

    def hand_suspects(self) -> None:
        """One suspect at a time, to a worker that has nothing else."""
        idle = next((hand for hand in self.hands if hand.ready and not hand.held), None)
        if self.suspects and idle and not any(hand.alone for hand in self.hands):
            idle.alone = True
            give(idle, self.suspects.popleft())

    def listen(self, seconds: float) -> Iterator[Result]:
        """What the workers have to say."""
        for hand, said in self.hall.hear(self.hands, seconds):
            if isinstance(said, Result):
                yield self.finished(hand, said)
            elif isinstance(said, Died):
                yield from self.bury(hand, said.reason)
            elif isinstance(said, Refused):
                raise said.error
            else:
                self.pass_on(hand, said)

    def finished(self, hand: Hand, result: Result) -> Result:
        """One picture less on its hands."""
        work = hand.held.pop(result.output)
        hand.models.pop(work.input, None)
        hand.alone, hand.finished = False, True
        hand.room = min(MANY, hand.room + 1) if result.seconds < QUICK else max(FEW, hand.room - 1)
        return result

    def pass_on(self, hand: Hand, said: Said) -> None:
        """To whoever watches: of several pictures at hand the one that was begun last."""
        watch = self.watch
        if isinstance(said, Ready):
            hand.ready = True
        elif isinstance(said, Begun):
            self.last, hand.picture = hand, said.input
            hand.models[said.input] = hand.using
            watch.on_picture(said.input)
        elif isinstance(said, Loaded):
            hand.models[hand.picture] = hand.using = said.model, said.sha256
        elif isinstance(said, Tiles) and hand is self.last:
            watch.on_tile(said.done, said.total)
        elif isinstance(said, Noted) and said.text not in self.noted:
            self.noted.add(said.text)
            watch.on_note(said.text)
        elif isinstance(said, Fetched) and watch.progress is not None:
            getattr(watch.progress, said.call)(*said.args)

    def bury(self, hand: Hand, reason: str) -> Iterator[Result]:
        """Its pictures go to others, but for those that are done and those on which a worker died before."""
        self.hands.remove(hand)
        for work in hand.held.values():
            if (result := self.completed(hand, work)) is not None:
                hand.finished = True
                yield result
            elif work.output in self.deaths:
                error = RestoreError(f"{work.input}: a worker died while restoring it, twice: {reason}")
                yield Result(work.input, work.output, "failed", error=error)
            else:
                self.deaths.add(work.output)
                self.suspects.append(work)
        barren = 0 if hand.finished else hand.barren + 1
        again = barren < self.hall.lives
        if again or self.hands:
            then = "another takes its place" if again else f"{len(self.hands)} left"
            self.watch.on_note(f"{hand.name} died with {len(hand.held)} pictures, {reason}: {then}")
        if again:
            self.hands.append(self.hall.replace(hand, barren))
        elif not self.hands:
            step = "the same command again, with --device cpu or a smaller --tile"
            raise RestoreError(f"no worker is left to go on: {hand.name} died ({reason})", step)

    def completed(self, hand: Hand, work: Work) -> Result | None:
        """The Result of a picture whose worker died after the file was there; files appear whole or not at all."""
        try:
            if looked_at(work.output) in (None, work.replaces):
                return None
        except RestoreError:  # a server that does not say
            return None
        if self.job.keep_times and not (is_remote(work.input) or is_remote(work.output)):
            facts = Path(work.input).stat()
            os.utime(work.output, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        model, sha256 = hand.models.get(work.input, (None, None))
        return Result(work.input, work.output, "done", model, sha256, notes=("its worker died when it was written",))


def give(hand: Hand, work: Work) -> None:
    """A picture into its hands."""
    hand.held[work.output] = work
    hand.give(work)
