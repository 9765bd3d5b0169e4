"""Restores files with a test's model, by the worker that the commands use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from nearest_model import NearestModel

from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.types import Job, ModelOptions, Result, Task
from restore_cli.jobs.workers.worker import Worker
from restore_cli.models.network import Network
from restore_cli.tiling.geometry import Tiling
from restore_cli.weights.catalogue import Catalogue, Request

__all__ = ["JOB", "restore_files"]

JOB = Job(ModelOptions(Request("sr"), Catalogue((), {}), weights=Path("nearest"), device="cpu"))


def restore_files(model: NearestModel, tasks: Iterable[Task], tiling: Tiling, job: Job = JOB) -> list[Result]:
    """Return the Result of each task. The model is loaded already and starts with `tiling`."""
    models = ModelCache(job.model)
    models.loaded["nearest"] = cast(Network, model)  # it has all that the worker uses
    models.tilings["nearest"] = tiling
    models.digests[Path("nearest")] = "0" * 64
    return list(Worker(job, models).results(iter(tasks)))
