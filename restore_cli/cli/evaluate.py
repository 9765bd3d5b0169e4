"""`restore eval`: restores images that have a reference and measures the difference."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from restore_cli.cli.console import Downloads, can_draw, escape_controls, note, say, say_json, say_table
from restore_cli.cli.options import INPUT, MEASUREMENT, REPORTING, ModelFlags, command, flag, list_options, option
from restore_cli.cli.own_files import refuse_other_content
from restore_cli.cli.parsing import Command, examples
from restore_cli.errors import Interrupted, OutputError, UsageError
from restore_cli.jobs.events import Event, Note
from restore_cli.special_files import find_descriptor, refuse_special_file

if TYPE_CHECKING:
    from restore_cli.evaluation.evaluate import Row, Summary

__all__ = ["add_eval"]

CSV_START = re.compile(rb"image,")
TITLES = {"psnr": "PSNR", "ssim": "SSIM", "psnr_y": "PSNR Y", "ssim_y": "SSIM Y", "psnrb": "PSNR-B"}
HELP = """Measure results against true images: PSNR and SSIM, on RGB and on Y.

Restores the images in --input, or degrades the references first: bicubic for sr, --noise, --quality.
With --restored it measures existing results and runs no model.
"""

EXAMPLES = examples(
    ("Measure on a benchmark's own inputs", "restore eval sr -s 4 --reference Set5/HR --input Set5/LR_bicubic/X4"),
    ("Make the inputs from the references", "restore eval sr -s 4 --reference Set5/HR"),
    ("Add noise of σ 25", "restore eval denoise --noise 25 --reference CBSD68"),
    ("Measure results that exist already", "restore eval --restored out/ --reference HR/ --border 4"),
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The options of `restore eval`."""

    model: ModelFlags
    task: str | None = option("sr, denoise, deblur, derain or dejpeg; leave it out with --restored.", None, "TASK")
    reference: Path = option("The true image, or a folder of true images.", INPUT, "PATH", default=MISSING)
    input: Path | None = option("The degraded image or folder. Default: made from the references.", INPUT, "PATH")
    restored: Path | None = option("Measure these results instead of restoring; no task, no model.", INPUT, "PATH")
    sigma: float | None = option("Noise to add, σ of 255. Default: what --noise says.", INPUT, "N")
    seed: int = option("Seed of the noise.", INPUT, "N", 0)
    border: int | None = option(
        "Pixels cut from every side before measuring. Default: the scale for sr, otherwise 0.", MEASUREMENT, "N"
    )
    baseline: str = option(
        "Also measure bicubic, input or none. Default: bicubic for sr, otherwise input.", MEASUREMENT, "NAME", "auto"
    )
    tiles: str | None = option(
        "Compare the results of these tile sides with the untiled result: 64,128,256.", MEASUREMENT, "N,N"
    )
    strength: float = option(
        "Measure the result blended with the input: 1 is the restored image, 0 the input.", MEASUREMENT, "N", 1.0
    )
    json: bool = flag("Print one JSON object per image, the means last.", REPORTING)
    csv: Path | None = option("Also write the rows to this file.", REPORTING, "FILE")
    overwrite: bool = flag("Replace the --csv file if it exists.", REPORTING)


def add_eval(app: typer.Typer) -> None:
    """Add the command `eval`."""
    app.command("eval", cls=Command, help=HELP, epilog=EXAMPLES)(command(Evaluation, run_eval))


def run_eval(options: Evaluation) -> None:
    """Measure, print a table or JSON lines, and write the CSV file."""
    if options.csv is not None:
        refuse_unusable(options.csv, options.overwrite)
    if options.border is not None and options.border < 0:
        raise UsageError(f"--border {options.border}: expected 0 or more")
    from restore_cli.evaluation.evaluate import summarize

    rows: list[Row] = []
    try:
        for row in measure_images(options):
            rows.append(row)
            if options.json:
                say_json(row_to_json(row))
    except KeyboardInterrupt:
        raise Interrupted("interrupted: there is no result, because the means need every image") from None
    found, cut = summarize(rows), parse_sides(options.tiles)
    if options.csv is not None:
        write_csv(rows, found, options.csv)
    if not options.json:
        print_table(rows, found)
        if cut:
            print_tiles(rows, cut)
        return
    for tile in summarize_tiles(rows, cut):
        say_json(tile)
    say_json(summary_to_json(found))


def refuse_unusable(table: Path, overwrite: bool) -> None:
    """Raise OutputError if --csv names something that it may not replace. Standard streams are allowed."""
    if find_descriptor(table) is not None:
        return
    refuse_special_file(table, "--csv")
    if table.is_dir():
        raise OutputError(f"--csv {table}: is a folder", hint="--csv with the name of a file")
    refuse_other_content("--csv", table, CSV_START, "table of restore eval")
    if table.exists() and not overwrite:
        raise OutputError(f"{table}: exists already", hint="--overwrite")


def measure_images(options: Evaluation) -> Iterator[Row]:
    """Yield a row for each image, restored or given, with a live display on a terminal."""
    from restore_cli.cli.build_job import build_model_options
    from restore_cli.cli.display import Display, show_display
    from restore_cli.evaluation.evaluate import EvalOptions, evaluate, evaluate_folders
    from restore_cli.models.processor import use_granted_cores

    if options.restored is not None:
        refuse_model(options)
        yield from evaluate_folders(options.restored, options.reference, options.border or 0)
        return
    if options.task is None:
        raise UsageError("eval needs a task, or --restored", hint="restore eval sr --reference HR/")
    model = build_model_options(options.task, options.model)
    measured = EvalOptions(
        options.reference,
        options.input,
        options.sigma,
        options.seed,
        options.border,
        options.baseline,
        parse_sides(options.tiles),
        options.strength,
    )
    live = can_draw() and not options.json
    downloads = Downloads(model.catalogue.find_entry, options.json, live)
    display = Display(downloads, model.device)

    def on_event(event: Event) -> None:
        downloads.handle(event)
        display.handle_alone(event)
        if isinstance(event, Note):
            note(event.text)

    with show_display(display, live):
        use_granted_cores()
        for row in evaluate(model, measured, on_event):
            for text in row.notes:
                note(f"{row.image}: {text}")
            yield row


def refuse_model(options: Evaluation) -> None:
    """Raise UsageError for the first option that has no effect on given results."""
    apart = {"reference", "restored", "border", "json", "csv", "overwrite"}
    values = vars(options) | vars(options.model)
    for name, (field, _) in list_options(Evaluation).items():
        if name not in apart and values[name] != field.default:
            shown = "a task" if name == "task" else f"--{name}"
            raise UsageError(f"--restored measures existing results; {shown} is for restoring")


def parse_sides(text: str | None) -> tuple[int, ...]:
    """Return (64, 128) for "64,128". Raises UsageError."""
    if text is None:
        return ()
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise UsageError(f"--tiles {text}: expected sides of at least 1 px", hint="--tiles 64,128,256")
    return found


def print_table(rows: Sequence[Row], found: Summary) -> None:
    """Print the measures, the checkpoints and the speed."""
    names = list(found.mean)
    timed = found.seconds_per_megapixel is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("image", overflow="fold")
    for heading in [*(TITLES[name] for name in names), *(["seconds"] if timed else [])]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        seconds = [] if row.seconds is None else [f"{row.seconds:.2f}"]
        table.add_row(escape(escape_controls(row.image)), *format_measures(row.measures), *seconds)
    table.add_section()
    table.add_row("mean", *format_measures(found.mean), style="bold")
    if found.baseline is not None:
        table.add_row("baseline", *format_measures(found.baseline), style="dim")
    say_table(table)
    for name, sha256 in found.checkpoints.items():
        say(f"{name}  sha256 {sha256}")
    if timed:
        say(f"{found.seconds_per_megapixel:.2f} s per megapixel of input")


def print_tiles(rows: Sequence[Row], cut: Sequence[int]) -> None:
    """Print how tiling changes the result, for each tile side."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("tile", "cut", "PSNR to untiled", "seam", "of the untiled", "relative"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tile in summarize_tiles(rows, cut):
        seams = (tile[name] for name in ("seam", "seam_untiled", "seam_relative"))
        cells = ("–" if value is None else f"{value:.4f}" for value in seams)
        table.add_row(str(tile["tile"]), f"{tile['cut']}/{len(rows)}", format_measure("psnr", tile["psnr"]), *cells)
    say("")
    say_table(table)


def summarize_tiles(rows: Sequence[Row], cut: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the means for each tile side over the images that it cuts. Other images equal the untiled ones."""
    for side in cut:
        group = [tile for row in rows for tile in row.tiles if tile.tile == side]
        seams = fmean(t.seam for t in group) if group else None
        untiled = fmean(t.seam_untiled for t in group) if group else None
        yield {
            "tile": side,
            "cut": len(group),
            "psnr": finite_or_none(fmean(t.psnr for t in group)) if group else None,
            "seam": seams,
            "seam_untiled": untiled,
            "seam_relative": seams / untiled if seams is not None and untiled else None,
        }


def format_measures(measures: Mapping[str, float]) -> Iterator[str]:
    return (format_measure(name, value) for name, value in measures.items())


def format_measure(name: str, value: float | None) -> str:
    """Return decibels with three decimals, which distinguish 38.29 from 38.30, and SSIM with four."""
    if value is None or math.isinf(value):
        return "∞"
    return f"{value:.4f}" if name.startswith("ssim") else f"{value:.3f}"


def finite_or_none(value: float) -> float | None:
    """Return None for infinity, the PSNR of equal images, which JSON cannot express."""
    return None if math.isinf(value) else value


def row_to_json(row: Row) -> dict[str, Any]:
    measures = {name: finite_or_none(value) for name, value in row.measures.items()}
    return {"image": row.image, **measures, **({} if row.seconds is None else {"seconds": round(row.seconds, 4)})}


def summary_to_json(found: Summary) -> dict[str, Any]:
    """Return the last JSON object: the means, and the checkpoints."""
    mean = {name: finite_or_none(value) for name, value in found.mean.items()}
    if found.seconds_per_megapixel is not None:
        mean["seconds_per_megapixel"] = round(found.seconds_per_megapixel, 4)
    base = None if found.baseline is None else {name: finite_or_none(value) for name, value in found.baseline.items()}
    names, hashes = (", ".join(words) or None for words in (found.checkpoints, found.checkpoints.values()))
    return {"mean": mean, "baseline": base, "checkpoint": names, "sha256": hashes}


def write_csv(rows: Sequence[Row], found: Summary, path: Path) -> None:
    """Write a line for each image, then the mean and the baseline. The file appears only when it is complete."""
    from restore_cli.atomic import atomic_write, describe_refusal

    names = list(found.mean)
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow(["image", *names, "seconds", "checkpoint", "sha256"])
    for row in rows:
        lines.writerow([row.image, *(row.measures[n] for n in names), row.seconds, row.checkpoint, row.sha256])
    for title, measures in (("mean", found.mean), ("baseline", found.baseline)):
        if measures is not None:
            lines.writerow([title, *(measures[n] for n in names), None, None, None])
    content = text.getvalue().encode(errors="surrogateescape")
    if (descriptor := find_descriptor(path)) is None:
        with atomic_write(path) as file:
            file.write(content)
        return
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(content)
    except OSError as error:
        raise describe_refusal(path, error) from None
