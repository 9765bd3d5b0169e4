"""`restore compare`: images side by side."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from restore_cli.cli.console import say
from restore_cli.cli.options import OTHER, command, flag, option
from restore_cli.cli.parsing import Command, examples
from restore_cli.errors import OutputError, UsageError
from restore_cli.special_files import refuse_special_file

if TYPE_CHECKING:
    from restore_cli.evaluation.comparison import Crop
    from restore_cli.image.picture import Picture

__all__ = ["add_compare", "write_comparison"]

EXAMPLES = examples(
    ("Put two images side by side, with labels", "restore compare before.png after.png -o sheet.png"),
    ("Show a detail of three", "restore compare in.png a.png b.png -o sheet.png --crop 100,60,80,60 --zoom 5"),
    ("Make a page with a slider", "restore compare before.png after.png -o page.html --html"),
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The options of `restore compare`."""

    pictures: list[Path] = option("Two images or more; the first is the one before.", None, "PICTURES", MISSING)
    output: Path = option("The image or page to write.", OTHER, "FILE", MISSING, short="-o")
    crop: str | None = option("Show only this part: X,Y,W,H in pixels of the largest image.", OTHER, "X,Y,W,H")
    zoom: int = option("Draw each pixel as a square of N by N pixels.", OTHER, "N", 1)
    split: bool = flag("Write one image: the left half of the first, the right half of the second.", OTHER)
    html: bool = flag("Write one self-contained page with a slider.", OTHER)
    label: list[str] | None = option("Text shown instead of a file name; give it once for each image.", OTHER, "TEXT")
    overwrite: bool = flag("Replace the output if it exists.", OTHER)


def add_compare(app: typer.Typer) -> None:
    """Add the command `compare`."""
    text = "Put images side by side; smaller ones are enlarged so that their pixels line up."
    app.command("compare", cls=Command, help=text, epilog=EXAMPLES)(command(Comparison, compare))


def compare(options: Comparison) -> None:
    """Write the sheet, the split image or the page."""
    from restore_cli.evaluation import comparison
    from restore_cli.image.codec import decode_finite

    pictures, output = options.pictures, options.output
    check_sheet_output(output, options.split, options.html)
    if options.label and len(options.label) != len(pictures):
        raise UsageError(f"--label is given {len(options.label)} times for {len(pictures)} images")
    if output.resolve() in {path.resolve() for path in pictures}:
        raise UsageError(f"-o {output}: is one of the images to compare", hint="-o with another name")
    refuse_existing(output, options.overwrite)
    titles = options.label or shorten_names(pictures)
    panels = [comparison.Panel(title, decode_finite(path)) for title, path in zip(titles, pictures, strict=True)]
    make = comparison.make_page if options.html else comparison.make_split if options.split else comparison.make_sheet
    write_comparison(output, make(panels, parse_crop(options.crop), options.zoom), options.overwrite)
    say(f"{' | '.join(map(str, pictures))} → {output}")


def check_sheet_output(output: Path, split: bool, html: bool) -> None:
    """Raise UsageError or OutputError for an output that does not fit the options."""
    if str(output) == "-":
        raise UsageError("-o -: a comparison is written to a file, not to standard output", hint="-o sheet.png")
    refuse_special_file(output)
    if split and html:
        raise UsageError("--split writes an image and --html writes a page; give one of them")
    if html != (output.suffix.lower() in (".html", ".htm")):
        fit = "-o compare.html" if html else f"-o {output.with_suffix('.png')}, or --html"
        raise UsageError(f"-o {output}: its suffix is not that of {'a page' if html else 'an image'}", hint=fit)


def shorten_names(paths: list[Path]) -> list[str]:
    """Return file names, with as many parent folders as make them different."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        found = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(found)) == len(set(paths)):
            return found
    return [str(path) for path in paths]


def parse_crop(text: str | None) -> Crop | None:
    """Return the Crop of "10,20,64,48". Raises UsageError."""
    from restore_cli.evaluation.comparison import Crop

    if text is None:
        return None
    try:
        x, y, width, height = (int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--crop {text}: expected four whole numbers X,Y,W,H", hint="--crop 0,0,64,64") from None
    return Crop(x, y, width, height)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputError if the file exists and may not be replaced."""
    refuse_special_file(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already", hint="--overwrite")


def write_comparison(path: Path, made: Picture | bytes, overwrite: bool) -> None:
    """Write an image or a page. The file appears only when it is complete."""
    from restore_cli.atomic import atomic_write
    from restore_cli.image.codec import encode

    refuse_existing(path, overwrite)
    if isinstance(made, bytes):
        with atomic_write(path) as file:
            file.write(made)
    else:
        encode(made, path)
