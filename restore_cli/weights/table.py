"""A TOML table read field by field; every complaint names the file, the place, what was found and what was expected."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from restore_cli.errors import UsageError

__all__ = [
    "COUNT",
    "COUNTS",
    "FLAG",
    "NUMBER",
    "PAIRS",
    "TEXT",
    "TEXTS",
    "WHOLE",
    "WHOLES",
    "WORD",
    "Kind",
    "Table",
    "near",
    "read_toml",
]

T = TypeVar("T")
LIMIT = 4 * 2**20
"""bytes of a catalogue file; the shipped one has 60 thousand"""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What a field may hold: in words, and as a function that gives None for anything else."""

    words: str
    read: Callable[[object], T | None]


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 2**53 else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _number(value: object) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) and value > 0 else None  # type: ignore[arg-type, operator]


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() and value.isprintable() else None


def _each(read: Callable[[object], T | None]) -> Callable[[object], tuple[T, ...] | None]:
    def read_list(value: object) -> tuple[T, ...] | None:
        if not isinstance(value, list) or not value:
            return None
        found = [item for item in map(read, value) if item is not None]
        return tuple(found) if len(found) == len(value) else None

    return read_list


def _pair(value: object) -> tuple[int, ...] | None:
    found = _each(_whole)(value)
    return found if found is not None and len(found) == 2 else None


WHOLE = Kind("a whole number above 0", _whole)
COUNT = Kind("a whole number", _count)
COUNTS = Kind("a list of whole numbers", _each(_count))
NUMBER = Kind("a number above 0", _number)
FLAG = Kind("true or false", lambda value: value if isinstance(value, bool) else None)
WORD = Kind("a text, maybe empty", _word)
TEXT = Kind("a text", _text)
TEXTS = Kind("a list of texts", _each(_text))
WHOLES = Kind("a list of whole numbers above 0", _each(_whole))
PAIRS = Kind("a list of pairs of whole numbers above 0", _each(_pair))


def near(word: str, words: Iterable[str]) -> str:
    """' (did you mean X?)' where one of `words` is near, else nothing."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of `file`, or one UsageError."""
    try:
        if file.stat().st_size > LIMIT:
            raise UsageError(f"{file}: larger than {LIMIT} bytes, which no catalogue is")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot read this catalogue: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not TOML: {error}") from None


class Table:
    """One table of a catalogue file, consumed field by field; what is left over at the end is an error."""

    def __init__(self, file: Path, place: str, value: object) -> None:
        self.file, self.place = file, place
        if not isinstance(value, dict):
            self.refuse(f"found {_shown(value)}, expected a table")
        self.rest: dict[str, Any] = dict(value)
        self.known: list[str] = []

    def refuse(self, complaint: str) -> NoReturn:
        raise UsageError(f"{self.file}: {self.place}: {complaint}")

    def take(self, field: str, kind: Kind[T]) -> T | None:
        """The field's value, or None where the table does not have it."""
        self.known.append(field)
        if field not in self.rest:
            return None
        raw = self.rest.pop(field)
        value = kind.read(raw)
        if value is None:
            self.refuse(f"{field}: found {_shown(raw)}, expected {kind.words}")
        return value

    def need(self, field: str, kind: Kind[T]) -> T:
        if (value := self.take(field, kind)) is None:
            self.refuse(f"{field}: found nothing, expected {kind.words}")
        return value

    def close(self) -> None:
        """Every field was known."""
        for field in self.rest:
            near_word = near(field, self.known)
            self.refuse(f"unknown field {field}{near_word}; expected one of {', '.join(self.known)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
