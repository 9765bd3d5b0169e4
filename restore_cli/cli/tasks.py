"""`restore sr`, `denoise`, `deblur`, `derain`, `dejpeg`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import typer

from restore_cli.cli.console import Downloads, complain, note, say, tiles
from restore_cli.cli.options import OF_TASK, Options, Selection, command
from restore_cli.errors import NothingToDo, RestoreError, UsageError
from restore_cli.job import Job, Result, Watch, run
from restore_cli.naming import sheet_path
from restore_cli.weights.catalogue import Request, read_catalogue

__all__ = ["add_tasks", "job_for"]

HELP = {
    "sr": "Enlarge pictures (super-resolution).",
    "denoise": "Remove noise.",
    "deblur": "Remove motion blur, or with --variant defocus the blur of a lens out of focus.",
    "derain": "Remove rain.",
    "dejpeg": "Remove the artefacts of JPEG compression.",
}


class Interrupted(RestoreError):
    """The person at the terminal asked to stop."""

    code = 130


def add_tasks(app: typer.Typer) -> None:
    """Five commands with one set of options."""
    for task, text in HELP.items():
        others = [name for name, only in OF_TASK.items() if only != task]
        app.command(task, help=text)(command(Options, partial(perform, task), others))


def perform(task: str, options: Options) -> None:
    """Restore, report each picture, exit with the code that says how it went."""
    wanted = job_for(task, options)
    job = replace(wanted, inputs=tuple(options.inputs), output=options.output, overwrite=options.overwrite)
    downloads = Downloads(job.catalogue.entry, options.quiet)
    done = skipped = 0
    errors: list[RestoreError] = []
    try:
        with tiles(options.quiet) as bar:
            on_note = (lambda text: None) if options.quiet else note
            watch = Watch(downloads, on_note, bar.picture, bar.tile)
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
    for name, value, least in (("tile", options.tile, 0), ("overlap", options.overlap, 0), ("batch", options.batch, 1)):
        if value is not None and value < least:
            raise UsageError(f"--{name} {value}: expected {least} or more")
    request = Request(task, options.model, options.variant, options.scale, options.noise, options.quality)
    return Job(
        request=request,
        catalogue=read_catalogue(options.catalogue),
        inputs=(),
        weights=options.weights,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        offline=options.offline,
    )


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

    path = sheet_path(result.output)
    try:
        panels = [Panel(str(p.name), decode(p)) for p in (result.input, result.output)]
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
