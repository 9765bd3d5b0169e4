"""Names outputs, so that no input is overwritten and no two inputs get the same output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from restore_cli.errors import OutputError, UsageError
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX
from restore_cli.jobs.paths import Input, canonicalize_path, split_suffix
from restore_cli.special_files import refuse_special_file

__all__ = ["Assignment", "Naming", "assign_outputs", "name_sheet"]

TEMPLATE_FIELDS = ("stem", "task", "model", "scale")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif")


@dataclass(frozen=True)
class Naming:
    """The parts of output names. `output` is the value of -o: a file, a folder, a template, or None."""

    task: str
    model: str
    scale: int
    output: str | None
    forced_suffix: str | None = None
    """the suffix of the format that --format names"""
    sheets: bool = False
    """whether each output gets a sheet that compares it with its input"""

    @property
    def is_template(self) -> bool:
        """Whether `output` has fields to fill in."""
        return self.output is not None and "{" in self.output

    @property
    def tag(self) -> str:
        """The end of the stem if the output is written beside the input: sr4, denoise, etc."""
        return f"{self.task}{self.scale}" if self.task == "sr" else self.task

    def find_folder(self, several: bool) -> str | None:
        """Return the folder that -o names, or None if it names a file or a template.

        Raises UsageError if several inputs would be written to one file.
        """
        if self.output is None or self.is_template:
            return None
        suffix = os.path.splitext(self.output)[1].lower()
        if os.path.isdir(self.output) or self.output.endswith(("/", "\\")) or suffix not in FORMAT_BY_SUFFIX:
            refuse_file(self.output)
            return self.output
        check_format(self, suffix)
        if several:
            raise UsageError(f"-o {self.output} is one file for several inputs", f"-o {self.output[: -len(suffix)]}/")
        return None

    def choose_suffix(self, own: str) -> str:
        """Return the suffix of the output for an input with the suffix `own`.

        It is the same, except that PNG is used for enlarged lossy images and for unknown suffixes.
        """
        if self.forced_suffix is not None:
            return self.forced_suffix
        known = own.lower() in FORMAT_BY_SUFFIX
        return own if known and not (self.task == "sr" and own.lower() in LOSSY_SUFFIXES) else ".png"


class Assignment(NamedTuple):
    """Inputs with their outputs, and inputs that cannot be written under the name that they would get."""

    pairs: list[tuple[Input, str]]
    refused: list[tuple[Input, str, UsageError]]


def assign_outputs(inputs: Sequence[Input], naming: Naming, folder: str | None) -> Assignment:
    """Assign an output to each input. Inputs that are the output or the comparison sheet of another input are left out.

    If two outputs would get the same name, the input whose suffix differs keeps it in the name: photo.jpg.png.
    If the names are still equal, the later input is refused. So is an input whose output or sheet would overwrite an
    input, or whose sheet would overwrite the output of another input.
    """
    plain = [name_output(item, naming, folder, whole_name=False) for item in inputs]
    shared = Counter(plain)
    if len(shared) < len(plain):
        plain = [
            name_output(item, naming, folder, whole_name=True)
            if shared[path] > 1 and os.path.splitext(item.path)[1] != os.path.splitext(path)[1]
            else path
            for item, path in zip(inputs, plain, strict=True)
        ]
    if naming.output is None:
        made = {canonicalize_path(name) for output in plain for name in (output, name_sheet(output))}
        pairs = [(i, path) for i, path in zip(inputs, plain, strict=True) if canonicalize_path(i.path) not in made]
        sources: set[str] = set()
    else:
        pairs = list(zip(inputs, plain, strict=True))
        sources = {canonicalize_path(item.path) for item in inputs}
    targets = {canonicalize_path(path) for _, path in pairs}
    sheets = {canonicalize_path(name_sheet(path)) for _, path in pairs} if naming.sheets else set()
    if len(targets) == len(pairs) and sources.isdisjoint(targets) and sheets.isdisjoint(sources | targets):
        return Assignment(pairs, [])
    return separate_conflicts(pairs, sources, naming)


def separate_conflicts(pairs: list[tuple[Input, str]], sources: set[str], naming: Naming) -> Assignment:
    """Return the pairs without conflict, and the others with the reason."""
    first: dict[str, Input] = {}
    targets = {canonicalize_path(path) for _, path in pairs}
    refused = []
    for item, path in pairs:
        target, sheet = canonicalize_path(path), name_sheet(path)
        other = first.setdefault(target, item)
        if target in sources:
            line = f"{item.path} would be written to {path}, which is an input"
            refused.append((item, path, UsageError(line, hint="-o with another folder")))
        elif other is not item:
            hint = "put {stem} into the template" if naming.is_template else "restore them one after the other"
            line = f"{other.path} and {item.path} would both be written to {path}"
            refused.append((item, path, UsageError(line, hint=hint)))
        elif naming.sheets and canonicalize_path(sheet) in sources | targets:
            line = f"the sheet of {item.path} would be written to {sheet}, which is an input or another output"
            refused.append((item, path, UsageError(line, hint="without --compare, or -o with another name")))
    out = {item.path for item, _, _ in refused}
    return Assignment([pair for pair in pairs if pair[0].path not in out], refused)


def name_sheet(output: str) -> str:
    """Return the path of the sheet that compares a result with its input. Different results have different sheets."""
    stem, suffix = os.path.splitext(output)
    inner = os.path.splitext(stem)[1]
    return f"{stem if suffix == '.png' and not inner else output}_compare.png"


def refuse_file(output: str) -> None:
    """Raise OutputError if -o names a folder, but something else exists there."""
    path = Path(output)
    if os.path.lexists(path) and not path.is_dir():
        refuse_special_file(path)
        raise OutputError(f"-o {output}: exists, and is not a folder", "-o with another name")


def check_format(naming: Naming, suffix: str) -> None:
    """Raise UsageError if the suffix of -o and --format name different formats."""
    if naming.forced_suffix and FORMAT_BY_SUFFIX[suffix] != FORMAT_BY_SUFFIX[naming.forced_suffix]:
        asked = FORMAT_BY_SUFFIX[naming.forced_suffix].lower()
        renamed = f"-o {Path(naming.output or '').with_suffix(naming.forced_suffix)}"
        raise UsageError(f"-o {naming.output} names another format than --format {asked}", renamed)


def name_output(item: Input, naming: Naming, folder: str | None, *, whole_name: bool) -> str:
    """Return the output of one input. With `whole_name`, the suffix of the input is kept in the stem."""
    above, slash, name = item.path.rpartition("/")
    stem, own = split_suffix(name)
    suffix = naming.choose_suffix(own)
    stem = name if whole_name else stem
    if naming.output is None:
        return f"{above}{slash}{stem}_{naming.tag}{suffix}"
    if naming.is_template:
        return fill_template(naming, stem, suffix)
    if folder is None:
        return naming.output
    inside = item.relative[: -len(name)]
    return f"{folder.rstrip('/') or '/'}/{inside}{stem}{suffix}"


def fill_template(naming: Naming, stem: str, suffix: str) -> str:
    """Return the template with its fields filled in, and with a suffix if it has no known one. Raises UsageError."""
    template = naming.output or ""
    try:
        for _, name, spec, conversion in Formatter().parse(template):
            if name is not None and name not in TEMPLATE_FIELDS:
                raise ValueError(f"{{{name}}} is none of {', '.join(f'{{{field}}}' for field in TEMPLATE_FIELDS)}")
            if spec or conversion:
                raise ValueError(f"write {{{name}}} without a conversion or a format")
        path = template.format(stem=stem, task=naming.task, model=naming.model, scale=naming.scale)
    except (ValueError, IndexError) as error:
        raise UsageError(f"-o {template}: not a template: {error}", hint="-o 'out/{stem}_{model}.png'") from None
    return path if os.path.splitext(path)[1].lower() in FORMAT_BY_SUFFIX else path + suffix
