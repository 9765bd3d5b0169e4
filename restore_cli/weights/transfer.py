"""Downloads a file from a web address, and continues after a broken connection."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.entry import Entry
from restore_cli.weights.hub_client import open_response
from restore_cli.weights.progress import OnDownload, make_bar_class, refuse_size

if TYPE_CHECKING:
    from httpx2 import Response

__all__ = ["download"]

MAX_FRUITLESS_ATTEMPTS = 2
"""consecutive attempts without a new byte, after one that received some"""


def download(entry: Entry, url: str, part: Path, on_event: OnDownload) -> None:
    """Append the missing rest of the file at `url` to `part`.

    A broken connection is opened again at the same place, as long as new bytes arrive. Raises WeightsUnavailable if
    none arrive, and what `open_response` and `refuse_size` raise.
    """
    with part.open("ab") as file, ExitStack() as stack:
        transfer = _Transfer(entry, url, file, on_event, stack)
        most, fruitless = file.tell(), 0
        while not transfer.complete():
            try:
                transfer.receive()
            except Exception as error:
                if transfer.bar is None or not _is_connection_error(error):
                    raise
            fruitless = 0 if file.tell() > most else fruitless + 1
            most = max(most, file.tell())
            if fruitless > MAX_FRUITLESS_ATTEMPTS:
                raise WeightsUnavailable(f"the connection broke after {most} of {transfer.total or 'unknown'} bytes")
            time.sleep(fruitless)
        file.flush()
        os.fsync(file.fileno())


class _Transfer:
    """The download of one file over one or more connections."""

    def __init__(self, entry: Entry, url: str, file: BinaryIO, on_event: OnDownload, stack: ExitStack) -> None:
        self.entry, self.url, self.file, self.on_event, self.stack = entry, url, file, on_event, stack
        self.total = entry.bytes
        self.ended = False
        """whether the server closed the last connection without an error"""
        self.bar: Any = None

    def complete(self) -> bool:
        """Return whether the file is complete. Without a known size, the end of a connection decides."""
        return self.ended if self.total is None else self.file.tell() == self.total

    def receive(self) -> None:
        """Receive the bytes of one connection."""
        start = self.file.tell()
        with open_response(self.url, headers={"Range": f"bytes={start}-"} if start else None) as response:
            if start and response.status_code != 206:  # the server sends everything again
                self.restart(start)
                start = 0
            self.announce(_read_total(response, start))
            for chunk in response.iter_bytes():
                self.bar.update(len(chunk))
                self.file.write(chunk)
        self.ended = True

    def restart(self, start: int) -> None:
        """Discard the bytes that are on disk."""
        self.file.seek(0)
        self.file.truncate()
        if self.bar is not None:
            self.bar.update(-start)

    def announce(self, total: int | None) -> None:
        """Check the size before anything is stored, and start the bar at the first connection. Raises WrongSize."""
        refuse_size(self.entry, total)
        self.total = self.total or total
        if self.bar is None:
            bar = make_bar_class(self.entry, self.on_event)(total=self.total, initial=self.file.tell())
            self.bar = self.stack.enter_context(bar)


def _read_total(response: Response, start: int) -> int | None:
    """Return the size of the whole file, if the response states it."""
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None


def _is_connection_error(error: Exception) -> bool:
    """Return whether the connection broke. The class has this name in every client of huggingface_hub."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
