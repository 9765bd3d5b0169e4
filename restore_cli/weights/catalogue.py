"""weights.toml -> Entry, and which entries a request means.

Nothing here loads torch or touches the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from restore_cli.errors import UsageError
from restore_cli.weights.entry import TASKS, BundledSource, Entry, HubSource, Source, UrlSource, read_entry
from restore_cli.weights.table import TEXTS, Table, read_toml, suggest

__all__ = [
    "TASKS",
    "BundledSource",
    "Catalogue",
    "Entry",
    "HubSource",
    "Request",
    "Source",
    "UrlSource",
    "read_catalogue",
]

USUAL_SCALE = 4
"""what `restore sr` means without --scale, where it is published"""


@dataclass(frozen=True)
class Request:
    """What a person asked for; None means "whatever is usual"."""

    task: str
    model: str | None = None
    variant: str | None = None
    scale: int | None = None
    noise: str | None = None
    quality: int | None = None
    channels: int = 3
    """of the image: 1 (gray) or 3"""

    @property
    def command(self) -> str:
        """The command that shows what there is instead."""
        model = f" --model {self.model}" if self.model else ""
        return f"restore models --task {self.task}{model}"


@dataclass(frozen=True)
class Catalogue:
    """Every checkpoint there is, in order of preference, and the families to try per task."""

    entries: tuple[Entry, ...]
    defaults: Mapping[str, tuple[str, ...]]

    def entry(self, name: str) -> Entry:
        """The entry of that name, or UsageError."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        suggestion = suggest(name, (entry.name for entry in self.entries))
        raise UsageError(f"no checkpoint is named {name!r}{suggestion}", hint="restore models")

    def select(self, request: Request) -> list[Entry]:
        """The entries that the request can mean, best first, at most one per family; or UsageError.

        A named model or variant is never replaced by another: then there is exactly one. Without a model the task's
        default families follow each other. Whatever else is left open is settled by the order of the catalogue:
        variant first, then noise. A gray image takes a gray checkpoint where that variant has one.
        """
        pool = self._fitting(request)
        if request.task == "sr" and request.scale is None:
            pool = [entry for entry in pool if entry.scale == USUAL_SCALE] or pool
        families = [f for f in self.defaults.get(request.task, ()) if any(entry.model == f for entry in pool)]
        if request.model is not None or request.variant is not None or not families:
            families = [*families, *_unique(entry.model for entry in pool)][:1]
        return [_best([entry for entry in pool if entry.model == family], request) for family in families]

    def _fitting(self, request: Request) -> list[Entry]:
        """The entries that contradict nothing in the request; UsageError names the first thing that nothing fits."""
        pool = _narrow(self._of_model(request), "variant", request.variant, request)
        pool = _colours(pool, request)
        pool = _narrow(pool, "scale", request.scale, request)
        pool = _narrow(pool, "noise", request.noise, request)
        check_values(request)
        return pool

    def _of_model(self, request: Request) -> list[Entry]:
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
            tasks = ", ".join(_unique(entry.task for entry in everywhere))
            usual = self.select(Request(request.task))[0].model
            raise UsageError(
                f"{request.model} has no checkpoint for {request.task}, only for {tasks}",
                hint=f"restore {request.task} --model {usual}",
            )
        return found


def read_catalogue(extra: Path | None = None) -> Catalogue:
    """The shipped catalogue, then the file that RESTORE_WEIGHTS_TOML names, then `extra`.

    A later entry replaces an earlier one of the same name. UsageError says what is wrong with a file.
    """
    files = [_shipped()]
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
        defaults |= _defaults(chosen, models)
    return Catalogue(tuple(entries.values()), defaults)


def _shipped() -> Path:
    """weights.toml inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights.toml"
    return inside if inside.is_file() else package.parent / "weights.toml"


def _defaults(table: Table, models: set[str]) -> dict[str, tuple[str, ...]]:
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
        known = ", ".join(TASKS)
        raise UsageError(
            f"no task {request.task!r}{suggest(request.task, TASKS)}; there are {known}", hint="restore models"
        )


def check_values(request: Request) -> None:
    """Raise UsageError for a task or a JPEG quality that does not exist, whatever the checkpoint."""
    check_task(request)
    if request.quality is None:
        return
    if request.task != "dejpeg":
        raise UsageError(f"{request.task} takes no quality (found {request.quality})", hint=request.command)
    if not 1 <= request.quality <= 100:
        raise UsageError(f"quality {request.quality} is not a JPEG quality; expected 1 to 100")


def _narrow(pool: list[Entry], field: str, wanted: str | int | None, request: Request) -> list[Entry]:
    """The entries whose `field` is `wanted` (None: all), or the UsageError that says what they have instead."""
    found = [entry for entry in pool if wanted is None or getattr(entry, field) == wanted]
    if found:
        return found
    there = _unique(_spoken(field, getattr(entry, field)) for entry in pool if getattr(entry, field) is not None)
    if not there:
        raise UsageError(f"{request.task} takes no {field} (found {wanted})", hint=request.command)
    named = [request.model, request.variant if field != "variant" else None]
    who = f"{' '.join(filter(None, named))} has no" if any(named) else "no model has"
    what = f"{field} {_spoken(field, wanted)} for {request.task}{suggest(str(wanted), there)}"
    raise UsageError(f"{who} {what}; there is {', '.join(there)}", hint=request.command)


def _colours(pool: list[Entry], request: Request) -> list[Entry]:
    """Without gray checkpoints for a colour image, and without dual-pixel ones unless that variant is named."""
    named = request.variant is not None
    found = [entry for entry in pool if entry.channels == 3 or (entry.channels == 6 and named)]
    if request.channels == 1:
        found = [entry for entry in pool if entry.channels == 1 or entry in found]
    if not found:
        what = f"{request.model or request.task} {request.variant or ''}".strip()
        raise UsageError(f"{what} is published for gray images only, this image has colours", hint=request.command)
    return found


def _best(family: list[Entry], request: Request) -> Entry:
    """The one entry of a family: first-listed variant and noise, gray for gray, then the nearest quality."""
    first = family[0]
    like = [e for e in family if (e.variant, e.scale, e.noise) == (first.variant, first.scale, first.noise)]
    if request.channels == 1:
        like = [entry for entry in like if entry.channels == 1] or like
    wanted = request.quality
    if wanted is None:
        return like[0]
    # a tie goes to the lower quality: it removes more, and the image has at least that much to remove
    return min(like, key=lambda entry: (abs((entry.quality or 0) - wanted), entry.quality or 0))


def _spoken(field: str, value: object) -> str:
    return f"×{value}" if field == "scale" else str(value)


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
