"""Standard streams that are closed, broken or limited to few characters do not stop a run."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import IO

__all__ = ["ClosedStream", "TolerantStream", "open_closed_streams", "replace_unencodable", "silence"]

STREAMS = ("stdin", "stdout", "stderr")
ASCII = {"→": "->", "…": "...", "×": "x", "·": "-", "–": "-", "−": "-", "∞": "inf", "σ": "sigma", "²": "^2"}
"""replacements of our own characters that a stream cannot encode; all others are escaped"""


class ClosedStream(io.TextIOWrapper):
    """Replaces a standard stream that was closed at the start. It reads nothing and drops what is written."""


def open_closed_streams() -> None:
    """Open the null device as each missing standard stream, before a file of ours gets its number.

    A library or a worker that writes to descriptor 1 or 2 would otherwise write into that file.
    """
    for name in STREAMS:
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: the stream's own
            os.set_inheritable(number, True)
            raw = os.fdopen(number, "rb" if name == "stdin" else "wb", closefd=False)
            setattr(sys, name, ClosedStream(raw, encoding="utf-8", errors="surrogateescape", line_buffering=True))


def replace_unencodable() -> None:
    """Let standard output and error write what their encoding cannot express as ASCII, instead of raising an error.

    Bytes of file names that are not text are written to standard output as they are, and escaped on standard error.
    """
    codecs.register_error("restore-escape", escape_character)
    codecs.register_error("restore-bytes", write_byte)
    for stream, errors in ((sys.stdout, "restore-bytes"), (sys.stderr, "restore-escape")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def escape_character(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the replacement of the first character that cannot be encoded, and the position behind it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    escaped = character.encode("ascii", "backslashreplace").decode("ascii")
    return ASCII.get(character, escaped), error.start + 1


def write_byte(error: UnicodeError) -> tuple[str | bytes, int]:
    """Do as `escape_character`, but return the byte that a surrogate of a file name stands for."""
    if isinstance(error, UnicodeEncodeError) and "\udc80" <= error.object[error.start] <= "\udcff":
        return bytes([ord(error.object[error.start]) & 0xFF]), error.start + 1
    return escape_character(error)


class TolerantStream:
    """A stream for messages, which are dropped if they cannot be written."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, text: str) -> int:
        """Write the text. Returns its length."""
        try:
            self.file.write(text)
        except OSError:
            silence()
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with suppress(OSError):
            self.file.flush()
            return
        silence()

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def silence() -> None:
    """Direct every output that cannot be written to the null device, so that no later write or exit fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
