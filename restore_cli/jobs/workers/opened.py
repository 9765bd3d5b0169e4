"""A task whose input is open, with local copies of remote files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from restore_cli.atomic import make_temporary_folder
from restore_cli.errors import ImageError, OutputError, RestoreError, StorageError
from restore_cli.jobs.paths import is_remote
from restore_cli.jobs.types import Result, Task
from restore_cli.pipeline.file import FilePipeline

__all__ = ["LocalTask", "OpenedTask"]


class LocalTask:
    """A task with local paths: a remote file gets a copy in a temporary folder."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.input, self.output = task.input, task.output
        self.temporary: Path | None = None
        """folder of the copies"""

    def download(self) -> None:
        """Download a remote input, and choose a local path for a remote output. Raises ImageError, OutputError."""
        if not (is_remote(self.input) or is_remote(self.output)):
            return
        self.temporary = make_temporary_folder()
        if is_remote(self.output):
            self.output = str(self.temporary / "out" / self.output.rpartition("/")[2])
        if is_remote(self.input):
            from restore_cli.jobs.storage import download_file

            self.input = str(self.temporary / "in" / self.input.rpartition("/")[2])
            Path(self.input).parent.mkdir()
            download_file(self.task.input, Path(self.input))

    def make_failure(self, error: RestoreError) -> Result:
        """Remove the copies, and return the Result of a failure. Its message has the path that the user typed."""
        self.discard()
        task = self.task
        message = error.message.replace(self.input, task.input).replace(self.output, task.output)
        if not isinstance(error, ImageError | OutputError | StorageError) and task.input not in message:
            message = f"{task.input}: {message}"
        return Result(task.input, task.output, "failed", error=type(error)(message, hint=error.hint))

    def discard(self) -> None:
        """Remove the copies."""
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)


@dataclass(frozen=True)
class OpenedTask:
    """A task that is ready to be restored."""

    local: LocalTask
    pipeline: FilePipeline
    held_bytes: int
    """bytes of the memory budget"""
    compression: str | None
    """a description of visible JPEG compression, if a model of the catalogue enlarges the image"""

    @property
    def task(self) -> Task:
        """The task with the paths that the user typed."""
        return self.local.task
