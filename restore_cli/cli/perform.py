"""What the task commands do once their options are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from restore_cli.cli.console import Downloads, complain, note, say, tiles
from restore_cli.cli.options import Options, Selection
from restore_cli.errors import Interrupted, NothingToDo, RestoreError, UsageError
from restore_cli.finish import Finish
from restore_cli.image.codec import FORMAT_SUFFIX, SUFFIXES
from restore_cli.image.resize import target_size
from restore_cli.inputs import Asked
from restore_cli.job import Job, Result, Watch, run
from restore_cli.naming import sheet_path
from restore_cli.weights.catalogue import Request, read_catalogue

__all__ = ["job_for", "perform"]


def perform(task: str, options: Options) -> None:
    """Restore, report each picture, exit with the code that says how it went."""
    job = with_files(job_for(task, options), options)
    downloads = Downloads(job.catalogue.entry, options.quiet)
    done = skipped = 0
    errors: list[RestoreError] = []
    try:
        with tiles(options.quiet) as bar:
            on_note = (lambda text: None) if options.quiet else note
            watch = Watch(downloads, on_note, on_picture=bar.picture, on_tile=bar.tile)
            for result in run(job, watch):
                report(result, options.quiet)
                if options.compare and result.status == "done":
                    compare(result, options.overwrite)
                done, skipped = done + (result.status == "done"), skipped + (result.status == "skipped")
                errors += [result.error] if result.error else []
    except KeyboardInterrupt:
        raise Interrupted("interrupted", hint="the same command again: what is done is skipped") from None
    finish(done, skipped, errors)


def job_for(task: str, options: Selection) -> Job:
    """The selection as a Job without inputs. UsageError for sizes that cannot be."""
    check_least(options, tile=0, overlap=0, batch=1)
    request = Request(task, options.model, options.variant, options.scale, options.noise, options.quality)
    return Job(
        request=request,
        catalogue=read_catalogue(options.catalogue),
        weights=options.weights,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        offline=options.offline,
    )


def with_files(job: Job, options: Options) -> Job:
    """The job with its inputs and outputs. UsageError for what cannot be."""
    check_least(options, frame=1, jpeg_quality=1, max_pixels=1)
    if options.jpeg_quality is not None and options.jpeg_quality > 100:
        raise UsageError(f"--jpeg-quality {options.jpeg_quality}: expected 1 to 100")
    resize = resize_checked(options.resize)
    return replace(
        job,
        asked=Asked(tuple(map(str, options.inputs))),
        output=options.output,
        again="overwrite" if options.overwrite else "resume",
        format=format_named(options.format),
        frame=options.frame,
        jpeg_quality=options.jpeg_quality,
        max_pixels=options.max_pixels,
        finish=Finish(options.bit_depth, options.dither, options.alpha, options.icc, resize, options.strip),
    )


def check_least(options: Selection, **least: int) -> None:
    """UsageError for an option below the least that it can be."""
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected {smallest} or more")


def format_named(name: str | None) -> str | None:
    """A value of SUFFIXES for what was typed. UsageError for another word."""
    found = SUFFIXES.get(f".{name.lower()}") if name else None
    if name and found is None:
        raise UsageError(f"--format {name}: expected {', '.join(value.lower() for value in FORMAT_SUFFIX)}")
    return found


def resize_checked(wish: str | None) -> str | None:
    """The wish, if it can be meant. UsageError."""
    if wish is not None:
        target_size(wish, (1, 1))
    return wish


def report(result: Result, quiet: bool) -> None:
    """One line for one picture."""
    if result.error is not None:
        complain(result.error)
    elif quiet:
        return
    elif result.status == "skipped":
        note(f"{result.input}: {result.output} {result.notes[0]}")
    else:
        width, height = result.size or (0, 0)
        how = "; ".join((f"{result.model}, {width}×{height} px, {result.seconds:.1f} s", *result.notes))
        say(f"{result.input} → {result.output}  ({how})")


def compare(result: Result, overwrite: bool) -> None:
    """The sheet of a result and its input, beside the result; a sheet that cannot be is a note, the result stands."""
    from restore_cli.cli.compare import write
    from restore_cli.comparison import Panel, sheet
    from restore_cli.image.codec import decode

    path = Path(sheet_path(result.output))
    try:
        panels = [Panel(p.name, decode(p)) for p in (Path(result.input), Path(result.output))]
        write(path, sheet(panels), overwrite)
    except RestoreError as error:
        note(f"{path}: no sheet: {error}")


def finish(done: int, skipped: int, errors: list[RestoreError]) -> None:
    """Exit with 0 where all went well, the failure's own code where there is one kind and no success, else with 1."""
    if errors:
        if done or skipped or len(errors) > 1:
            note(f"{len(errors)} of {done + skipped + len(errors)} failed")
        codes = {error.code for error in errors}
        raise typer.Exit(codes.pop() if len(codes) == 1 and not done else 1)
    if not done:
        raise NothingToDo("nothing to do: every output is there already", hint="--overwrite")
