"""How a command ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["CommandResult", "Run"]


@dataclass(frozen=True)
class CommandResult:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


Run = Callable[..., CommandResult]
