"""`--dry-run`: shows what would be read, written and downloaded, and estimates the time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import typer

from restore_cli.cli.console import complain, note, say, say_json
from restore_cli.cli.options import Options
from restore_cli.cli.report import result_to_json, stats_to_json
from restore_cli.cli.run_stats import RunStats, count_images, describe_ignored, format_duration, format_megapixels
from restore_cli.jobs.estimate import Estimate, InputSample, estimate_run
from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.run import make_no_inputs_error, plan_dry_run
from restore_cli.jobs.types import Job, Result, Task
from restore_cli.models.processor import use_granted_cores

__all__ = ["dry_run"]


def dry_run(job: Job, options: Options) -> None:
    """Print the plan and the estimate, and raise the exit code."""
    first = "auto" if job.model.device == "all" else job.model.device.partition(",")[0]
    models = ModelCache(replace(job.model, device=first))  # a tile is measured on the first of several devices
    with closing(plan_dry_run(job, models)) as plan:
        sample, stats = InputSample(), RunStats(plan.ignored)
        for item in plan.items():
            if item is None:
                continue
            if isinstance(item, Task):
                sample.add(item)
            else:
                stats.add(item)
            print_item(item, options)
        if not stats.total and not sample.count and not job.run.shard:
            raise make_no_inputs_error(job, plan.ignored)
        if sample.count:
            use_granted_cores()
        manifests = [path for manifest in plan.manifests.values() for path in manifest.files]
        found = estimate_run(job, models, sample, manifests)
    for result in found.refused:
        stats.add(result)
        print_item(result, options)
    stats.planned = sample.count - len(found.refused)
    if not sample.count:
        stats.conclude(job.run, stopped=False)
    print_estimate(found, stats, options)
    if stats.ended is not None:
        raise stats.ended
    if stats.code:
        raise typer.Exit(stats.code)


def print_estimate(found: Estimate, stats: RunStats, options: Options) -> None:
    """Print the estimate as lines or as one JSON object."""
    if options.run.json:
        say_json({"summary": estimate_to_json(found, stats)})
    elif not options.run.quiet:
        for line in describe_estimate(found, stats):
            note(line)


def print_item(item: Task | Result, options: Options) -> None:
    """Print one line or one JSON object for one input."""
    if options.run.json:
        say_json(result_to_json(item if isinstance(item, Result) else Result(item.input, item.output, "planned")))
    elif isinstance(item, Task):
        if not options.run.quiet:
            say(f"{item.input} → {item.output}")
    elif item.error is not None:
        complain(item.error)
    elif not options.run.quiet:
        say(f"{item.input}: skipped: {item.output} {item.notes[0]}")


def describe_estimate(found: Estimate, stats: RunStats) -> list[str]:
    """Return the estimate as lines of text."""
    extrapolated = f", extrapolated from {found.probed} of them" if found.probed < found.count else ""
    counts = f"{stats.skipped} skipped, {stats.failed} failed{describe_ignored(stats.ignored)}"
    amount = f", {format_megapixels(found.pixels)}{extrapolated}" if found.probed or not found.count else ""
    lines = [f"would restore {count_images(stats.planned)}{amount}; {counts}"]
    if found.unreadable:
        lines.append(f"{found.unreadable} of {found.probed} headers cannot be read: these images will fail")
    for entry in found.missing:
        size = f" ({entry.bytes / 1e6:.1f} MB)" if entry.bytes else ""
        lines.append(f"would fetch {entry.name}{size}, licence {entry.license}")
    if stats.planned:
        seconds = "" if found.seconds is None else f"{format_duration(found.seconds)}, "
        lines.append(f"time: {seconds}{found.basis}")
    return lines


def estimate_to_json(found: Estimate, stats: RunStats) -> dict[str, Any]:
    """Return the summary object."""
    fetched = [
        {"name": entry.name, "megabytes": entry.bytes and round(entry.bytes / 1e6, 1), "license": entry.license}
        for entry in found.missing
    ]
    seconds = None if found.seconds is None else round(found.seconds, 1)
    return {
        **stats_to_json(stats),
        "planned": stats.planned,
        "probed": found.probed,
        "unreadable": found.unreadable,
        "megapixels": round(found.pixels / 1e6, 3),
        "seconds": seconds,
        "basis": found.basis,
        "fetch": fetched,
    }
