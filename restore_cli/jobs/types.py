"""The types that planning, executors and reports share: Job, Task, Result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Protocol

from restore_cli.errors import RestoreError
from restore_cli.jobs.paths import FileState, InputSpec
from restore_cli.pipeline.file import FileOptions
from restore_cli.weights.catalogue import Catalogue, Request

__all__ = ["Executor", "Job", "ModelOptions", "PlanItem", "Result", "RunOptions", "Stopping", "Task"]


@dataclass(frozen=True)
class ModelOptions:
    """Which model restores, and how it runs."""

    request: Request
    catalogue: Catalogue
    weights: Path | None = None
    """a checkpoint file instead of a catalogue entry"""
    offline: bool = False
    """whether checkpoints must be on this disk"""
    device: str = "auto"
    """one name, several with commas between them, or all"""
    precision: str = "auto"
    tile: int | None = None
    """longest side of a tile, input px; 0 for no tiling, None for what memory allows"""
    overlap: int | None = None
    """of neighbouring tiles, input px; None for the model's"""
    batch: int | None = None
    """tiles per batch; None for 4 on a GPU and 1 elsewhere, or if `tile` is given without `memory`"""
    memory: int | None = None
    """bytes that a model may use on its device; None for most of what is free"""
    compile: bool = False
    """whether to try PyTorch's compiler"""
    tta: bool = False
    """whether to average eight passes over flipped and rotated tiles"""

    @property
    def several_devices(self) -> bool:
        """Whether `device` names more than one device."""
        return self.device == "all" or "," in self.device


@dataclass(frozen=True)
class RunOptions:
    """How a batch of inputs is processed."""

    if_exists: str = "resume"
    """what to do with existing outputs: resume, skip-existing or overwrite"""
    shard: tuple[int, int] | None = None
    """(I, N): restore only part I of N, counted from 1"""
    compare_by_hash: bool = False
    """whether inputs are compared by sha256 instead of modification time"""
    keep_times: bool = False
    """whether outputs get the modification time of their inputs"""
    compare: bool = False
    """whether each output gets a sheet that compares it with its input"""
    fail_fast: bool = False
    """whether to stop after the first failure"""
    watch: bool = False
    """whether to wait for new files in the folders until stopped"""
    cluster: str | None = None
    """address of a Ray cluster, or auto"""
    workers: int | None = None
    """number of workers on the cluster; None for as many as fit"""
    gpus_per_worker: float | None = None
    """on the cluster; None for 1 if it has GPUs"""


@dataclass(frozen=True)
class Job:
    """Everything that the user asked for."""

    model: ModelOptions
    inputs: InputSpec = field(default_factory=InputSpec)
    output: str | None = None
    """a file, a folder, a template, or None for beside the input"""
    format: str | None = None
    """a name of FORMAT_BY_SUFFIX; None for the input's"""
    file: FileOptions = field(default_factory=FileOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @property
    def uses_other_processes(self) -> bool:
        """Whether the models run in other processes."""
        return self.run.cluster is not None or self.model.several_devices


@dataclass(frozen=True, slots=True)
class Task:
    """An input to restore and its output."""

    input: str
    output: str
    replaces: FileState | None = None
    """state of the existing output that will be replaced, if any"""


@dataclass(slots=True)
class Result:
    """What happened to one input. Small, because it is sent between processes and machines."""

    input: str
    output: str
    status: str
    """done, skipped or failed"""
    _: KW_ONLY
    model: str | None = None
    """name of the catalogue entry or the checkpoint file"""
    architecture: str | None = None
    """of a checkpoint file, None for a catalogue entry, which states it"""
    sha256: str | None = None
    """of the checkpoint file"""
    seconds: float = 0.0
    size: tuple[int, int] | None = None
    """(width, height) of the output, px"""
    pixels: int = 0
    """of the input"""
    tile: int | None = None
    """side of the tiles that were used, px"""
    precision: str | None = None
    """fp32, fp16 or bf16"""
    notes: tuple[str, ...] = ()
    error: RestoreError | None = None


PlanItem = Task | Result | None
"""A task; or a Result that needs no work; or None if there is nothing to do at the moment."""


Stopping = Callable[[], bool]
"""returns whether to start no more tasks"""


class Executor(Protocol):
    """Restores tasks: with threads of this process, with several processes, or on a cluster."""

    def results(self, items: Iterator[PlanItem]) -> Iterator[Result]:
        """Yield one Result for each Task and each Result of `items`, which are taken a few at a time.

        Raises WeightsError, because without its checkpoint no image can be restored.
        """
