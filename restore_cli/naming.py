"""Where results go: no input is written over, no two inputs share an output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from restore_cli.errors import UsageError
from restore_cli.inputs import Input

__all__ = ["Naming", "outputs", "sheet_path"]

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

    def suffix(self, path: Path) -> str:
        """The result's: the input's own, but PNG for an enlarged lossy picture and where it names no format."""
        if self.forced is not None:
            return self.forced
        own = path.suffix.lower()
        return ".png" if own not in self.suffixes or (self.task == "sr" and own in LOSSY) else path.suffix


def outputs(inputs: Sequence[Input], naming: Naming) -> list[tuple[Input, Path]]:
    """Each input with its output; inputs that are another input's output, or its sheet, are passed over.

    Where two would share a name, those of another suffix than the result carry theirs inside it (photo.jpg.png).
    Raises UsageError where they would still share one, or would write over an input.
    """
    folder = is_folder(inputs, naming)
    plain = [place(item, naming, folder, whole_name=False) for item in inputs]
    shared = Counter(plain)
    named = [
        place(item, naming, folder, whole_name=True) if shared[path] > 1 and item.path.suffix != path.suffix else path
        for item, path in zip(inputs, plain, strict=True)
    ]
    refuse_shared(inputs, named, naming)
    made = {path.absolute() for output in named for path in (output, sheet_path(output))}
    pairs = list(zip(inputs, named, strict=True))
    if naming.output is not None:
        refuse_overwritten(pairs)
        return pairs
    return [(item, path) for item, path in pairs if item.path.absolute() not in made]


def sheet_path(output: Path) -> Path:
    """Where the sheet that compares a result with its input lies; two results never share one."""
    name = output.stem if output.suffix == ".png" and not Path(output.stem).suffix else output.name
    return output.with_name(f"{name}_compare.png")


def is_folder(inputs: Sequence[Input], naming: Naming) -> bool:
    """Whether -o names a folder: it is one, ends like one, has no known suffix, or there are several inputs for it."""
    if naming.output is None or naming.template:
        return False
    path = Path(naming.output)
    if path.is_dir() or naming.output.endswith(("/", "\\")):
        return True
    if path.suffix.lower() in naming.suffixes:
        refuse_contradiction(path, naming)
        if len(inputs) > 1:
            raise UsageError(
                f"-o {naming.output} is one file for {len(inputs)} inputs", hint=f"-o {path.with_suffix('')}/"
            )
        return False
    return True


def refuse_contradiction(path: Path, naming: Naming) -> None:
    """UsageError where a name says another format than was asked for."""
    if naming.forced and naming.suffixes[path.suffix.lower()] != naming.suffixes[naming.forced]:
        asked = naming.suffixes[naming.forced].lower()
        raise UsageError(
            f"-o {path} names another format than --format {asked}", f"-o {path.with_suffix(naming.forced)}"
        )


def place(item: Input, naming: Naming, folder: bool, *, whole_name: bool) -> Path:
    """The output of one input; with `whole_name` its suffix is part of the stem."""
    stem = item.path.name if whole_name else item.path.stem
    suffix = naming.suffix(item.path)
    if naming.output is None:
        return item.path.with_name(f"{stem}_{naming.tag}{suffix}")
    if naming.template:
        return filled(naming, stem, suffix)
    if folder:
        return Path(naming.output, item.relative).with_name(f"{stem}{suffix}")
    return Path(naming.output)


def filled(naming: Naming, stem: str, suffix: str) -> Path:
    """The template with its fields filled in; without a known suffix it gets the result's."""
    template = naming.output or ""
    try:
        unknown = [name for _, name, _, _ in Formatter().parse(template) if name is not None and name not in FIELDS]
        if unknown:
            raise ValueError(f"{{{unknown[0]}}} is none of {', '.join(f'{{{name}}}' for name in FIELDS)}")
        path = Path(template.format(stem=stem, task=naming.task, model=naming.model, scale=naming.scale))
    except (ValueError, IndexError) as error:
        raise UsageError(f"-o {template}: not a template: {error}", hint="-o 'out/{stem}_{model}.png'") from None
    return path if path.suffix.lower() in naming.suffixes else path.with_name(path.name + suffix)


def refuse_shared(inputs: Sequence[Input], named: Sequence[Path], naming: Naming) -> None:
    """UsageError for the first two inputs that would be written to one file."""
    first: dict[Path, Input] = {}
    for item, path in zip(inputs, named, strict=True):
        other = first.setdefault(path.absolute(), item)
        if other is not item:
            hint = "put {stem} into the template" if naming.template else "restore them one after the other"
            raise UsageError(f"{other.path} and {item.path} would both be written to {path}", hint=hint)


def refuse_overwritten(pairs: Sequence[tuple[Input, Path]]) -> None:
    """UsageError for the first output that is an input."""
    sources = {item.path.resolve() for item, _ in pairs}
    for item, path in pairs:
        if path.resolve() in sources:
            raise UsageError(
                f"{item.path} would be written to {path}, which is an input", hint="-o with another folder"
            )
