"""Where results go: no input is written over, no two inputs share an output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from restore_cli.errors import OutputError, UsageError
from restore_cli.jobs.paths import Input, absolute, split
from restore_cli.special_files import refuse_special_file

__all__ = ["Naming", "Outputs", "outputs", "sheet_path"]

FIELDS = ("stem", "task", "model", "scale")
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif")


@dataclass(frozen=True)
class Naming:
    """What names are made of; `output` is what -o said: a file, a folder, a template with {stem} …, or nothing."""

    task: str
    model: str
    scale: int
    output: str | None
    suffixes: Mapping[str, str]
    """known suffixes and their formats"""
    forced: str | None = None
    """the suffix of the format that was asked for"""

    @property
    def template(self) -> bool:
        """Whether `output` has fields to fill in."""
        return self.output is not None and "{" in self.output

    @property
    def tag(self) -> str:
        """What is put behind the stem of a result that lies beside its input: sr4, denoise, …"""
        return f"{self.task}{self.scale}" if self.task == "sr" else self.task

    def folder(self, several: bool) -> str | None:
        """The folder that -o names: it is one, ends like one or has no known suffix. UsageError for several in one."""
        if self.output is None or self.template:
            return None
        suffix = os.path.splitext(self.output)[1].lower()
        if os.path.isdir(self.output) or self.output.endswith(("/", "\\")) or suffix not in self.suffixes:
            refuse_file(self.output)
            return self.output
        refuse_contradiction(self, suffix)
        if several:
            raise UsageError(f"-o {self.output} is one file for several inputs", f"-o {self.output[: -len(suffix)]}/")
        return None

    def suffix(self, own: str) -> str:
        """The result's: the input's own, but PNG for an enlarged lossy picture and where it names no format."""
        if self.forced is not None:
            return self.forced
        known = own.lower() in self.suffixes
        return own if known and not (self.task == "sr" and own.lower() in LOSSY) else ".png"


class Outputs(NamedTuple):
    """Where each input's result goes, and the inputs whose results cannot go where they should."""

    pairs: list[tuple[Input, str]]
    refused: list[tuple[Input, str, UsageError]]


def outputs(inputs: Sequence[Input], naming: Naming, folder: str | None) -> Outputs:
    """Each input with its output; inputs that are another input's output, or its sheet, are passed over.

    Where two would share a name, those of another suffix than the result carry theirs inside it (photo.jpg.png).
    Refused are the later of two that would still share one, and those that would write over an input.
    """
    plain = [place(item, naming, folder, whole_name=False) for item in inputs]
    shared = Counter(plain)
    if len(shared) < len(plain):
        plain = [
            place(item, naming, folder, whole_name=True) if shared[path] > 1 and not alike(item.path, path) else path
            for item, path in zip(inputs, plain, strict=True)
        ]
    if naming.output is None:
        made = {absolute(name) for output in plain for name in (output, sheet_path(output))}
        pairs = [(i, path) for i, path in zip(inputs, plain, strict=True) if absolute(i.path) not in made]
        sources: set[str] = set()
    else:
        pairs = list(zip(inputs, plain, strict=True))
        sources = {absolute(item.path) for item in inputs}
    targets = {absolute(path) for _, path in pairs}
    if len(targets) == len(pairs) and sources.isdisjoint(targets):
        return Outputs(pairs, [])
    return parted(pairs, sources, naming)


def parted(pairs: list[tuple[Input, str]], sources: set[str], naming: Naming) -> Outputs:
    """Those that can be, and the others with the reason."""
    first: dict[str, Input] = {}
    refused = []
    for item, path in pairs:
        target = absolute(path)
        other = first.setdefault(target, item)
        if target in sources:
            line = f"{item.path} would be written to {path}, which is an input"
            refused.append((item, path, UsageError(line, hint="-o with another folder")))
        elif other is not item:
            hint = "put {stem} into the template" if naming.template else "restore them one after the other"
            line = f"{other.path} and {item.path} would both be written to {path}"
            refused.append((item, path, UsageError(line, hint=hint)))
    out = {item.path for item, _, _ in refused}
    return Outputs([pair for pair in pairs if pair[0].path not in out], refused)


def alike(path: str, other: str) -> bool:
    """Whether they end in the same suffix."""
    return os.path.splitext(path)[1] == os.path.splitext(other)[1]


def sheet_path(output: str) -> str:
    """Where the sheet that compares a result with its input lies; two results never share one."""
    stem, suffix = os.path.splitext(output)
    inner = os.path.splitext(stem)[1]
    return f"{stem if suffix == '.png' and not inner else output}_compare.png"


def refuse_file(output: str) -> None:
    """Raise OutputError where -o names a folder, but something else exists there."""
    path = Path(output)
    if os.path.lexists(path) and not path.is_dir():
        refuse_special_file(path)
        raise OutputError(f"-o {output}: exists, and is not a folder", "-o with another name")


def refuse_contradiction(naming: Naming, suffix: str) -> None:
    """UsageError where a name says another format than was asked for."""
    if naming.forced and naming.suffixes[suffix] != naming.suffixes[naming.forced]:
        asked = naming.suffixes[naming.forced].lower()
        renamed = f"-o {Path(naming.output or '').with_suffix(naming.forced)}"
        raise UsageError(f"-o {naming.output} names another format than --format {asked}", renamed)


def place(item: Input, naming: Naming, folder: str | None, *, whole_name: bool) -> str:
    """The output of one input; with `whole_name` its suffix is part of the stem."""
    above, slash, name = item.path.rpartition("/")
    stem, own = split(name)
    suffix = naming.suffix(own)
    stem = name if whole_name else stem
    if naming.output is None:
        return f"{above}{slash}{stem}_{naming.tag}{suffix}"
    if naming.template:
        return filled(naming, stem, suffix)
    if folder is None:
        return naming.output
    inside = item.relative[: -len(name)]
    return f"{folder.rstrip('/') or '/'}/{inside}{stem}{suffix}"


def filled(naming: Naming, stem: str, suffix: str) -> str:
    """The template with its fields filled in; without a known suffix it gets the result's."""
    template = naming.output or ""
    try:
        for _, name, spec, conversion in Formatter().parse(template):
            if name is not None and name not in FIELDS:
                raise ValueError(f"{{{name}}} is none of {', '.join(f'{{{name}}}' for name in FIELDS)}")
            if spec or conversion:
                raise ValueError(f"write {{{name}}} without a conversion or a format")
        path = template.format(stem=stem, task=naming.task, model=naming.model, scale=naming.scale)
    except (ValueError, IndexError) as error:
        raise UsageError(f"-o {template}: not a template: {error}", hint="-o 'out/{stem}_{model}.png'") from None
    return path if os.path.splitext(path)[1].lower() in naming.suffixes else path + suffix
