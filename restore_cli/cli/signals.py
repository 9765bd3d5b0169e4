"""The first Ctrl-C finishes what is at hand, the second ends the process at once; SIGTERM likewise."""

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

__all__ = ["Stop", "stopping"]

HEARD = (signal.SIGINT, signal.SIGTERM)
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
def stopping(stop: Stop) -> Iterator[None]:
    """While the block runs, signals go to `stop`; outside of the main thread, where none arrive, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    listener = threading.Thread(target=stop.listen, args=(reader,), daemon=True)
    listener.start()
    previous = {number: signal.signal(number, stop.heard) for number in HEARD}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(writer)
        listener.join()
        os.close(reader)


def last_words(text: str) -> None:
    """A line on standard error, past all locks; the cursor that a display has hidden is shown again."""
    shown = "\r\x1b[J\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"{shown}{text}\n".encode())
