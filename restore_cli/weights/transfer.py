"""A file from a web address to disk, taken up again where it broke off."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.address import opened
from restore_cli.weights.entry import Entry
from restore_cli.weights.progress import Progress, bar_class, refuse_size

if TYPE_CHECKING:
    from httpx2 import Response

__all__ = ["download"]

MAX_FRUITLESS = 2
"""attempts in a row that bring nothing new, after one that brought something"""


def download(entry: Entry, url: str, part: Path, progress: Progress) -> None:
    """Appends to `part` what it lacks of the file at `url`.

    A connection that breaks is opened again where it broke, as long as that brings more. Raises WeightsUnavailable
    where it does not, and what `opened` and `refuse_size` raise.
    """
    with part.open("ab") as file, ExitStack() as stack:
        transfer = _Transfer(entry, url, file, progress, stack)
        most, fruitless = file.tell(), 0
        while not transfer.complete():
            try:
                transfer.receive()
            except Exception as error:
                if transfer.bar is None or not _is_transport(error):
                    raise
            fruitless = 0 if file.tell() > most else fruitless + 1
            most = max(most, file.tell())
            if fruitless > MAX_FRUITLESS:
                raise WeightsUnavailable(f"broke off after {most} of {transfer.total or 'unknown'} bytes")
            time.sleep(fruitless)
        file.flush()
        os.fsync(file.fileno())


class _Transfer:
    """One file on its way, over as many connections as it takes."""

    def __init__(self, entry: Entry, url: str, file: BinaryIO, progress: Progress, stack: ExitStack) -> None:
        self.entry, self.url, self.file, self.progress, self.stack = entry, url, file, progress, stack
        self.total = entry.bytes
        self.ended = False
        """the last connection was closed by the server in order"""
        self.bar: Any = None

    def complete(self) -> bool:
        """Whether nothing is missing, as far as anyone has said how much there is."""
        return self.ended if self.total is None else self.file.tell() == self.total

    def receive(self) -> None:
        """What one connection brings."""
        start = self.file.tell()
        with opened(self.url, headers={"Range": f"bytes={start}-"} if start else None) as response:
            if start and response.status_code != 206:  # the server sends everything again
                self.restart(start)
                start = 0
            self.announce(_total(response, start))
            for chunk in response.iter_bytes():
                self.bar.update(len(chunk))
                self.file.write(chunk)
        self.ended = True

    def restart(self, start: int) -> None:
        """Forgets what is there."""
        self.file.seek(0)
        self.file.truncate()
        if self.bar is not None:
            self.bar.update(-start)

    def announce(self, total: int | None) -> None:
        """Raises WrongSize before anything is stored, and begins the bar at the first connection."""
        refuse_size(self.entry, total)
        self.total = self.total or total
        if self.bar is None:
            bar = bar_class(self.entry, self.progress)(total=self.total, initial=self.file.tell())
            self.bar = self.stack.enter_context(bar)


def _total(response: Response, start: int) -> int | None:
    """Size of the whole file, where the answer says it."""
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None


def _is_transport(error: Exception) -> bool:
    """A broken line, by the name of the client's class: the hub's library has changed its client before."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
