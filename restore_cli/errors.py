"""The errors that restore reports to its users, and how lack of memory is recognised.

A message is one line: what failed, what was found, what was expected. `hint` is the next command to type. `code` is the
exit code of the process (docs/cli.md, "Exit codes").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "INSTALL_EXTRA",
    "ChecksumMismatch",
    "ImageError",
    "Interrupted",
    "NothingToDo",
    "OutOfMemory",
    "OutputError",
    "RestoreError",
    "StorageError",
    "UsageError",
    "WeightsError",
    "WeightsUnavailable",
    "is_out_of_memory",
    "stating_lack_of_memory",
]

NO_MEMORY = re.compile(
    r"\bout of memory\b"  # CUDA, HIP and MPS, their drivers, Triton
    r"|_ALLOC_FAILED\b|_ALLOCATION_FAILED\b|StatusAllocFailed\b"  # cuBLAS, cuDNN until 8 and from 9 on, MIOpen
    r"|can't allocate memory|not enough memory|bad_alloc"  # PyTorch on a CPU
    r"|^could not create a primitive\s*$"  # oneDNN; more words follow where memory is not the reason
)
"""Matches what libraries write when memory runs out."""

INSTALL_EXTRA = "pip install '.[{}]' in a checkout of restore"
"""The hint if an extra of pyproject.toml is not installed. The field is the name of the extra."""


class RestoreError(Exception):
    """A failure with a message for users."""

    code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message} (try: {self.hint})" if self.hint else self.message


class ImageError(RestoreError):
    """An input that is not an image, is damaged, or cannot be read without loss."""


class OutputError(RestoreError):
    """A file that cannot be written under the requested name."""


class UsageError(RestoreError):
    """Invalid request: options that contradict each other, or a name that matches nothing."""

    code = 2


class NothingToDo(RestoreError):
    """No input, or every input is done."""

    code = 3


class WeightsError(RestoreError):
    """A checkpoint that cannot be downloaded, or is not what it should be."""

    code = 4


class WeightsUnavailable(WeightsError):
    """A checkpoint that cannot be downloaded: there is no network, no source has it, or the disk is full."""


class ChecksumMismatch(WeightsError):
    """A file whose sha256 is not the one the catalogue states."""


class OutOfMemory(RestoreError):
    """Memory ran out at the smallest tile, or outside of the model."""

    code = 5


class StorageError(RestoreError):
    """A store that refuses the credentials, or still asks for fewer requests after minutes. All files would fail."""

    code = 6


class Interrupted(RestoreError):
    """The user asked to stop."""

    code = 130


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, of the host or of a GPU.

    PyTorch has an error type for its own allocator only. Other libraries raise a RuntimeError with a certain message.
    """
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    words = isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError) or named or words


@contextmanager
def stating_lack_of_memory(device: str, what: str) -> Iterator[None]:
    """If memory runs out in the block, raise OutOfMemory with the message that the device has no room for `what`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        hint = None if device == "cpu" else "--device cpu"
        raise OutOfMemory(f"out of memory: {device} has no room for {what}", hint) from None
