"""Everything that can go wrong in a way a person can act on.

One line says what, what was found and what was expected; `hint` is the next command to type.
`code` is the exit code of the process (docs/cli.md, "Exit codes").
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
"""What libraries write where there is no memory."""

INSTALL_EXTRA = "pip install '.[{}]' in a checkout of restore"
"""The hint where an extra of pyproject.toml is not installed; the field is its name."""


class RestoreError(Exception):
    """A failure with a message for the person at the terminal."""

    code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message} (try: {self.hint})" if self.hint else self.message


class ImageError(RestoreError):
    """An input that is not an image, is damaged, or is of a kind that would lose something."""


class OutputError(RestoreError):
    """A result that cannot be written where it was asked for."""


class UsageError(RestoreError):
    """A request that cannot be meant: options that contradict each other or name nothing."""

    code = 2


class NothingToDo(RestoreError):
    """No input, or every input is done."""

    code = 3


class WeightsError(RestoreError):
    """A checkpoint that is not what it should be."""

    code = 4


class WeightsUnavailable(WeightsError):
    """A checkpoint that cannot be had: no network, no source left, no space."""


class ChecksumMismatch(WeightsError):
    """A file whose sha256 is not the one the catalogue states."""


class OutOfMemory(RestoreError):
    """Memory ran out at the smallest tile, or before the first."""

    code = 5


class StorageError(RestoreError):
    """A store that refuses the credentials, or asks for fewer requests for minutes: no other file would fare better."""

    code = 6


class Interrupted(RestoreError):
    """The person at the terminal asked to stop."""

    code = 130


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, of the host or of a GPU.

    PyTorch has a type for its own allocator alone; other libraries raise a RuntimeError, told apart by its message.
    """
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    words = isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError) or named or words


@contextmanager
def stating_lack_of_memory(device: str, what: str) -> Iterator[None]:
    """Raise OutOfMemory, which says that the device has no room for `what`, where memory runs out in the block."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        hint = None if device == "cpu" else "--device cpu"
        raise OutOfMemory(f"out of memory: {device} has no room for {what}", hint) from None
