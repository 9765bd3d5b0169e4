"""What the task commands do once their options are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import typer

from restore_cli.cli.console import Downloads, PipeClosed, above, note, out, say, shows
from restore_cli.cli.inputs import STANDARD, shard_for
from restore_cli.cli.jobs import job_for, with_files
from restore_cli.cli.options import Options
from restore_cli.cli.preview import preview
from restore_cli.cli.progress import Display, displayed
from restore_cli.cli.report import AtHand, Json, Lines, Log, Report, Reports
from restore_cli.cli.signals import Stop, stopping
from restore_cli.cli.streams import Streams, refuse_contradictions, streams, uses_standard
from restore_cli.cli.tally import Tally
from restore_cli.errors import OutputError, RestoreError
from restore_cli.jobs.naming import sheet_path
from restore_cli.jobs.run import Job, Result, Watch
from restore_cli.jobs.workers.executors import run_job

__all__ = ["perform"]


def perform(task: str, options: Options) -> None:
    """Restore, report each picture, exit with the code that says how it went."""
    refuse_contradictions(options)
    job = with_files(job_for(task, options), options)
    shard, whence = shard_for(options, os.environ)
    job = replace(job, shard=shard)
    if shard is not None and whence is not None and not options.quiet:
        note(f"shard {shard[0]}/{shard[1]} of the inputs, by {whence}; --shard 1/1 for all of them")
    if options.dry_run:
        preview(job, options)
    else:
        restore(job, options)


def restore(job: Job, options: Options) -> None:
    """The job, with everybody who hears of it."""
    live = shows() and not options.quiet
    downloads, at_hand, tally = Downloads(job.catalogue.entry, options.quiet, live), AtHand(), Tally()
    display = Display(downloads, job.device)
    reports = Reports([at_hand, *([display] if live else []), *reports_for(options, live)])  # those that may fail last
    stop = Stop(lambda: 0 if downloads.name else len(at_hand), reports.stopping)
    watch = Watch(downloads, reports.note, on_tile=reports.tile, passed=tally.passed, stopping=lambda: stop.asked)
    if live and not job.watch:
        watch.on_total = reports.total
    try:
        with ExitStack() as stack:
            stack.enter_context(displayed(display, live))
            stack.enter_context(stopping(stop))
            follow(stack.enter_context(streams(job, options, stop.leaving)), watch, reports, tally, options)
    except KeyboardInterrupt:
        stop.asked = True
    except (RestoreError, PipeClosed) as error:
        tally.ended = error
    tally.conclude(job, stop.asked)
    reports.end(tally)
    if tally.ended is not None:
        raise tally.ended
    if tally.code:
        raise typer.Exit(tally.code)


def follow(stream: Streams, watch: Watch, reports: Report, tally: Tally, options: Options) -> None:
    """Passes on what becomes of each picture."""
    watch.on_picture = lambda path: reports.begin(stream.name(path))
    for found in run_job(stream.job, watch):
        result = stream.delivered(found)
        if options.compare and result.status == "done":
            compare(result, options.overwrite)
        tally.add(result)
        try:
            reports.result(result)
        except OutputError as error:  # this line is lost and later ones will be, the images are not
            tally.unprinted = error


def reports_for(options: Options, live: bool) -> Iterator[Report]:
    """The log, and what is printed. Raises OutputError."""
    outgoing = uses_standard(options)[1]
    if options.log is not None:
        yield Log(options.log)
    on_screen = above if live and out.is_terminal else say
    lines = None if options.json else note if outgoing else on_screen
    yield Lines(lines, [STANDARD, *(options.inputs or ())], options.quiet)
    if options.json:
        yield Json()


def compare(result: Result, overwrite: bool) -> None:
    """The sheet of a result and its input, beside the result; a sheet that cannot be is a note, the result stands."""
    from restore_cli.cli.compare import write
    from restore_cli.evaluation.comparison import Panel, sheet
    from restore_cli.image.codec import decode_finite

    path = Path(sheet_path(result.output))
    try:
        panels = [Panel(p.name, decode_finite(p)) for p in (Path(result.input), Path(result.output))]
        write(path, sheet(panels), overwrite)
    except RestoreError as error:
        note(f"{path}: no sheet: {error}")
