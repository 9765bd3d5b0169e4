"""Chooses the executor of a job: threads of this process, one process per device, or a Ray cluster."""

from __future__ import annotations

from restore_cli.errors import UsageError
from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.types import Executor, Job, Stopping
from restore_cli.models.processor import use_granted_cores

__all__ = ["check_executor", "choose_executor"]


def check_executor(job: Job) -> None:
    """Raise UsageError if options of the cluster contradict each other, or if Ray is not installed."""
    if job.run.cluster is not None:
        from restore_cli.jobs.workers.ray_cluster import check_cluster

        check_cluster(job)
    elif job.run.workers is not None or job.run.gpus_per_worker is not None:
        option = "--workers" if job.run.workers is not None else "--gpus-per-worker"
        raise UsageError(f"{option} is for a cluster", hint="--cluster auto, or --device all for the devices here")


def choose_executor(job: Job, models: ModelCache, stopping: Stopping) -> Executor:
    """Return an executor on a Ray cluster, in one process per device, or in this process. Raises UsageError.

    In this process it also limits PyTorch's threads to the granted cores, so only commands may call this.
    """
    on_event = models.on_event
    if job.run.cluster is not None:
        from restore_cli.jobs.workers.dispatcher import Dispatcher
        from restore_cli.jobs.workers.ray_cluster import RayBackend

        return Dispatcher(RayBackend(job, on_event), job, on_event, stopping)
    if job.model.several_devices:
        from restore_cli.jobs.workers.dispatcher import Dispatcher
        from restore_cli.jobs.workers.processes import ProcessBackend, list_devices

        return Dispatcher(ProcessBackend(job, list_devices(job.model.device)), job, on_event, stopping)
    from restore_cli.jobs.workers.worker import Worker

    use_granted_cores()
    return Worker(job, models, stopping)
