"""Many pictures: which are left to do, restored by whoever is there, a Result for every input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from threading import Event, Thread

from restore_cli.errors import NothingToDo, OutputError, RestoreError, UsageError
from restore_cli.image.codec import infer_format
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX, READ_ONLY_SUFFIXES, SUFFIX_BY_FORMAT
from restore_cli.jobs.model_cache import Bench, check_request
from restore_cli.jobs.naming import Naming
from restore_cli.jobs.paths import PassedOver, is_remote
from restore_cli.jobs.plan import Plan
from restore_cli.jobs.types import Crew, Job, Result, Step, Watch

__all__ = ["Job", "Result", "Watch", "look", "nothing_found", "run"]

IDLE = 0.1
"""seconds between two looks at whether there is something to do"""


def run(job: Job, watch: Watch, choose_executor: Callable[[Bench], Crew]) -> Iterator[Result]:
    """One Result for each input, failures too. The executor is chosen when the first picture is to be restored.

    Raises before the first one: UsageError for a request that cannot be meant; NothingToDo where no input was found;
    and at any time WeightsError, because without its checkpoint no picture can be restored.
    """
    check_request(job)
    check_remote(job)
    bench = Bench(job, watch)
    with closing(plan_for(job, bench, watch)) as plan:
        if watch.on_total is not None:
            Thread(target=counted, args=(plan, watch.on_total), daemon=True).start()
        halted = Event()
        for result in done(bench, going(plan.steps(), lambda: halted.is_set() or watch.stopping()), choose_executor):
            if job.fail_fast and result.status == "failed":
                halted.set()
            yield written_down(plan, result)
        if not (plan.found or job.shard or job.watch or watch.stopping()):  # another shard may have found some
            raise nothing_found(job, watch.passed)


def counted(plan: Plan, tell: Callable[[int], None]) -> None:
    """Tells how many inputs there are; what is wrong with them, the steps say."""
    with suppress(RestoreError):
        tell(plan.count())


def look(job: Job, bench: Bench) -> Plan:
    """What `run` would go by; its steps write nothing and begin nothing. Raises UsageError as `run` does."""
    check_request(job)
    return plan_for(job, bench, bench.watch, looking=True)


def nothing_found(job: Job, passed: PassedOver) -> NothingToDo:
    """The error for no inputs."""
    names = ", ".join(job.asked.paths) or "the list"
    line = f"no image in {names}: none of its files ends in {' '.join(FORMAT_BY_SUFFIX)}"
    if not passed.linked_folders:
        return NothingToDo(line)
    return NothingToDo(f"{line}; linked folders were not followed: {passed.linked_folders}", hint="--follow-links")


def going(steps: Iterator[Step], stopping: Callable[[], bool]) -> Iterator[Step]:
    """The steps, until it is time to stop."""
    while not stopping():
        try:
            step = next(steps)
        except StopIteration:
            return
        yield step


def done(bench: Bench, steps: Iterator[Step], choose_executor: Callable[[Bench], Crew]) -> Iterator[Result]:
    """The Results of the steps; what it takes to restore is not loaded before there is something to restore."""
    for step in steps:
        if isinstance(step, Result):
            yield step
        elif step is None:
            time.sleep(IDLE)
        else:
            yield from choose_executor(bench).results(chain([step], steps))


def check_remote(job: Job) -> None:
    """UsageError for what is asked of files elsewhere and only local ones can do."""
    paths = [path for path in (*job.asked.paths, *(job.asked.listed or ()), job.output or "") if is_remote(path)]
    asked = {"--watch": job.watch, "--hash": job.hash, "--keep-times": job.keep_times}
    if paths and (option := next((name for name, given in asked.items() if given), None)):
        raise UsageError(f"{option} is for files of this machine, {paths[0]} lies elsewhere")


def written_down(plan: Plan, result: Result) -> Result:
    """The Result, once it stands in the manifest; where it cannot stand there, it says so."""
    try:
        plan.end(result)
    except OutputError as error:
        result.notes = (*result.notes, f"restored, but not written down: {error}")
    return result


def plan_for(job: Job, bench: Bench, watch: Watch, looking: bool = False) -> Plan:
    """What is to be done; no picture is opened, so that no two outputs are one."""
    if job.output is not None and job.output.lower().endswith(READ_ONLY_SUFFIXES):
        infer_format(Path(job.output))  # says why not
    task = job.request.task
    forced = SUFFIX_BY_FORMAT[job.format] if job.format else None
    if job.weights is not None:
        here = Bench(replace(job, device="cpu"), watch) if job.elsewhere else bench
        scale = here.own(job.weights).contract.scale
        naming = Naming(task, job.weights.stem, scale, job.output, FORMAT_BY_SUFFIX, forced)
        return Plan(job, naming, here.sha256(job.weights.name), watch.passed, looking)
    entry = job.catalogue.select(job.request)[0]
    naming = Naming(task, entry.model, entry.scale, job.output, FORMAT_BY_SUFFIX, forced)
    return Plan(job, naming, None, watch.passed, looking)
