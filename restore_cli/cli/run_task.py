"""Runs the commands that restore: `restore sr`, `denoise`, etc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import typer

from restore_cli.cli.build_job import build_job
from restore_cli.cli.console import Downloads, PipeClosed, can_draw, note, out, say, say_above_display
from restore_cli.cli.display import Display, show_display
from restore_cli.cli.dry_run import dry_run
from restore_cli.cli.inputs import STANDARD, choose_shard
from restore_cli.cli.options import Options
from restore_cli.cli.piped_image import check_streams, replace_streams, uses_streams
from restore_cli.cli.report import Json, Lines, Log, Reporter
from restore_cli.cli.run_stats import RunStats
from restore_cli.cli.signals import Stop, stop_on_signals
from restore_cli.errors import OutputError, RestoreError, stating_lack_of_memory
from restore_cli.jobs.events import Event, OnEvent, PictureFinished, StopRequested
from restore_cli.jobs.naming import name_sheet
from restore_cli.jobs.run import run_job
from restore_cli.jobs.types import Job, Result, RunOptions

__all__ = ["run_task"]


def run_task(task: str, options: Options) -> None:
    """Restore, report each image, and raise the exit code."""
    check_streams(options)
    job = build_job(task, options)
    shard, variables = choose_shard(options, os.environ)
    job = replace(job, run=replace(job.run, shard=shard))
    if shard is not None and variables is not None and not options.run.quiet:
        note(f"shard {shard[0]}/{shard[1]} of the inputs, because of {variables}; --shard 1/1 for all")
    if options.run.dry_run:
        dry_run(job, options)
    else:
        run_and_report(job, options)


def run_and_report(job: Job, options: Options) -> None:
    """Run the job, report what happens, and raise the exit code."""
    live = can_draw() and not options.run.quiet
    downloads, stats = Downloads(job.model.catalogue.find_entry, options.run.quiet, live), RunStats()
    display, reporters = Display(downloads, job.model.device), list(make_reporters(options, live))
    handlers = [downloads.handle, display.handle]
    handlers += [reporter.handle for reporter in reporters]  # last, because they can fail

    def on_event(event: Event) -> None:
        for handle in handlers:
            handle(event)

    stop = Stop(lambda: 0 if downloads.name else len(display.in_flight), lambda count: on_event(StopRequested(count)))
    try:
        with ExitStack() as stack:
            stack.enter_context(show_display(display, live))
            stack.enter_context(stop_on_signals(stop))
            stream = stack.enter_context(replace_streams(job, options, stop.cleanups))
            count_inputs = live and not job.run.watch
            results = run_job(
                stream.job, stream.rename_events(on_event), lambda: stop.requested, stats.ignored, count_inputs
            )
            report_results(map(stream.deliver, results), on_event, stats, job.run)
    except KeyboardInterrupt:
        stop.requested = True
    except (RestoreError, PipeClosed) as error:
        stats.ended = error
    stats.conclude(job.run, stop.requested)
    for reporter in reporters:
        reporter.finish(stats)
    if stats.ended is not None:
        raise stats.ended
    if stats.code:
        raise typer.Exit(stats.code)


def report_results(results: Iterable[Result], on_event: OnEvent, stats: RunStats, run: RunOptions) -> None:
    """Count and report each Result. A report that cannot be written does not end the run."""
    for result in results:
        if run.compare and result.status == "done":
            write_sheet(result, run.if_exists == "overwrite")
        stats.add(result)
        try:
            on_event(PictureFinished(result))
        except OutputError as error:  # later lines will fail too, but the images are written
            stats.unprinted = error


def make_reporters(options: Options, live: bool) -> Iterator[Reporter]:
    """Yield the log and what is printed. Raises OutputError."""
    outgoing = uses_streams(options)[1]
    if options.run.log is not None:
        yield Log(options.run.log)
    on_screen = say_above_display if live and out.is_terminal else say
    lines = None if options.run.json else note if outgoing else on_screen
    yield Lines(lines, [STANDARD, *(options.input.inputs or ())], options.run.quiet)
    if options.run.json:
        yield Json()


def write_sheet(result: Result, overwrite: bool) -> None:
    """Write a sheet that compares a result with its input. A failure, such as lack of memory, is only a note."""
    from restore_cli.cli.compare import write_comparison
    from restore_cli.evaluation.comparison import Panel, make_sheet
    from restore_cli.image.codec import decode_finite

    path = Path(name_sheet(result.output))
    try:
        with stating_lack_of_memory("cpu", "the sheet"):
            panels = [Panel(p.name, decode_finite(p)) for p in (Path(result.input), Path(result.output))]
            write_comparison(path, make_sheet(panels), overwrite)
    except RestoreError as error:
        note(f"{path}: no sheet: {error}")
