"""Everything that can go wrong in a way a person can act on.

One line says what, what was found and what was expected; `hint` is the next command to type.
`code` is the exit code of the process (README, "Exit codes").
"""

from __future__ import annotations

__all__ = [
    "ChecksumMismatch",
    "ImageError",
    "Interrupted",
    "NothingToDo",
    "OutOfMemory",
    "OutputError",
    "RestoreError",
    "UsageError",
    "WeightsError",
    "WeightsUnavailable",
]


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
    """Memory ran out at the smallest tile."""

    code = 5


class Interrupted(RestoreError):
    """The person at the terminal asked to stop."""

    code = 130
