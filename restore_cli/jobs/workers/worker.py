"""An executor on one device: threads decode the next images and encode the last ones while the device restores."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from restore_cli.atomic import make_folder
from restore_cli.errors import RestoreError, WeightsError, is_out_of_memory, stating_lack_of_memory
from restore_cli.image.blocks import describe_compression
from restore_cli.image.codec import infer_format
from restore_cli.image.metadata.provenance import Provenance
from restore_cli.image.picture import Samples
from restore_cli.jobs.events import ModelLoaded, PictureStarted, TileDone, report_warnings
from restore_cli.jobs.model_cache import ModelCache, describe_fallbacks, suggest_for_compressed
from restore_cli.jobs.paths import copy_times, is_remote
from restore_cli.jobs.types import Job, PlanItem, Result, Stopping, Task
from restore_cli.jobs.workers.opened import LocalTask, OpenedTask
from restore_cli.jobs.workers.queues import MemoryBudget, QueueClosed, RowQueue
from restore_cli.models.processor import count_cores
from restore_cli.models.self_ensemble import Runner
from restore_cli.pipeline.array import retry_with_smaller_tiling
from restore_cli.pipeline.file import FilePipeline, open_file_pipeline, open_sources, restore_pages, write_file
from restore_cli.tiling.engine import Trace, restore_batch
from restore_cli.tiling.geometry import Tiling, padded_side

__all__ = ["Worker"]

MAX_OPENED = 8
"""images that are opened ahead"""
MAX_DECODED_BYTES = 1 << 28
"""bytes of images that are decoded ahead; larger images are decoded while they are restored"""
ROW_QUEUE_BYTES = 1 << 25
"""bytes of restored rows of one image that wait to be encoded"""
MAX_BATCH = 16
"""small images in one batch on an accelerator; on a CPU batches are not faster"""
POLL_SECONDS = 0.1
"""time between two checks if there is nothing to do"""


Waiting = deque[Result | Future[OpenedTask | Result]]
"""what comes next: Results that need no work, and tasks that are being opened"""


@dataclass(frozen=True)
class LoadedModel:
    """The model for a group of images, and its tiling."""

    name: str
    model: Runner
    sha256: str
    tiling: Tiling

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16."""
        return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[self.model.precision]

    def single_tile_size(self, pipeline: FilePipeline) -> tuple[int, int] | None:
        """Return the padded (height, width) of an image that is one tile without alpha, else None."""
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

    def __init__(self, job: Job, models: ModelCache, stopping: Stopping = lambda: False) -> None:
        """`stopping` returns whether to start no more images."""
        self.job, self.models, self.on_event, self.stopping = job, models, models.on_event, stopping
        self.current_model = ""
        self.budget = MemoryBudget(MAX_DECODED_BYTES)
        self.next_turn = 0
        self.may_advise = job.model.request.task == "sr" and job.model.weights is None
        """whether to look for compression: what a checkpoint file was trained for is not known"""
        self.pixel_limits: dict[str, int] = {}
        """most pixels of small images in a batch, by model, after twice as many have run out of memory"""

    def results(self, items: Iterator[PlanItem]) -> Iterator[Result]:
        """Yield one Result for each item, in order. Raises WeightsError."""
        threads = max(2, min(4, count_cores()))
        with ExitStack() as stack:
            stack.enter_context(report_warnings(self.on_event))
            self.decoders = stack.enter_context(ThreadPoolExecutor(2, "decode"))
            self.encoders = stack.enter_context(ThreadPoolExecutor(threads, "encode"))
            waiting: Waiting = deque()
            writing: deque[Future[Result]] = deque()
            stack.callback(self.discard_waiting, waiting)
            more = True
            while (more or waiting) and not self.stopping():
                more = more and self.open_next(waiting, items)
                while writing and writing[0].done():
                    yield writing.popleft().result()
                if waiting:
                    writing.extend(self.restore_next(waiting))
                    while len(writing) > threads:
                        yield writing.popleft().result()
                elif writing:
                    wait([writing[0]], POLL_SECONDS)
                else:
                    time.sleep(POLL_SECONDS)
            while writing:
                yield writing.popleft().result()

    def open_next(self, waiting: Waiting, items: Iterator[PlanItem]) -> bool:
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

    def discard_waiting(self, waiting: Waiting) -> None:
        """Release the memory of images that will not be restored, so that waiting threads can end.

        Cancelling begins at the end of the queue: a cancelled task does not pass its turn on, and a thread that takes a
        later task would wait for that turn forever.
        """
        tasks = [item for item in waiting if isinstance(item, Future)]
        begun = [task for task in reversed(tasks) if not task.cancel()]
        for task in reversed(begun):
            if task.exception() is None and isinstance(opened := task.result(), OpenedTask):
                opened.local.discard()
                self.budget.release(opened.held_bytes)

    def open(self, task: Task, turn: int) -> OpenedTask | Result:
        """Read the header of an input, and its pixels if they are few enough. Runs in a decoding thread."""
        local, held, compression = LocalTask(task), 0, None
        try:
            local.download()
            path, output = Path(local.input), Path(local.output)
            format = self.job.format or infer_format(output)
            sources = open_sources(path, format, self.job.file)
            size = sum(source.nbytes for source in sources)
            held = size if size <= MAX_DECODED_BYTES else 0
            self.budget.acquire(turn, held)
            turn = -1  # it is passed on
            if held:
                sources = [source.preload() for source in sources]
            with stating_lack_of_memory("cpu", "its pixels"):
                if self.may_advise and (held or sources[0].header.jpeg_quality):
                    compression = describe_compression(sources[0])
                pipeline = open_file_pipeline(sources, output, format, self.job.file)
            return OpenedTask(local, pipeline, held, compression)
        except RestoreError as error:
            self.budget.release(held)
            return local.make_failure(error)
        finally:
            if turn >= 0:  # an error came first, but later images still wait for this turn
                self.budget.acquire(turn, 0)

    def restore_next(self, waiting: Waiting) -> list[Future[Result]]:
        """Restore the next image, and those after it that fit into the same batch. Raises WeightsError.

        They are encoded at the same time.
        """
        first = waiting.popleft()
        if isinstance(first, Result):
            return [completed(first)]
        opened = first.result()
        if isinstance(opened, Result):
            self.on_event(PictureStarted(opened.input))
            return [completed(opened)]
        self.on_event(PictureStarted(opened.task.input))
        group = [opened]
        try:
            loaded = self.load_model(opened.pipeline)
            group += self.take_matching(opened.pipeline, waiting, loaded)
            together = self.restore_together(group, loaded) if len(group) > 1 else []
            return together or [self.restore_alone(each, loaded) for each in group]
        except WeightsError:
            opened.local.discard()
            raise
        except RestoreError as error:
            return [completed(opened.local.make_failure(error))]
        finally:
            for each in group:
                self.budget.release(each.held_bytes)

    def load_model(self, pipeline: FilePipeline) -> LoadedModel:
        """Return the model for an image. Raises RestoreError."""
        name, model = self.models.get(pipeline.header)
        tiling = self.models.get_tiling(name, model, pipeline.side)
        loaded = LoadedModel(name, model, self.models.sha256(name), tiling)
        if name != self.current_model:
            self.current_model = name
            self.on_event(ModelLoaded(name, loaded.sha256))
        return loaded

    def report_tiles(self, done: int, total: int) -> None:
        """Report finished tiles of the current image."""
        self.on_event(TileDone(done, total))

    def take_matching(self, pipeline: FilePipeline, waiting: Waiting, loaded: LoadedModel) -> Iterator[OpenedTask]:
        """Take the next decoded images that can share a batch: single tiles of equal size and model."""
        most = self.job.model.batch or (1 if loaded.model.device.type == "cpu" else MAX_BATCH)
        if sides := loaded.single_tile_size(pipeline):
            most = min(most, min(loaded.pixels, self.pixel_limits.get(loaded.name, loaded.pixels)) // prod(sides))
        while sides and most > 1 and waiting and isinstance(waiting[0], Future) and waiting[0].done():
            other = waiting[0].result()
            if isinstance(other, Result) or loaded.single_tile_size(other.pipeline) != sides:
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

    def restore_together(self, group: list[OpenedTask], loaded: LoadedModel) -> list[Future[Result]]:
        """Restore small images of equal padded size in one batch. Return nothing if that fails."""
        start = time.perf_counter()
        pictures = [opened.pipeline.pictures[0] for opened in group]
        rows = [picture.model_rows(loaded.model.contract) for picture in pictures]
        try:
            types = [opened.pipeline.sample_type(picture) for opened, picture in zip(group, pictures, strict=True)]
            finishes = [picture.choose_finish(dtype) for picture, dtype in zip(pictures, types, strict=True)]
            tiles = restore_batch(loaded.model, rows, loaded.tiling, finishes)
        except Exception as error:
            if is_out_of_memory(error):
                failed = sum(picture.header.width * picture.header.height for picture in pictures)
                self.pixel_limits[loaded.name] = failed // 2
            elif not isinstance(error, RestoreError):
                raise
            return []  # each is restored alone, which shows the image that fails
        self.report_tiles(len(group), len(group))
        return [
            self.encoders.submit(
                self.write, opened, iter([picture.to_source_colours([tile], seen)]), loaded, trace, start
            )
            for opened, picture, (tile, trace), seen in zip(group, pictures, tiles, rows, strict=True)
        ]

    def restore_alone(self, opened: OpenedTask, loaded: LoadedModel) -> Future[Result]:
        """Restore one file of any size and any number of pictures."""
        start, pipeline, model = time.perf_counter(), opened.pipeline, loaded.model

        def attempt(trace: Trace) -> Future[Result]:
            queue = RowQueue(ROW_QUEUE_BYTES)
            pages = (queue.page() for _ in pipeline.pictures)
            written = self.encoders.submit(self.write, opened, pages, loaded, trace, start, queue)
            try:
                for page in restore_pages(pipeline, model, trace):
                    for rows in page:
                        queue.put(rows)
                    queue.put(None)
            except QueueClosed:
                pass  # the Result of `write` has the reason
            except BaseException as error:
                queue.close()
                incomplete = written.exception()  # waits until the thread has ended
                if incomplete is None and isinstance(error, RestoreError):
                    return written  # writing failed too, and removed the copy of a remote input: it has the reason
                raise
            queue.close()
            return written

        try:
            written, trace = retry_with_smaller_tiling(
                attempt, model.contract, pipeline.side, loaded.tiling, self.report_tiles, model.device.type
            )
        except WeightsError:
            raise
        except RestoreError as error:
            return completed(opened.local.make_failure(error))
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
        task, pipeline, scale = opened.task, opened.pipeline, loaded.model.contract.scale
        try:
            make_folder(pipeline.path.parent)
            job = self.job
            strength = job.file.output.strength
            note = Provenance(job.model.request.task, loaded.name, loaded.sha256, scale, job.model.tta, strength)
            with stating_lack_of_memory("cpu", "its result"):
                size, left_out = write_file(pipeline, pages, scale, note)
            left_out += self.deliver(task, pipeline.path)
        except RestoreError as error:
            return opened.local.make_failure(error)
        finally:
            if queue is not None:
                queue.abandon()
        opened.local.discard()
        return Result(
            input=task.input,
            output=task.output,
            status="done",
            model=loaded.name,
            architecture=None if self.job.model.weights is None else loaded.model.architecture,
            sha256=loaded.sha256,
            seconds=time.perf_counter() - start,
            size=size,
            pixels=sum(picture.header.width * picture.header.height for picture in pipeline.pictures),
            tile=trace.tiling.tile,
            precision=loaded.precision,
            notes=(*describe_fallbacks(trace, loaded.tiling), *left_out, *self.advise_on_compression(opened, loaded)),
        )

    def deliver(self, task: Task, path: Path) -> tuple[str, ...]:
        """Upload a remote output, or give a local one the times of its input. Return notes. Raises OutputError."""
        if is_remote(task.output):
            from restore_cli.jobs.storage import upload_file

            upload_file(path, task.output)
        elif self.job.run.keep_times and not is_remote(task.input):
            return copy_times(task.input, task.output)
        return ()

    def advise_on_compression(self, opened: OpenedTask, loaded: LoadedModel) -> Iterator[str]:
        """Yield a note if a compressed image was enlarged by a model of the catalogue for clean images."""
        if opened.compression is not None:
            command = suggest_for_compressed(self.job.model.catalogue, loaded.name)
            if command is not None:
                yield f"the input {opened.compression}, and its artefacts are enlarged too (try: {command})"


def completed(result: Result) -> Future[Result]:
    """Return a Future that has the Result."""
    future = Future[Result]()
    future.set_result(result)
    return future
