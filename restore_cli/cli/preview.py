"""`--dry-run`: what would be read, written and fetched, and how long it may take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from restore_cli.cli.console import complain, note, say, say_json
from restore_cli.cli.options import Options
from restore_cli.cli.report import as_json, summary
from restore_cli.cli.tally import Tally, megapixels, passed_over, pictures, spoken
from restore_cli.jobs.estimate import Forecast, Sample, forecast
from restore_cli.jobs.model_cache import Bench
from restore_cli.jobs.run import Job, Result, Watch, look, nothing_found
from restore_cli.jobs.types import Work
from restore_cli.models.processor import use_granted_cores

__all__ = ["preview"]


def preview(job: Job, options: Options) -> None:
    """Says it, and exits with the code that says whether there is something to do."""
    bench = Bench(replace(job, device=one_device(job)), Watch())
    plan, sample = look(job, bench), Sample()
    tally = Tally(plan.passed)
    for step in plan.steps():
        if step is not None:
            sample_or_count(step, sample, tally)
            show(step, options)
    if not tally.total and not sample.count and not job.shard:
        raise nothing_found(job, plan.passed)
    manifests = [Path(path) for manifest in plan.manifests.values() for path in manifest.files]
    if sample.count:
        use_granted_cores()
    found = forecast(job, bench, sample, manifests)
    for result in found.refused:
        tally.add(result)
        show(result, options)
    tally.planned = sample.count - len(found.refused)
    if not sample.count:
        tally.conclude(job, stopped=False)
    if options.json:
        say_json({"summary": planned(found, tally)})
    elif not options.quiet:
        for line in told(found, tally):
            note(line)
    if tally.ended is not None:
        raise tally.ended
    if tally.code:
        raise typer.Exit(tally.code)


def one_device(job: Job) -> str:
    """Where a tile is measured, if several are to restore."""
    return "auto" if job.device == "all" else job.device.partition(",")[0]


def sample_or_count(step: Work | Result, sample: Sample, tally: Tally) -> None:
    """Work is to be forecast, the rest is known."""
    if isinstance(step, Work):
        sample.add(step)
    else:
        tally.add(step)


def show(step: Work | Result, options: Options) -> None:
    """One line, or one object, for one input."""
    if options.json:
        say_json(as_json(step if isinstance(step, Result) else Result(step.input, step.output, "planned")))
    elif isinstance(step, Work):
        if not options.quiet:
            say(f"{step.input} → {step.output}")
    elif step.error is not None:
        complain(step.error)
    elif not options.quiet:
        say(f"{step.input}: skipped: {step.output} {step.notes[0]}")


def told(found: Forecast, tally: Tally) -> list[str]:
    """The forecast in words."""
    reckoned = f", reckoned from {found.probed} of them" if found.probed < found.count else ""
    counts = f"{tally.skipped} skipped, {tally.failed} failed{passed_over(tally.passed)}"
    lines = [f"would restore {pictures(tally.planned)}, {megapixels(found.pixels)}{reckoned}; {counts}"]
    if found.unreadable:
        lines.append(f"{found.unreadable} of {found.probed} headers cannot be read: those pictures will fail")
    lines += [f"would fetch {entry.name}{size_of(entry.bytes)}, licence {entry.license}" for entry in found.missing]
    if tally.planned:
        lines.append(f"time: {found.basis if found.seconds is None else f'{spoken(found.seconds)}, {found.basis}'}")
    return lines


def size_of(size: int | None) -> str:
    """In brackets, where it is known."""
    return f" ({size / 1e6:.1f} MB)" if size else ""


def planned(found: Forecast, tally: Tally) -> dict[str, Any]:
    """The summary object."""
    fetched = [
        {"name": entry.name, "megabytes": entry.bytes and round(entry.bytes / 1e6, 1), "license": entry.license}
        for entry in found.missing
    ]
    seconds = None if found.seconds is None else round(found.seconds, 1)
    return {
        **summary(tally),
        "planned": tally.planned,
        "probed": found.probed,
        "unreadable": found.unreadable,
        "megapixels": round(found.pixels / 1e6, 3),
        "seconds": seconds,
        "basis": found.basis,
        "fetch": fetched,
    }
