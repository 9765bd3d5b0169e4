"""Files through a model of a test, by the crew that the commands use: threads, queue, files out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from nearest_model import NearestModel

from restore_cli.jobs.model_cache import Bench
from restore_cli.jobs.types import Job, Result, Watch, Work
from restore_cli.jobs.workers.worker import Worker
from restore_cli.models.network import Network
from restore_cli.tiling.geometry import Tiling
from restore_cli.weights.catalogue import Catalogue, Request

__all__ = ["JOB", "restore_files"]

JOB = Job(Request("sr"), Catalogue((), {}), weights=Path("nearest"), device="cpu")


def restore_files(model: NearestModel, works: Iterable[Work], tiling: Tiling, job: Job = JOB) -> list[Result]:
    """What becomes of each, where the model is loaded already and begins with that tiling."""
    bench = Bench(job, Watch())
    bench.loaded["nearest"] = cast(Network, model)  # as much of one as the crew asks for
    bench.tilings["nearest"] = tiling
    bench.sums[Path("nearest")] = "0" * 64
    return list(Worker(bench).results(iter(works)))
