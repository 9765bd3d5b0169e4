"""Restores on one device: decodes ahead, restores, encodes behind, so that the device does not wait for files."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
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
from restore_cli.image.codec import infer_format
from restore_cli.image.metadata.provenance import Provenance
from restore_cli.image.picture import Samples
from restore_cli.jobs.model_cache import Bench, notes
from restore_cli.jobs.paths import is_remote
from restore_cli.jobs.types import Result, Step, Work, warnings_as_notes
from restore_cli.jobs.workers.queues import MemoryBudget, QueueClosed, RowQueue
from restore_cli.models.network import Network
from restore_cli.models.processor import cores
from restore_cli.pipeline.array import retry_with_smaller_tiling
from restore_cli.pipeline.file import (
    FileOptions,
    FilePipeline,
    open_file_pipeline,
    open_sources,
    restore_pages,
    write_file,
)
from restore_cli.tiling.engine import Trace, restore_batch
from restore_cli.tiling.geometry import Tiling, padded_side

__all__ = ["Worker"]

AHEAD = 8
"""pictures that are opened before their turn"""
DECODED = 1 << 28
"""bytes of them that wait decoded; a larger one is read as it is restored"""
ROOM = 1 << 25
"""bytes of restored rows that wait to be written, of one picture"""
TOGETHER = 16
"""small pictures that share a batch at most, where batches pay: on an accelerator"""
IDLE = 0.1
"""seconds between two looks when there is nothing to do"""


@dataclass
class Opened:
    """A picture whose turn comes: what it takes to restore it, or why that cannot be."""

    work: Work
    pipeline: FilePipeline | None = None
    error: RestoreError | None = None
    held: int = 0
    """bytes of the budget"""
    here: Work | None = None
    """with paths on this machine, where they are remote: copies in a folder of their own"""
    copies: Path | None = None
    """that folder"""

    def ready(self) -> FilePipeline:
        """Raises RestoreError where it could not be opened."""
        if self.error is not None:
            raise self.error
        assert self.pipeline is not None
        return self.pipeline

    def fetch(self) -> Work:
        """The work with paths on this machine. Raises ImageError."""
        work = self.work
        if not (is_remote(work.input) or is_remote(work.output)):
            return work
        self.copies = Path(mkdtemp(prefix="restore-"))
        here, there = work.input, work.output
        if is_remote(there):
            there = str(self.copies / "out" / there.rpartition("/")[2])
        if is_remote(here):
            from restore_cli.jobs.storage import fetch_file

            here = str(self.copies / here.rpartition("/")[2])
            fetch_file(work.input, Path(here))
        self.here = Work(here, there, work.replaces)
        return self.here

    def failed(self, error: RestoreError) -> Result:
        """The Result where it could not be restored."""
        self.discard()
        if self.here is not None:
            message = error.message.replace(self.here.input, self.work.input).replace(
                self.here.output, self.work.output
            )
            error = type(error)(message, hint=error.hint)
        return Result(self.work.input, self.work.output, "failed", error=named(error, self.work.input))

    def discard(self) -> None:
        """Nothing of it is needed any more."""
        if self.copies is not None:
            shutil.rmtree(self.copies, ignore_errors=True)


@dataclass(frozen=True)
class With:
    """What a group of pictures is restored with."""

    name: str
    model: Network
    sha256: str
    tiling: Tiling

    @property
    def precision(self) -> str:
        """As --precision says it."""
        return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[self.model.precision]

    def single_tile(self, pipeline: FilePipeline) -> tuple[int, int] | None:
        """The padded size of a picture that is one tile and has no transparency; else None."""
        header, contract = pipeline.header, self.model.contract
        sides = padded_side(header.height, contract), padded_side(header.width, contract)
        whole = len(pipeline.pictures) == 1 and not header.alpha and max(sides) <= self.tiling.tile
        return sides if whole else None

    @property
    def pixels(self) -> int:
        """Px of a batch of full tiles, for which there is memory."""
        return self.tiling.batch * self.tiling.tile**2


class Worker:
    """A crew of threads around one device."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.job, self.watch = bench, bench.job, bench.watch
        self.budget = MemoryBudget(DECODED)
        self.turns = 0
        self.most: dict[str, int] = {}
        """px of small pictures in a batch, by model, where memory has run out for twice as many"""
        job = self.job
        self.options = FileOptions(job.output_options, job.max_pixels, job.frame, job.jpeg_quality)

    def results(self, steps: Iterator[Step]) -> Iterator[Result]:
        """One Result for each step, in order."""
        threads = max(2, min(4, cores()))
        with ExitStack() as stack:
            stack.enter_context(warnings_as_notes(self.watch.on_note))
            self.ahead = stack.enter_context(ThreadPoolExecutor(2, "decode"))
            self.behind = stack.enter_context(ThreadPoolExecutor(threads, "encode"))
            waiting: deque[Result | Future[Opened]] = deque()
            writing: deque[Result | Future[Result]] = deque()
            stack.callback(self.drop, waiting)
            more = True
            while (more or waiting) and not self.watch.stopping():
                more = more and self.fill(waiting, steps)
                yield from ready(writing)
                if not waiting:
                    idle(writing)
                    continue
                writing.extend(self.take(waiting))
                while len(writing) > threads:
                    yield finished(writing.popleft())
            while writing:
                yield finished(writing.popleft())

    def fill(self, waiting: deque[Result | Future[Opened]], steps: Iterator[Step]) -> bool:
        """Takes steps until enough pictures are under way; whether there may be more."""
        while len(waiting) < AHEAD:
            try:
                step = next(steps)
            except StopIteration:
                return False
            if step is None:
                return True
            waiting.append(step if isinstance(step, Result) else self.ahead.submit(self.open, step, self.turns))
            self.turns += isinstance(step, Work)
        return True

    def drop(self, waiting: deque[Result | Future[Opened]]) -> None:
        """Pictures that will not be restored any more make room for those behind them, that they may end."""
        for item in waiting:
            if isinstance(item, Future) and not item.cancel():
                item.result().discard()
                self.budget.release(item.result().held)

    def open(self, work: Work, turn: int) -> Opened:
        """Reads what a picture says of itself, and its rows where they are few enough. Runs beside the device."""
        opened = Opened(work)
        try:
            here = opened.fetch()
            path, output = Path(here.input), Path(here.output)
            format = self.job.format or infer_format(output)
            sources = open_sources(path, format, self.options)
            size = sum(source.nbytes for source in sources)
            opened.held = size if size <= DECODED else 0
            self.budget.acquire(turn, opened.held)
            turn = -1
            if opened.held:
                sources = [source.preload() for source in sources]
            with stating_lack_of_memory("cpu", "its pixels"):
                opened.pipeline = open_file_pipeline(sources, output, format, self.options)
        except RestoreError as error:
            opened.error = error
        finally:
            if turn >= 0:
                self.budget.acquire(turn, 0)
        return opened

    def take(self, waiting: deque[Result | Future[Opened]]) -> list[Result | Future[Result]]:
        """Restores the next picture, and with it those behind it that fit into the same batch."""
        first = waiting.popleft()
        if isinstance(first, Result):
            return [first]
        opened = first.result()
        try:
            return self.restore(opened, waiting)
        except WeightsError:
            raise
        except RestoreError as error:
            return [opened.failed(error)]
        finally:
            self.budget.release(opened.held)

    def restore(self, opened: Opened, waiting: deque[Result | Future[Opened]]) -> list[Result | Future[Result]]:
        """Rows through the model; they are written meanwhile. Raises RestoreError."""
        self.watch.on_picture(opened.work.input)
        pipeline = opened.ready()
        name, model = self.bench.model(pipeline.header)
        tiling = self.bench.tiling(name, model, pipeline.side)
        using = With(name, model, self.bench.sha256(name), tiling)
        group = [opened, *self.alike(pipeline, waiting, using)]
        try:
            if len(group) > 1 and (together := self.restore_together(group, using)):
                return together
            return [self.restore_alone(each, using) for each in group]
        finally:
            for other in group[1:]:
                self.budget.release(other.held)

    def alike(self, pipeline: FilePipeline, waiting: deque[Result | Future[Opened]], using: With) -> Iterator[Opened]:
        """The pictures next in turn, already decoded, that may share a batch with one: of a single tile, equal size."""
        most = self.job.batch or (1 if using.model.device.type == "cpu" else TOGETHER)
        if sides := using.single_tile(pipeline):
            most = min(most, min(using.pixels, self.most.get(using.name, using.pixels)) // prod(sides))
        while sides and most > 1 and waiting and isinstance(waiting[0], Future) and waiting[0].done():
            other = waiting[0].result()
            if other.pipeline is None or using.single_tile(other.pipeline) != sides:
                return
            try:
                name, _ = self.bench.model(other.pipeline.header)
            except RestoreError:
                return  # it is said when its own turn comes; those before it stay in the batch
            if name != using.name:
                return
            most -= 1
            waiting.popleft()
            self.watch.on_picture(other.work.input)
            yield other

    def restore_together(self, group: list[Opened], using: With) -> list[Result | Future[Result]]:
        """Small pictures of equal padded size in one call of the model; none where that does not go through."""
        start = time.perf_counter()
        pictures = [opened.ready().pictures[0] for opened in group]
        rows = [picture.model_rows(using.model.contract) for picture in pictures]
        try:
            tiles = restore_batch(using.model, rows, using.tiling)
        except Exception as error:
            if is_out_of_memory(error):
                self.most[using.name] = sum(picture.header.width * picture.header.height for picture in pictures) // 2
            elif not isinstance(error, RestoreError):
                raise
            return []  # one by one it is seen which picture it is
        self.watch.on_tile(len(group), len(group))
        return [
            self.behind.submit(self.write, opened, iter([picture.to_source_colours([tile], seen)]), using, trace, start)
            for opened, picture, (tile, trace), seen in zip(group, pictures, tiles, rows, strict=True)
        ]

    def restore_alone(self, opened: Opened, using: With) -> Result | Future[Result]:
        """One file, of any size and any number of pictures."""
        start, pipeline, model = time.perf_counter(), opened.ready(), using.model

        def attempt(trace: Trace) -> Future[Result]:
            queue = RowQueue(ROOM)
            pages = queue.pages(len(pipeline.pictures))
            written = self.behind.submit(self.write, opened, pages, using, trace, start, queue)
            try:
                for page in restore_pages(pipeline, model, trace):
                    for rows in page:
                        queue.put(rows)
                    queue.put(None)
            except QueueClosed:
                pass  # the Result of writing says why
            except BaseException:
                queue.end()
                written.exception()  # waits until nothing of it is left
                raise
            queue.end()
            return written

        try:
            written, trace = retry_with_smaller_tiling(
                attempt, model.contract, pipeline.side, using.tiling, self.watch.on_tile
            )
        except WeightsError:
            raise
        except RestoreError as error:
            return opened.failed(error)
        if trace.tiling != using.tiling:
            self.bench.tilings[using.name] = trace.tiling
        return written

    def write(
        self,
        opened: Opened,
        pages: Iterator[Iterator[Samples]],
        using: With,
        trace: Trace,
        start: float,
        queue: RowQueue | None = None,
    ) -> Result:
        """Encodes rows as they come. Runs beside the device. Raises QueueClosed where they do not come to their end."""
        work, pipeline, scale = opened.work, opened.ready(), using.model.contract.scale
        try:
            make_folder(pipeline.path.parent)
            note = Provenance(self.job.request.task, using.name, using.sha256, scale)
            with stating_lack_of_memory("cpu", "its result"):
                size, left_out = write_file(pipeline, pages, scale, note)
            if is_remote(work.output):
                from restore_cli.jobs.storage import send

                send(pipeline.path, work.output)
            elif self.job.keep_times and not is_remote(work.input):
                copy_time(Path(work.input), pipeline.path)
        except RestoreError as error:
            return opened.failed(error)
        finally:
            if queue is not None:
                queue.leave()
        opened.discard()
        return Result(
            input=work.input,
            output=work.output,
            status="done",
            model=using.name,
            sha256=using.sha256,
            seconds=time.perf_counter() - start,
            size=size,
            pixels=sum(picture.header.width * picture.header.height for picture in pipeline.pictures),
            tile=trace.tiling.tile,
            precision=using.precision,
            notes=(*notes(trace, using.tiling), *left_out),
        )


def idle(writing: deque[Result | Future[Result]]) -> None:
    """Until a Result is there, or for a moment."""
    if writing and isinstance(writing[0], Future):
        wait([writing[0]], IDLE)
    elif not writing:
        time.sleep(IDLE)


def ready(writing: deque[Result | Future[Result]]) -> Iterator[Result]:
    """The Results that are there, in order."""
    while writing and (isinstance(writing[0], Result) or writing[0].done()):
        yield finished(writing.popleft())


def finished(item: Result | Future[Result]) -> Result:
    """Waits for it."""
    return item if isinstance(item, Result) else item.result()


def named(error: RestoreError, path: str) -> RestoreError:
    """The error with the picture's path in front, where its message does not begin with a path of its own."""
    if isinstance(error, ImageError | OutputError) or path in error.message:
        return error
    return type(error)(f"{path}: {error.message}", hint=error.hint)


def copy_time(source: Path, path: Path) -> None:
    """Gives a file another's times."""
    facts = source.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
