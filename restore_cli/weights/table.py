"""Reads a TOML table field by field; each error names the file, the place, what was found and what was expected."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from restore_cli.errors import UsageError

__all__ = [
    "ANY_TEXT",
    "NON_NEGATIVE",
    "POSITIVE",
    "TEXT",
    "TEXTS",
    "FieldType",
    "Table",
    "matching",
    "one_of",
    "read_field_types",
    "read_toml",
    "suggest",
]

T = TypeVar("T")
MAX_BYTES = 4 * 2**20
"""of a catalogue file; the shipped one has 60 thousand"""
SHOWN = 60
"""characters of a value that a message shows"""


@dataclass(frozen=True)
class FieldType(Generic[T]):
    """What a field may hold: in words, in words for several, and a function that returns None for anything else."""

    words: str
    plural: str
    read: Callable[[object], T | None]


def _read_int(value: object, least: int) -> int | None:
    return value if type(value) is int and least <= value < 2**53 else None


def _read_number(value: object) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) and value > 0 else None  # type: ignore[arg-type, operator]


def _read_any_text(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None


def _read_text(value: object) -> str | None:
    text = _read_any_text(value)
    return text if text and text.strip() else None


def list_of(item: FieldType[T], length: int | None = None) -> FieldType[tuple[T, ...]]:
    """Return the type of a list that is not empty, or of a list of `length` items."""

    def read_list(value: object) -> tuple[T, ...] | None:
        if not isinstance(value, list) or not value or length not in (None, len(value)):
            return None
        found = [part for part in map(item.read, value) if part is not None]
        return tuple(found) if len(found) == len(value) else None

    words = f"{'' if length is None else f'{length} '}{item.plural}"
    return FieldType(f"a list of {words}", f"lists of {words}", read_list)


def matching(words: str, read: Callable[[str], object]) -> FieldType[str]:
    """Return the type of a text for which `read` returns anything true."""
    return FieldType(words, words, lambda value: value if isinstance(value, str) and read(value) else None)


def one_of(*words: str) -> FieldType[str]:
    """Return the type of a text that is one of these."""
    expected = f"one of {', '.join(words)}" if len(words) > 2 else " or ".join(words)
    return matching(expected, words.__contains__)


POSITIVE = FieldType("a whole number above 0", "whole numbers above 0", lambda value: _read_int(value, 1))
NON_NEGATIVE = FieldType("a whole number", "whole numbers", lambda value: _read_int(value, 0))
NUMBER = FieldType("a number above 0", "numbers above 0", _read_number)
FLAG = FieldType("true or false", "flags", lambda value: value if isinstance(value, bool) else None)
ANY_TEXT = FieldType("a text, maybe empty", "texts", _read_any_text)
TEXT = FieldType("a text", "texts", _read_text)
TEXTS = list_of(TEXT)
BY_ANNOTATION: dict[object, FieldType[Any]] = {int: POSITIVE, float: NUMBER, bool: FLAG, str: TEXT}


FieldTypes = Mapping[str, tuple[FieldType[Any], bool]]
"""for each field its type, and whether it has a default"""


def read_field_types(kind: type[Any], without: Collection[str] = ()) -> FieldTypes:
    """Return the fields of a dataclass. Numbers are above 0 unless `Annotated` names another FieldType."""
    hints = get_type_hints(kind, include_extras=True)
    kept = [field for field in fields(kind) if field.name not in without]
    return {field.name: (_read_annotation(hints[field.name]), field.default is not MISSING) for field in kept}


def _read_annotation(hint: Any) -> FieldType[Any]:  # noqa: ANN401  # annotations have no common type
    if get_origin(hint) is Annotated:
        found: FieldType[Any] = get_args(hint)[1]
        return found
    if get_origin(hint) is UnionType or get_origin(hint) is Union:
        return _read_annotation(get_args(hint)[0])  # None is a field that is missing
    if get_origin(hint) is tuple:
        first, *others = get_args(hint)
        return list_of(_read_annotation(first), None if others == [...] else 1 + len(others))
    return BY_ANNOTATION[hint]


def suggest(word: str, words: Iterable[str]) -> str:
    """Return ' (did you mean X?)' if one of `words` is similar, else nothing."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def read_toml(file: Path) -> dict[str, Any]:
    """Return the tables of `file`. Raises UsageError."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"{file}: is larger than {MAX_BYTES} bytes, the limit of a catalogue")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot read this catalogue: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not TOML: {error}") from None


class Table:
    """One table of a catalogue file. Its fields are read one after the other; `close` refuses those that are left."""

    def __init__(self, file: Path, place: str, value: object) -> None:
        self.file, self.place = file, place
        if not isinstance(value, dict):
            self.refuse(f"found {_shorten(value)}, expected a table")
        self.rest: dict[str, Any] = dict(value)
        self.known: list[str] = []

    def refuse(self, complaint: str) -> NoReturn:
        """Raise UsageError with the file and the place."""
        raise UsageError(f"{self.file}: {self.place}: {complaint}")

    def read_optional(self, field: str, kind: FieldType[T]) -> T | None:
        """Return the value of a field, or None if the table does not have it. Raises UsageError."""
        self.known.append(field)
        if field not in self.rest:
            return None
        raw = self.rest.pop(field)
        value = kind.read(raw)
        if value is None:
            self.refuse(f"{field}: found {_shorten(raw)}, expected {kind.words}")
        return value

    def read_required(self, field: str, kind: FieldType[T]) -> T:
        """Return the value of a field. Raises UsageError, also if the table does not have it."""
        if (value := self.read_optional(field, kind)) is None:
            self.refuse(f"{field}: found nothing, expected {kind.words}")
        return value

    def read_fields(self, types: FieldTypes) -> dict[str, Any]:
        """Return the values of these fields, without those that are missing. Raises UsageError."""
        found = {
            name: self.read_optional(name, kind) if has_default else self.read_required(name, kind)
            for name, (kind, has_default) in types.items()
        }
        return {name: value for name, value in found.items() if value is not None}

    def close(self) -> None:
        """Raise UsageError if the table has a field that was not read."""
        for field in self.rest:
            self.refuse(f"unknown field {field}{suggest(field, self.known)}; expected one of {', '.join(self.known)}")


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
