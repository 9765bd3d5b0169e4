"""The first Ctrl-C finishes what is at hand, the second ends the process at once; SIGTERM and SIGHUP likewise."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from restore_cli.atomic import abandon
from restore_cli.errors import Interrupted

__all__ = ["Stop", "interruptible", "stopping"]

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE = 0.2
"""seconds within which several signals are one: `timeout` and managers of jobs send each twice"""


@dataclass
class Stop:
    """Whether somebody asked to stop."""

    at_hand: Callable[[], int]
    """how many pictures are to be finished"""
    tell: Callable[[int], None]
    """says that so many pictures are being finished"""
    asked: bool = False
    leaving: list[Callable[[], None]] = field(default_factory=lambda: [abandon])
    """what there is to do before the process ends at once"""

    def heard(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, as soon as it comes to a line of Python: with nothing to finish it ends there."""
        if not self.at_hand():
            raise KeyboardInterrupt

    def listen(self, pipe: int) -> None:
        """In a thread of its own, which hears of signals even while the main thread computes for minutes."""
        while numbers := os.read(pipe, 64):
            if not set(numbers) & set(HEARD):
                continue
            if self.asked:
                for leave in self.leaving:
                    leave()
                last_words("restore: stopped at once (try: the same command again goes on)")
                os._exit(Interrupted.code)
            self.asked = True
            time.sleep(ONE)
            if select.select([pipe], [], [], 0)[0] and not os.read(pipe, 64):
                return
            if count := self.at_hand():
                self.tell(count)


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals) -> Iterator[None]:
    """Call `handler` for signals while the block runs.

    SIGHUP stays ignored where it was, which is what `nohup` is for.
    """
    previous = {}
    for number in numbers:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt the block as Ctrl-C does, so that its temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled_by(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def stopping(stop: Stop) -> Iterator[None]:
    """While the block runs, signals go to `stop`; outside of the main thread, where none arrive, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    listener = threading.Thread(target=stop.listen, args=(reader,), daemon=True)
    listener.start()
    try:
        with handled_by(stop.heard, *HEARD):
            wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(wakeup)
    finally:
        os.close(writer)
        listener.join()
        os.close(reader)


def last_words(text: str) -> None:
    """A line on standard error, past all locks; the cursor that a display has hidden is shown again."""
    shown = "\r\x1b[J\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"{shown}{text}\n".encode())
