"""Runs a job: plans the inputs, restores them with an executor, records and yields a Result for each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from restore_cli.errors import NothingToDo, OutputError, RestoreError, StorageError, UsageError
from restore_cli.image.codec import infer_format
from restore_cli.image.formats.capabilities import READ_ONLY_SUFFIXES, READABLE_SUFFIXES, SUFFIX_BY_FORMAT
from restore_cli.jobs.events import InputsCounted, OnEvent, ignore_event
from restore_cli.jobs.model_cache import ModelCache, check_request
from restore_cli.jobs.naming import Naming
from restore_cli.jobs.paths import IgnoredFiles, is_remote
from restore_cli.jobs.plan import Plan
from restore_cli.jobs.types import Executor, Job, PlanItem, Result, Stopping
from restore_cli.jobs.workers.executors import check_executor, choose_executor
from restore_cli.system import use_slashes

__all__ = ["make_no_inputs_error", "plan_dry_run", "run_job"]

POLL_SECONDS = 0.1
"""time between two checks for new inputs"""


def run_job(
    job: Job,
    on_event: OnEvent = ignore_event,
    stopping: Stopping = lambda: False,
    ignored: IgnoredFiles | None = None,
    count_inputs: bool = False,
) -> Iterator[Result]:
    """Yield one Result for each input, including those that fail.

    `stopping` returns whether to start no more tasks. `ignored` counts the files that are not inputs. `count_inputs`
    reports InputsCounted, for which all folders are read once more.

    Raises, before the first Result: UsageError for an invalid request. At any time: WeightsError, because without its
    checkpoint no image can be restored, and StorageError, after the images in progress have ended. At the end:
    NothingToDo if there is no input.
    """
    check_executor(job)
    check_request(job.model)
    check_remote(job)
    models = ModelCache(job.model, on_event)
    ignored = IgnoredFiles() if ignored is None else ignored
    with closing(make_plan(job, models, ignored)) as plan:
        if count_inputs:
            threading.Thread(target=report_count, args=(plan, on_event), daemon=True).start()
        halted = threading.Event()
        items = take_until(lambda: halted.is_set() or stopping(), plan.items())
        refused: list[StorageError] = []
        for result in execute(items, lambda: choose_executor(job, models, lambda: bool(refused) or stopping())):
            if isinstance(result.error, StorageError):  # not the fault of this input
                refused.append(result.error)
                halted.set()
                continue
            if job.run.fail_fast and result.status == "failed":
                halted.set()
            yield record_result(plan, result)
        if refused:
            raise refused[0]
        plan.publish()
        if not (plan.found or job.run.shard or job.run.watch or stopping()):  # another shard may have found some
            raise make_no_inputs_error(job, ignored)


def report_count(plan: Plan, on_event: OnEvent) -> None:
    """Report the number of inputs. Errors are left to the run itself, which finds them too."""
    with suppress(RestoreError):
        on_event(InputsCounted(plan.count_inputs()))


def plan_dry_run(job: Job, models: ModelCache) -> Plan:
    """Return the plan that `run_job` would follow. Reading its items writes nothing. Raises UsageError."""
    check_request(job.model)
    return make_plan(job, models, IgnoredFiles(), dry_run=True)


def make_no_inputs_error(job: Job, ignored: IgnoredFiles) -> NothingToDo:
    """Return the error for a run without inputs."""
    names = ", ".join(job.inputs.paths) or "the list"
    line = f"no image in {names}: none of its files ends in {' '.join(READABLE_SUFFIXES)}"
    if not ignored.linked_folders:
        return NothingToDo(line)
    return NothingToDo(f"{line}; linked folders were not followed: {ignored.linked_folders}", hint="--follow-links")


def take_until(stopping: Stopping, items: Iterator[PlanItem]) -> Iterator[PlanItem]:
    """Yield the items until it is time to stop."""
    while not stopping():
        try:
            item = next(items)
        except StopIteration:
            return
        yield item


def execute(items: Iterator[PlanItem], make_executor: Callable[[], Executor]) -> Iterator[Result]:
    """Yield the Results of the items. The executor, which is slow to import, is made for the first task."""
    for item in items:
        if isinstance(item, Result):
            yield item
        elif item is None:
            time.sleep(POLL_SECONDS)
        else:
            yield from make_executor().results(chain([item], items))


def check_remote(job: Job) -> None:
    """Raise UsageError for options that work with local files only, if a path is remote."""
    paths = [path for path in (*job.inputs.paths, *(job.inputs.listed or ()), job.output or "") if is_remote(path)]
    run = job.run
    local_only = {
        "--watch": run.watch,
        "--hash": run.compare_by_hash,
        "--keep-times": run.keep_times,
        "--compare": run.compare,
    }
    if paths and (option := next((name for name, given in local_only.items() if given), None)):
        raise UsageError(f"{option} works with local files only, and {paths[0]} is remote")


def record_result(plan: Plan, result: Result) -> Result:
    """Return the Result after recording it in the manifest. If that fails, the Result gets a note."""
    try:
        plan.record(result)
    except (OutputError, StorageError) as error:
        result.notes = (*result.notes, f"restored, but not recorded in the manifest: {error}")
    return result


def make_plan(job: Job, models: ModelCache, ignored: IgnoredFiles, dry_run: bool = False) -> Plan:
    """Return the plan of a job. No image is opened.

    The scale of a custom checkpoint is part of the output names, so that checkpoint is loaded here: on the CPU, if
    other processes restore.
    """
    if job.output is not None and job.output.lower().endswith(READ_ONLY_SUFFIXES):
        infer_format(Path(job.output))  # raises the reason
    task = job.model.request.task
    forced = SUFFIX_BY_FORMAT[job.format] if job.format else None
    if job.model.weights is None:
        entry = job.model.catalogue.select(job.model.request)[0]
        model, scale, sha256 = entry.model, entry.scale, None
    else:
        here = ModelCache(replace(job.model, device="cpu"), models.on_event) if job.uses_other_processes else models
        model, scale = job.model.weights.stem, here.get_custom(job.model.weights).contract.scale
        sha256 = here.sha256(job.model.weights.name)
    output = None if job.output is None else use_slashes(job.output)
    return Plan(job, Naming(task, model, scale, output, forced, job.run.compare), sha256, ignored, dry_run)
