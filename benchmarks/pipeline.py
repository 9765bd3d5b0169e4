"""Compares a batch with its slowest stage: `python -m benchmarks.pipeline [--pictures 200] [--side 192]`.

It times decoding, restoring and encoding of the same images, each alone and on one thread, and then the whole job as
the command runs it, also with one thread for the model. The machine needs at least two free cores. Rounds alternate,
and the medians are printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from restore_cli.evaluation.degrade import imresize
from restore_cli.image.codec import decode, encode
from restore_cli.image.metadata.provenance import Provenance
from restore_cli.image.picture import Picture, Samples
from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.run import run_job
from restore_cli.jobs.types import Job, ModelOptions
from restore_cli.models.processor import keep_freed_memory
from restore_cli.pipeline.array import default_tiling
from restore_cli.pipeline.file import (
    FileOptions,
    FilePipeline,
    open_file_pipeline,
    open_sources,
    restore_pages,
    write_file,
)
from restore_cli.tiling.engine import Trace
from restore_cli.weights.catalogue import Request, read_catalogue

CAT = Path(__file__).parents[1] / "examples" / "cat.png"
OPTIONS = FileOptions()


def main() -> None:
    """Make the images, time the stages and the job, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="restore-pipeline-") as name:
        folder = Path(name)
        make_images(folder / "in", given.pictures, given.side)
        stages = Stages(folder)
        times: dict[str, list[float]] = {}
        for _ in range(given.rounds):
            for title, work in stages.list_stages().items():
                start = time.perf_counter()
                work()
                times.setdefault(title, []).append(time.perf_counter() - start)
        print_table(given.pictures, given.side, {title: median(found) for title, found in times.items()})


def make_images(folder: Path, count: int, side: int) -> None:
    """Write `count` different crops of the example."""
    folder.mkdir()
    whole = decode(CAT).pixels
    numbers = np.random.default_rng(0)
    for i in range(count):
        scale = side * 1.5 / min(whole.shape[:2])
        small = imresize(whole, scale) if scale < 1 else whole
        y, x = (int(numbers.integers(0, small.shape[axis] - side + 1)) for axis in (0, 1))
        encode(Picture(np.ascontiguousarray(small[y : y + side, x : x + side])), folder / f"{i:03d}.png")


class Stages:
    """Runs each stage alone, with its inputs in memory, or the whole job."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.round = folder, 0
        self.job = Job(
            ModelOptions(Request("sr", "emt", scale=4), read_catalogue(), device="cpu"),
            InputSpec((str(folder / "in"),)),
        )
        self.models = ModelCache(self.job.model)
        self.paths = sorted((folder / "in").iterdir())
        self.opened = [self.open(path) for path in self.paths]
        _, self.model = self.models.get(self.opened[0].header)
        self.tiling = default_tiling(self.model.contract)
        self.rows: list[list[list[Samples]]] = [self.restore_rows(pipeline) for pipeline in self.opened]

    def list_stages(self) -> dict[str, Callable[[], object]]:
        """Return a function for each stage, by its name."""
        return {"decode": self.decode, "restore": self.restore, "encode": self.encode, "job": self.run_job}

    def open(self, path: Path) -> FilePipeline:
        """Return a pipeline whose file is decoded."""
        sources = [source.preload() for source in open_sources(path, "PNG", OPTIONS)]
        return open_file_pipeline(sources, self.folder / "alone" / path.name, "PNG", OPTIONS)

    def restore_rows(self, pipeline: FilePipeline) -> list[list[Samples]]:
        """Return the restored rows of each page."""
        return [list(page) for page in restore_pages(pipeline, self.model, Trace(self.tiling))]

    def decode(self) -> None:
        """Decode all files."""
        for path in self.paths:
            self.open(path)

    def restore(self) -> None:
        """Restore all images from memory to memory."""
        for pipeline in self.opened:
            self.restore_rows(pipeline)

    def encode(self) -> None:
        """Encode all results from memory to the disk."""
        (self.folder / "alone").mkdir(exist_ok=True)
        note = Provenance("sr", "emt-x4", "0" * 64, 4)
        for pipeline, pages in zip(self.opened, self.rows, strict=True):
            write_file(pipeline, (iter(page) for page in pages), 4, note)

    def run_job(self) -> None:
        """Run the job into a new folder."""
        self.round += 1
        out = str(self.folder / f"out{self.round}")
        for result in run_job(replace(self.job, output=out)):
            assert result.status == "done", result.error


def print_table(pictures: int, side: int, times: dict[str, float]) -> None:
    """Print the table."""
    stages = {title: seconds for title, seconds in times.items() if title != "job"}
    slowest = max(stages, key=lambda title: stages[title])
    lines = [f"{pictures} images of {side}×{side} px, ×4, one thread for the model", "", "| | seconds |", "|---|---|"]
    lines += [f"| {title} alone | {seconds:.1f} |" for title, seconds in stages.items()]
    lines += [f"| one after the other | {sum(stages.values()):.1f} |", f"| the job | {times['job']:.1f} |", ""]
    lines += [f"the job takes {times['job'] / stages[slowest]:.3f} times its slowest stage, {slowest}"]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
