"""`restore compare`: pictures beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from restore_cli.cli.console import say
from restore_cli.cli.parsing import Command
from restore_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from restore_cli.comparison import Crop
    from restore_cli.image.picture import Picture

__all__ = ["add_compare", "write"]


def add_compare(app: typer.Typer) -> None:
    """The command `compare`."""
    app.command("compare", cls=Command)(compare)


def compare(
    pictures: Annotated[list[Path], Argument(help="Two pictures or more, the first is before.", show_default=False)],
    output: Annotated[Path, Option("--output", "-o", help="The picture or page to write.", show_default=False)],
    crop: Annotated[str | None, Option(help="Only this part: X,Y,W,H in px of the largest picture.")] = None,
    zoom: Annotated[int, Option(help="Show each px as a square of so many px.")] = 1,
    split: Annotated[bool, Option("--split", help="Before and after in one picture, with a dividing line.")] = False,
    html: Annotated[bool, Option("--html", help="One self-contained page with a slider to drag.")] = False,
    label: Annotated[list[str] | None, Option(help="Instead of the file names, one for each picture.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Write the output again where it is there.")] = False,
) -> None:
    """Lay pictures beside each other, the smaller ones enlarged so that px line up."""
    from restore_cli import comparison
    from restore_cli.image.codec import decode_finite

    if split and html:
        raise UsageError("--split makes a picture, --html a page; give one of them")
    if html != (output.suffix.lower() in (".html", ".htm")):
        fit = "-o compare.html" if html else f"-o {output.with_suffix('.png')}, or --html"
        raise UsageError(f"-o {output}: its suffix is not that of {'a page' if html else 'a picture'}", hint=fit)
    if label and len(label) != len(pictures):
        raise UsageError(f"--label is given {len(label)} times for {len(pictures)} pictures")
    refuse_input(pictures, output)
    refuse_existing(output, overwrite)
    titles = label or names(pictures)
    panels = [comparison.Panel(title, decode_finite(path)) for title, path in zip(titles, pictures, strict=True)]
    make = comparison.page if html else comparison.split if split else comparison.sheet
    write(output, make(panels, area(crop), zoom), overwrite)
    say(f"{' | '.join(map(str, pictures))} → {output}")


def names(paths: list[Path]) -> list[str]:
    """File names, with as many folders in front as tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        found = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(found)) == len(set(paths)):
            return found
    return [str(path) for path in paths]


def area(text: str | None) -> Crop | None:
    """A Crop of "10,20,64,48". UsageError for anything else."""
    from restore_cli.comparison import Crop

    if text is None:
        return None
    try:
        x, y, width, height = (int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--crop {text}: expected four whole numbers X,Y,W,H", hint="--crop 0,0,64,64") from None
    return Crop(x, y, width, height)


def refuse_input(pictures: list[Path], output: Path) -> None:
    """UsageError where the output would replace a picture that it shows."""
    if output.resolve() in {path.resolve() for path in pictures}:
        raise UsageError(f"-o {output}: is one of the pictures to compare", hint="-o with another name")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """OutputError where something is there that was not to be replaced."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: is there already", hint="--overwrite")


def write(path: Path, made: Picture | bytes, overwrite: bool) -> None:
    """The picture or page, whole or not at all."""
    from restore_cli.atomic import atomic_write
    from restore_cli.image.codec import encode

    refuse_existing(path, overwrite)
    if isinstance(made, bytes):
        with atomic_write(path) as file:
            file.write(made)
    else:
        encode(made, path)
