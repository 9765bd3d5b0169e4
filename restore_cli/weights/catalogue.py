"""Reads the catalogue of checkpoints, weights.toml, and selects the entries that fit a request.

Neither torch nor the network is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from restore_cli.errors import UsageError
from restore_cli.weights.entry import TASKS, Entry, read_entry
from restore_cli.weights.table import TEXTS, Table, read_toml, suggest

__all__ = ["Catalogue", "Request", "check_task", "check_values", "read_catalogue"]

DEFAULT_SCALE = 4
"""the scale of `restore sr` without --scale, if a checkpoint has it"""


@dataclass(frozen=True)
class Request:
    """Which checkpoint to use. None means the default."""

    task: str
    model: str | None = None
    variant: str | None = None
    scale: int | None = None
    noise: str | None = None
    quality: int | None = None
    channels: int = 3
    """of the image: 1 (gray) or 3 (colour)"""

    @property
    def command(self) -> str:
        """The command that lists the checkpoints of this task and model."""
        model = f" --model {self.model}" if self.model else ""
        return f"restore models --task {self.task}{model}"


@dataclass(frozen=True)
class Catalogue:
    """All checkpoints in order of preference, and the families to try for each task."""

    entries: tuple[Entry, ...]
    defaults: Mapping[str, tuple[str, ...]]

    def find_entry(self, name: str) -> Entry:
        """Return the entry of that name. Raises UsageError."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        suggestion = suggest(name, (entry.name for entry in self.entries))
        raise UsageError(f"no checkpoint is named {name!r}{suggestion}", hint="restore models")

    def select(self, request: Request) -> list[Entry]:
        """Return the entries that fit the request, best first, at most one for each family. Raises UsageError.

        If the request names a model or a variant, there is exactly one entry. Otherwise there is one for each default
        family of the task. The order of the catalogue decides the rest: first the variant, then the noise. A gray image
        gets a gray checkpoint if the variant has one.
        """
        pool = self._filter_request(request)
        if request.task == "sr" and request.scale is None:
            pool = [entry for entry in pool if entry.scale == DEFAULT_SCALE] or pool
        families = [f for f in self.defaults.get(request.task, ()) if any(entry.model == f for entry in pool)]
        if request.model is not None or request.variant is not None or not families:
            families = [*families, *_remove_duplicates(entry.model for entry in pool)][:1]
        return [_choose_entry([entry for entry in pool if entry.model == family], request) for family in families]

    def _filter_request(self, request: Request) -> list[Entry]:
        """Return the entries that fit every value of the request. Raises UsageError if there are none."""
        pool = _filter_field(self._filter_model(request), "variant", request.variant, request)
        pool = _filter_channels(pool, request)
        pool = _filter_field(pool, "scale", request.scale, request)
        pool = _filter_field(pool, "noise", request.noise, request)
        check_values(request)
        return pool

    def _filter_model(self, request: Request) -> list[Entry]:
        check_task(request)
        pool = [entry for entry in self.entries if entry.task == request.task]
        if request.model is None:
            return pool
        everywhere = [entry for entry in self.entries if entry.model == request.model]
        found = [entry for entry in pool if entry.model == request.model]
        hint = f"restore models --task {request.task}"
        if not everywhere:
            models = sorted({entry.model for entry in self.entries})
            suggestion = suggest(request.model, models)
            raise UsageError(f"no model {request.model!r}{suggestion}; there are {', '.join(models)}", hint=hint)
        if not found:
            tasks = ", ".join(_remove_duplicates(entry.task for entry in everywhere))
            usual = self.select(Request(request.task))[0].model
            line = f"{request.model} has no checkpoint for {request.task}, only for {tasks}"
            raise UsageError(line, hint=f"restore {request.task} --model {usual}")
        return found


def read_catalogue(extra: Path | None = None) -> Catalogue:
    """Read the catalogue of the package, then the file that RESTORE_WEIGHTS_TOML names, then `extra`.

    A later entry replaces an earlier one of the same name. Raises UsageError for a mistake in a file.
    """
    files = [_find_shipped_file()]
    if named := os.environ.get("RESTORE_WEIGHTS_TOML"):
        files.append(Path(named))
    if extra is not None:
        files.append(extra)
    entries: dict[str, Entry] = {}
    defaults: dict[str, tuple[str, ...]] = {}
    for file in files:
        tables = read_toml(file)
        chosen = Table(file, "defaults", tables.pop("defaults", {}))
        entries |= {name: read_entry(file, name, value) for name, value in tables.items()}
        models = {entry.model for entry in entries.values()}
        defaults |= _read_defaults(chosen, models)
    return Catalogue(tuple(entries.values()), defaults)


def _find_shipped_file() -> Path:
    """Return the path of weights.toml: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights.toml"
    return inside if inside.is_file() else package.parent / "weights.toml"


def _read_defaults(table: Table, models: set[str]) -> dict[str, tuple[str, ...]]:
    taken = {task: table.read_optional(task, TEXTS) for task in TASKS}
    table.close()
    for task, families in taken.items():
        for family in families or ():
            if family not in models:
                table.refuse(f"{task}: found {family!r}, expected models of {', '.join(sorted(models))}")
    return {task: families for task, families in taken.items() if families}


def check_task(request: Request) -> None:
    """Raise UsageError for a task that does not exist."""
    if request.task not in TASKS:
        line = f"no task {request.task!r}{suggest(request.task, TASKS)}; there are {', '.join(TASKS)}"
        raise UsageError(line, hint="restore models")


def check_values(request: Request) -> None:
    """Raise UsageError for a task or a JPEG quality that does not exist."""
    check_task(request)
    if request.quality is None:
        return
    if request.task != "dejpeg":
        raise UsageError(f"{request.task} takes no quality (found {request.quality})", hint=request.command)
    if not 1 <= request.quality <= 100:
        raise UsageError(f"quality {request.quality} is not a JPEG quality; expected 1 to 100")


def _filter_field(pool: list[Entry], field: str, wanted: str | int | None, request: Request) -> list[Entry]:
    """Return the entries whose `field` is `wanted`, or all for None. Raises UsageError with the possible values."""
    found = [entry for entry in pool if wanted is None or getattr(entry, field) == wanted]
    if found:
        return found
    there = _remove_duplicates(
        _format_value(field, getattr(entry, field)) for entry in pool if getattr(entry, field) is not None
    )
    if not there:
        raise UsageError(f"{request.task} takes no {field} (found {wanted})", hint=request.command)
    named = [request.model, request.variant if field != "variant" else None]
    who = f"{' '.join(filter(None, named))} has no" if any(named) else "no model has"
    what = f"{field} {_format_value(field, wanted)} for {request.task}{suggest(str(wanted), there)}"
    raise UsageError(f"{who} {what}; there is {', '.join(there)}", hint=request.command)


def _filter_channels(pool: list[Entry], request: Request) -> list[Entry]:
    """Leave out gray checkpoints for colour images, and dual-pixel ones unless the request names that variant."""
    named = request.variant is not None
    found = [entry for entry in pool if entry.channels == 3 or (entry.channels == 6 and named)]
    if request.channels == 1:
        found = [entry for entry in pool if entry.channels == 1 or entry in found]
    if not found:
        what = f"{request.model or request.task} {request.variant or ''}".strip()
        raise UsageError(f"{what} is published for gray images only; this image has colours", hint=request.command)
    return found


def _choose_entry(family: list[Entry], request: Request) -> Entry:
    """Return the entry of a family with the first variant and noise, gray for gray images, and the nearest quality."""
    first = family[0]
    like = [e for e in family if (e.variant, e.scale, e.noise) == (first.variant, first.scale, first.noise)]
    if request.channels == 1:
        like = [entry for entry in like if entry.channels == 1] or like
    wanted = request.quality
    if wanted is None:
        return like[0]
    # of two equally near ones the lower quality, which removes at least as many artefacts as the image has
    return min(like, key=lambda entry: (abs((entry.quality or 0) - wanted), entry.quality or 0))


def _format_value(field: str, value: object) -> str:
    return f"×{value}" if field == "scale" else str(value)


def _remove_duplicates(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
