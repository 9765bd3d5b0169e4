"""Small images of a folder share batches, as many as memory allows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import make_image, save_image
from nearest_model import NearestModel
from PIL import Image
from torch import Tensor

from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.run import run_job
from restore_cli.jobs.types import Job, ModelOptions
from restore_cli.jobs.workers import worker
from restore_cli.pipeline import memory
from restore_cli.weights.catalogue import Request, read_catalogue

MIB = 2**20
CONSTANT = 8 * MIB
"""Bytes that the model claims whatever the batch."""


class Gpu(NearestModel):
    """A model that uses `per_pixel` bytes for each pixel of a batch and fails beyond `room` bytes."""

    device, precision = torch.device("cuda"), torch.float16

    def __init__(self, per_pixel: int, room: int = 2**60) -> None:
        super().__init__(scale=1)
        self.per_pixel, self.room, self.taken, self.sizes, self.failures = per_pixel, room, [0], [0], 0

    def __call__(self, x: Tensor) -> Tensor:
        takes = CONSTANT + self.per_pixel * x.shape[0] * x.shape[2] * x.shape[3]
        if takes > self.room:
            self.failures += 1
            raise RuntimeError("CUDA error: out of memory")
        self.taken.append(takes)
        self.sizes.append(x.shape[0])
        return super().__call__(x)


class WaitingPool(ThreadPoolExecutor):
    """Waits until each image is decoded, so that batches are as large as possible."""

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:  # noqa: ANN401
        future = super().submit(function, *given, **named)
        if self._thread_name_prefix == "decode":
            wait([future])
        return future


Restored = Callable[[Gpu, int | None], None]


@pytest.fixture
def restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x1: Path) -> Restored:
    """Restore 48 images of 64×64 px and 16 of 200×120 px within a memory limit. No image may change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**40)
    monkeypatch.setattr(memory, "measure_demand", lambda model, device: (CONSTANT, model.per_pixel))
    monkeypatch.setattr(worker, "ThreadPoolExecutor", WaitingPool)
    for i in range(64):
        save_image(Path("in", f"{i:02}.png"), make_image(*((64, 64) if i < 48 else (200, 120)), seed=i))
    job = Job(ModelOptions(Request("denoise"), read_catalogue(), weights=x1), InputSpec(("in",)), "out")

    def restore(model: Gpu, limit: int | None) -> None:
        monkeypatch.setattr(ModelCache, "get", lambda models, header: ("gpu", model))
        assert [result.status for result in run_job(replace(job, model=replace(job.model, memory=limit)))] == [
            "done"
        ] * 64
        for path in Path("in").iterdir():
            assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(Path("out", path.name))))

    return restore


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8])
def test_a_batch_uses_no_more_than_the_allowed_memory(most: int, restored: Restored) -> None:
    model = Gpu(4096)
    limit = CONSTANT + 4096 * most * 64 * 64
    restored(model, limit)
    assert max(model.taken) <= limit
    assert most - 1 <= max(model.sizes) <= most  # a tile is of whole grid cells


def test_a_batch_uses_at_most_three_gibibytes_by_default(restored: Restored) -> None:
    model = Gpu(2**18)
    restored(model, None)
    assert max(model.taken) <= 3 * 2**30
    assert max(model.sizes) == 2


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7])
def test_a_batch_size_that_did_not_fit_is_not_tried_again(most: int, restored: Restored) -> None:
    """Another program uses memory in the meantime, so that less is free than at first."""
    model = Gpu(4096, room=CONSTANT + 4096 * max(most * 64 * 64, 200 * 120))
    restored(model, None)
    assert 1 <= model.failures <= 4
    assert max(model.sizes) > 1 or most == 1
