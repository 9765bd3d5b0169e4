"""Who restores a job: threads of this process, a process for each device, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator

from restore_cli.errors import UsageError
from restore_cli.jobs.model_cache import Bench
from restore_cli.jobs.run import run
from restore_cli.jobs.types import Crew, Job, Result, Watch
from restore_cli.models.processor import use_granted_cores

__all__ = ["choose_executor", "run_job"]


def run_job(job: Job, watch: Watch | None = None) -> Iterator[Result]:
    """`run` with the executor that the job's options name. Raises UsageError where they contradict each other."""
    check_executor(job)
    return run(job, watch or Watch(), choose_executor)


def check_executor(job: Job) -> None:
    """Raise UsageError where options of the cluster contradict each other, or Ray is not installed."""
    if job.cluster is not None:
        from restore_cli.jobs.workers.ray_cluster import check_cluster

        check_cluster(job)
    elif job.workers is not None or job.gpus_per_worker is not None:
        option = "--workers" if job.workers is not None else "--gpus-per-worker"
        raise UsageError(f"{option} is for a cluster", hint="--cluster auto, or --device all for the devices here")


def choose_executor(bench: Bench) -> Crew:
    """A Ray cluster, a process for each of several devices, or this process. Raises UsageError.

    If this process does the work, it also limits PyTorch's threads to the granted cores: call this in the command only.
    """
    job, watch = bench.job, bench.watch
    if job.cluster is not None:
        from restore_cli.jobs.workers.dispatcher import Foreman
        from restore_cli.jobs.workers.ray_cluster import Cluster

        return Foreman(Cluster(job, watch), job, watch)
    if job.several_devices:
        from restore_cli.jobs.workers.dispatcher import Foreman
        from restore_cli.jobs.workers.processes import Pool, devices

        return Foreman(Pool(job, devices(job.device)), job, watch)
    from restore_cli.jobs.workers.worker import Worker

    use_granted_cores()
    return Worker(bench)
