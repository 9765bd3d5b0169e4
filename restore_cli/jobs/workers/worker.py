"""An executor on one device: threads decode the next pictures and encode the last ones while the device restores."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import mkdtemp

import torch

from restore_cli.atomic import make_folder
from restore_cli.errors import (
    ImageError,
    OutputError,
    RestoreError,
    WeightsError,
    is_out_of_memory,
    stating_lack_of_memory,
)
from restore_cli.image.blocks import describe_compression
from restore_cli.image.codec import infer_format
from restore_cli.image.metadata.provenance import Provenance
from restore_cli.image.picture import Samples
from restore_cli.jobs.events import ModelLoaded, PictureStarted, TileDone, report_warnings
from restore_cli.jobs.model_cache import ModelCache, describe_fallbacks, suggest_for_compressed
from restore_cli.jobs.paths import is_remote
from restore_cli.jobs.types import Job, PlanItem, Result, Task
from restore_cli.jobs.workers.queues import MemoryBudget, QueueClosed, RowQueue
from restore_cli.models.network import Network
from restore_cli.models.processor import count_cores
from restore_cli.pipeline.array import retry_with_smaller_tiling
from restore_cli.pipeline.file import (
    FilePipeline,
    open_file_pipeline,
    open_sources,
    restore_pages,
    write_file,
)
from restore_cli.tiling.engine import Trace, restore_batch
from restore_cli.tiling.geometry import Tiling, padded_side

__all__ = ["Worker"]

MAX_OPENED = 8
"""pictures that are opened ahead"""
MAX_DECODED_BYTES = 1 << 28
"""bytes of pictures that are decoded ahead; larger pictures are decoded while they are restored"""
ROW_QUEUE_BYTES = 1 << 25
"""bytes of restored rows of one picture that wait to be encoded"""
MAX_BATCH = 16
"""small pictures in one batch on an accelerator; on a CPU batches are not faster"""
POLL_SECONDS = 0.1
"""time between two checks if there is nothing to do"""


@dataclass
class OpenedTask:
    """A task that is ready to be restored, or the reason why it cannot be."""

    task: Task
    pipeline: FilePipeline | None = None
    error: RestoreError | None = None
    held_bytes: int = 0
    """bytes of the memory budget"""
    compression: str | None = None
    """a description of visible JPEG compression, if a model of the catalogue enlarges the image"""
    local: Task | None = None
    """the task with paths of local copies, if its own are remote"""
    temporary: Path | None = None
    """folder of these copies"""

    def require_pipeline(self) -> FilePipeline:
        """Return the pipeline. Raises RestoreError if the task could not be opened."""
        if self.error is not None:
            raise self.error
        assert self.pipeline is not None
        return self.pipeline

    def localize(self) -> Task:
        """Return the task with local paths, and download a remote input. Raises ImageError."""
        task = self.task
        if not (is_remote(task.input) or is_remote(task.output)):
            return task
        self.temporary = Path(mkdtemp(prefix="restore-"))
        here, there = task.input, task.output
        if is_remote(there):
            there = str(self.temporary / "out" / there.rpartition("/")[2])
        if is_remote(here):
            from restore_cli.jobs.storage import download_file

            here = str(self.temporary / here.rpartition("/")[2])
            download_file(task.input, Path(here))
        self.local = Task(here, there, task.replaces)
        return self.local

    def make_failure(self, error: RestoreError) -> Result:
        """Return the Result of a failure. Its message has the user's paths."""
        self.discard()
        if self.local is not None:
            message = error.message.replace(self.local.input, self.task.input)
            message = message.replace(self.local.output, self.task.output)
            error = type(error)(message, hint=error.hint)
        return Result(self.task.input, self.task.output, "failed", error=add_input_path(error, self.task.input))

    def discard(self) -> None:
        """Remove the local copies."""
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)


@dataclass(frozen=True)
class LoadedModel:
    """The model for a group of pictures, and its tiling."""

    name: str
    model: Network
    sha256: str
    tiling: Tiling

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16."""
        return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[self.model.precision]

    def single_tile_size(self, pipeline: FilePipeline) -> tuple[int, int] | None:
        """Return the padded (height, width) of a picture of one tile without alpha, else None."""
        header, contract = pipeline.header, self.model.contract
        sides = padded_side(header.height, contract), padded_side(header.width, contract)
        whole = len(pipeline.pictures) == 1 and not header.alpha and max(sides) <= self.tiling.tile
        return sides if whole else None

    @property
    def pixels(self) -> int:
        """Pixels of a full batch, for which there is enough memory."""
        return self.tiling.batch * self.tiling.tile**2


class Worker:
    """Restores tasks on one device."""

    def __init__(self, job: Job, models: ModelCache, stopping: Callable[[], bool] = lambda: False) -> None:
        """`stopping` tells whether to start no more pictures."""
        self.job, self.models, self.on_event, self.stopping = job, models, models.on_event, stopping
        self.current_model = ""
        self.budget = MemoryBudget(MAX_DECODED_BYTES)
        self.next_turn = 0
        self.may_advise = job.model.request.task == "sr" and job.model.weights is None
        """whether to look for compression: what a checkpoint file was trained for is not known"""
        self.pixel_limits: dict[str, int] = {}
        """most pixels of small pictures in a batch, by model, after twice as many have run out of memory"""

    def results(self, items: Iterator[PlanItem]) -> Iterator[Result]:
        """Yield one Result for each item, in order. Raises WeightsError."""
        threads = max(2, min(4, count_cores()))
        with ExitStack() as stack:
            stack.enter_context(report_warnings(self.on_event))
            self.decoders = stack.enter_context(ThreadPoolExecutor(2, "decode"))
            self.encoders = stack.enter_context(ThreadPoolExecutor(threads, "encode"))
            waiting: deque[Result | Future[OpenedTask]] = deque()
            writing: deque[Result | Future[Result]] = deque()
            stack.callback(self.discard_waiting, waiting)
            more = True
            while (more or waiting) and not self.stopping():
                more = more and self.open_next(waiting, items)
                yield from pop_finished(writing)
                if not waiting:
                    wait_for_result(writing)
                    continue
                writing.extend(self.restore_next(waiting))
                while len(writing) > threads:
                    yield await_result(writing.popleft())
            while writing:
                yield await_result(writing.popleft())

    def open_next(self, waiting: deque[Result | Future[OpenedTask]], items: Iterator[PlanItem]) -> bool:
        """Open items ahead. Return whether there may be more."""
        while len(waiting) < MAX_OPENED:
            try:
                item = next(items)
            except StopIteration:
                return False
            if item is None:
                return True
            waiting.append(item if isinstance(item, Result) else self.decoders.submit(self.open, item, self.next_turn))
            self.next_turn += isinstance(item, Task)
        return True

    def discard_waiting(self, waiting: deque[Result | Future[OpenedTask]]) -> None:
        """Release the memory of pictures that will not be restored, so that waiting threads can end."""
        for item in waiting:
            if isinstance(item, Future) and not item.cancel():
                item.result().discard()
                self.budget.release(item.result().held_bytes)

    def open(self, task: Task, turn: int) -> OpenedTask:
        """Read the header of an input, and its pixels if they are few enough. Runs in a decoding thread."""
        opened = OpenedTask(task)
        try:
            local = opened.localize()
            path, output = Path(local.input), Path(local.output)
            format = self.job.format or infer_format(output)
            sources = open_sources(path, format, self.job.file)
            size = sum(source.nbytes for source in sources)
            opened.held_bytes = size if size <= MAX_DECODED_BYTES else 0
            self.budget.acquire(turn, opened.held_bytes)
            turn = -1
            if opened.held_bytes:
                sources = [source.preload() for source in sources]
            with stating_lack_of_memory("cpu", "its pixels"):
                if self.may_advise and (opened.held_bytes or sources[0].header.jpeg_quality):
                    opened.compression = describe_compression(sources[0])
                opened.pipeline = open_file_pipeline(sources, output, format, self.job.file)
        except RestoreError as error:
            opened.error = error
        finally:
            if turn >= 0:
                self.budget.acquire(turn, 0)
        return opened

    def restore_next(self, waiting: deque[Result | Future[OpenedTask]]) -> list[Result | Future[Result]]:
        """Restore the next picture, and those after it that fit into the same batch."""
        first = waiting.popleft()
        if isinstance(first, Result):
            return [first]
        opened = first.result()
        try:
            return self.restore(opened, waiting)
        except WeightsError:
            raise
        except RestoreError as error:
            return [opened.make_failure(error)]
        finally:
            self.budget.release(opened.held_bytes)

    def restore(self, opened: OpenedTask, waiting: deque[Result | Future[OpenedTask]]) -> list[Result | Future[Result]]:
        """Restore a picture. It is encoded at the same time. Raises RestoreError."""
        self.on_event(PictureStarted(opened.task.input))
        pipeline = opened.require_pipeline()
        name, model = self.models.get(pipeline.header)
        tiling = self.models.get_tiling(name, model, pipeline.side)
        loaded = LoadedModel(name, model, self.models.sha256(name), tiling)
        if name != self.current_model:
            self.current_model = name
            self.on_event(ModelLoaded(name, loaded.sha256))
        group = [opened, *self.take_matching(pipeline, waiting, loaded)]
        try:
            if len(group) > 1 and (together := self.restore_together(group, loaded)):
                return together
            return [self.restore_alone(each, loaded) for each in group]
        finally:
            for other in group[1:]:
                self.budget.release(other.held_bytes)

    def report_tiles(self, done: int, total: int) -> None:
        """Report finished tiles of the current picture."""
        self.on_event(TileDone(done, total))

    def take_matching(
        self, pipeline: FilePipeline, waiting: deque[Result | Future[OpenedTask]], loaded: LoadedModel
    ) -> Iterator[OpenedTask]:
        """Take the next decoded pictures that can share a batch: single tiles of equal size and model."""
        most = self.job.model.batch or (1 if loaded.model.device.type == "cpu" else MAX_BATCH)
        if sides := loaded.single_tile_size(pipeline):
            most = min(most, min(loaded.pixels, self.pixel_limits.get(loaded.name, loaded.pixels)) // prod(sides))
        while sides and most > 1 and waiting and isinstance(waiting[0], Future) and waiting[0].done():
            other = waiting[0].result()
            if other.pipeline is None or loaded.single_tile_size(other.pipeline) != sides:
                return
            try:
                name, _ = self.models.get(other.pipeline.header)
            except RestoreError:
                return  # reported at its own turn
            if name != loaded.name:
                return
            most -= 1
            waiting.popleft()
            self.on_event(PictureStarted(other.task.input))
            yield other

    def restore_together(self, group: list[OpenedTask], loaded: LoadedModel) -> list[Result | Future[Result]]:
        """Restore small pictures of equal padded size in one batch. Return nothing if that fails."""
        start = time.perf_counter()
        pictures = [opened.require_pipeline().pictures[0] for opened in group]
        rows = [picture.model_rows(loaded.model.contract) for picture in pictures]
        try:
            tiles = restore_batch(loaded.model, rows, loaded.tiling)
        except Exception as error:
            if is_out_of_memory(error):
                failed = sum(picture.header.width * picture.header.height for picture in pictures)
                self.pixel_limits[loaded.name] = failed // 2
            elif not isinstance(error, RestoreError):
                raise
            return []  # each is restored alone, which shows the picture that fails
        self.report_tiles(len(group), len(group))
        return [
            self.encoders.submit(
                self.write, opened, iter([picture.to_source_colours([tile], seen)]), loaded, trace, start
            )
            for opened, picture, (tile, trace), seen in zip(group, pictures, tiles, rows, strict=True)
        ]

    def restore_alone(self, opened: OpenedTask, loaded: LoadedModel) -> Result | Future[Result]:
        """Restore one file of any size and any number of pictures."""
        start, pipeline, model = time.perf_counter(), opened.require_pipeline(), loaded.model

        def attempt(trace: Trace) -> Future[Result]:
            queue = RowQueue(ROW_QUEUE_BYTES)
            pages = queue.pages(len(pipeline.pictures))
            written = self.encoders.submit(self.write, opened, pages, loaded, trace, start, queue)
            try:
                for page in restore_pages(pipeline, model, trace):
                    for rows in page:
                        queue.put(rows)
                    queue.put(None)
            except QueueClosed:
                pass  # the Result of `write` has the reason
            except BaseException:
                queue.close()
                written.exception()  # waits until the thread has ended
                raise
            queue.close()
            return written

        try:
            written, trace = retry_with_smaller_tiling(
                attempt, model.contract, pipeline.side, loaded.tiling, self.report_tiles
            )
        except WeightsError:
            raise
        except RestoreError as error:
            return opened.make_failure(error)
        if trace.tiling != loaded.tiling:
            self.models.tilings[loaded.name] = trace.tiling
        return written

    def write(
        self,
        opened: OpenedTask,
        pages: Iterator[Iterator[Samples]],
        loaded: LoadedModel,
        trace: Trace,
        start: float,
        queue: RowQueue | None = None,
    ) -> Result:
        """Encode rows as they arrive. Runs in an encoding thread. Raises QueueClosed if rows are missing."""
        task, pipeline, scale = opened.task, opened.require_pipeline(), loaded.model.contract.scale
        try:
            make_folder(pipeline.path.parent)
            note = Provenance(self.job.model.request.task, loaded.name, loaded.sha256, scale)
            with stating_lack_of_memory("cpu", "its result"):
                size, left_out = write_file(pipeline, pages, scale, note)
            self.deliver(task, pipeline.path)
        except RestoreError as error:
            return opened.make_failure(error)
        finally:
            if queue is not None:
                queue.abandon()
        opened.discard()
        return Result(
            input=task.input,
            output=task.output,
            status="done",
            model=loaded.name,
            sha256=loaded.sha256,
            seconds=time.perf_counter() - start,
            size=size,
            pixels=sum(picture.header.width * picture.header.height for picture in pipeline.pictures),
            tile=trace.tiling.tile,
            precision=loaded.precision,
            notes=(*describe_fallbacks(trace, loaded.tiling), *left_out, *self.advise_on_compression(opened, loaded)),
        )

    def deliver(self, task: Task, path: Path) -> None:
        """Upload a remote output, or give a local one the times of its input. Raises OutputError."""
        if is_remote(task.output):
            from restore_cli.jobs.storage import upload_file

            upload_file(path, task.output)
        elif self.job.run.keep_times and not is_remote(task.input):
            copy_times(Path(task.input), path)

    def advise_on_compression(self, opened: OpenedTask, loaded: LoadedModel) -> Iterator[str]:
        """Yield a note if a compressed image was enlarged by a model of the catalogue for clean images."""
        if opened.compression is not None:
            command = suggest_for_compressed(self.job.model.catalogue, loaded.name)
            if command is not None:
                yield f"the input {opened.compression}, and its artefacts are enlarged too (try: {command})"


def wait_for_result(writing: deque[Result | Future[Result]]) -> None:
    """Wait until a Result is ready, at most POLL_SECONDS."""
    if writing and isinstance(writing[0], Future):
        wait([writing[0]], POLL_SECONDS)
    elif not writing:
        time.sleep(POLL_SECONDS)


def pop_finished(writing: deque[Result | Future[Result]]) -> Iterator[Result]:
    """Yield the Results that are ready, in order."""
    while writing and (isinstance(writing[0], Result) or writing[0].done()):
        yield await_result(writing.popleft())


def await_result(item: Result | Future[Result]) -> Result:
    return item if isinstance(item, Result) else item.result()


def add_input_path(error: RestoreError, path: str) -> RestoreError:
    """Return the error with the path of its input, if the message does not have a path."""
    if isinstance(error, ImageError | OutputError) or path in error.message:
        return error
    return type(error)(f"{path}: {error.message}", hint=error.hint)


def copy_times(source: Path, path: Path) -> None:
    """Set the times of a file to those of another file."""
    facts = source.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
