"""Signals: after the first one the images in progress are finished, the second one ends the process at once."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from restore_cli.atomic import abandon
from restore_cli.errors import Interrupted
from restore_cli.system import SIGNALS

__all__ = ["Stop", "interrupt_on_signals", "stop_on_signals"]

REPEAT_SECONDS = 0.2
"""signals within this time count as one: `timeout` and job managers send each twice"""


@dataclass
class Stop:
    """The request to stop."""

    count_in_flight: Callable[[], int]
    """returns how many images must be finished"""
    report_stopping: Callable[[int], None]
    """is called with this number"""
    requested: bool = False
    cleanups: list[Callable[[], None]] = field(default_factory=lambda: [abandon])
    """called before the process ends at once"""

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the main thread if no image must be finished."""
        if not self.count_in_flight():
            raise KeyboardInterrupt

    def listen(self, reader: socket.socket) -> None:
        """Read signals from a socket in a thread, which works even while the main thread computes for minutes."""
        while numbers := reader.recv(64):
            if not set(numbers) & set(SIGNALS):
                continue
            if self.requested:
                for cleanup in self.cleanups:
                    cleanup()
                write_final_message("restore: stopped at once (try: the same command again continues)")
                os._exit(Interrupted.code)
            self.requested = True
            time.sleep(REPEAT_SECONDS)
            if select.select([reader], [], [], 0)[0] and not reader.recv(64):
                return
            if count := self.count_in_flight():
                self.report_stopping(count)


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals) -> Iterator[None]:
    """Call `handler` for signals while the block runs. Outside of the main thread nothing changes.

    SIGHUP stays ignored if it was, as `nohup` requires.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def interrupt_on_signals() -> AbstractContextManager[None]:
    """Let SIGTERM and SIGHUP interrupt the block as Ctrl-C does, so that its temporary files are removed."""
    return handle_signals(signal.default_int_handler, *SIGNALS[1:])


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Pass signals to `stop` while the block runs. Outside of the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()  # a pipe would not do: on Windows, select() works with sockets only
    writer.setblocking(False)
    listener = threading.Thread(target=stop.listen, args=(reader,), daemon=True)
    listener.start()
    try:
        with handle_signals(stop.handle, *SIGNALS):
            wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(wakeup)
    finally:
        writer.close()
        listener.join()
        reader.close()


def write_final_message(text: str) -> None:
    """Write a line to standard error without locks, and show the cursor that a display has hidden."""
    shown = "\r\x1b[J\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"{shown}{text}\n".encode())
