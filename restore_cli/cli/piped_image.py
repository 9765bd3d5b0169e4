"""One image from standard input or to standard output. Temporary files bound the memory."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from restore_cli.atomic import make_temporary_folder
from restore_cli.cli.console import translate_write_errors
from restore_cli.cli.inputs import STANDARD, is_one_file
from restore_cli.cli.options import Options
from restore_cli.cli.standard_streams import ClosedStream
from restore_cli.errors import ImageError, OutputError, RestoreError, UsageError
from restore_cli.image.codec import probe
from restore_cli.image.formats.capabilities import SUFFIX_BY_FORMAT
from restore_cli.jobs.events import Event, OnEvent, PictureStarted
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.types import Job, Result
from restore_cli.special_files import find_descriptor

__all__ = ["Streams", "check_streams", "replace_streams", "uses_streams"]

BLOCK = 1 << 20
STEM = "standard"


@dataclass(frozen=True)
class Streams:
    """A job with files in a temporary folder instead of standard streams."""

    job: Job
    folder: Path | None = None
    """None if the job uses no standard stream"""

    def deliver(self, result: Result) -> Result:
        """Return the Result with - as path. Write the image to standard output, if it belongs there."""
        if self.folder is None:
            return result
        if result.status == "done" and self.display_name(result.output) == STANDARD:
            write_to_stdout(Path(result.output))
        error = None if result.error is None else rename_paths(result.error, self.folder)
        shown, target = self.display_name(result.input), self.display_name(result.output)
        return replace(result, input=shown, output=target, error=error)

    def rename_events(self, on_event: OnEvent) -> OnEvent:
        """Return a function that reports events with - as the path of the image from standard input."""

        def rename(event: Event) -> None:
            if isinstance(event, PictureStarted):
                event = PictureStarted(self.display_name(event.input))
            on_event(event)

        return rename

    def display_name(self, path: str) -> str:
        """Return - for a file in the temporary folder."""
        return STANDARD if self.folder is not None and path.startswith(str(self.folder)) else path


def uses_streams(options: Options) -> tuple[bool, bool]:
    """Return whether the image comes from standard input, and whether it goes to standard output."""
    inputs, output = options.input.inputs or [], options.output.output
    incoming = len(inputs) == 1 and names_stream(inputs[0], 0)
    return incoming, incoming if output is None else names_stream(output, 1)


def names_stream(name: str, descriptor: int) -> bool:
    """Return whether `name` is "-" or a path of that standard stream, such as /dev/stdout."""
    return name == STANDARD or find_descriptor(name) == descriptor


def check_streams(options: Options) -> None:
    """Raise UsageError for options that standard streams exclude."""
    incoming, outgoing = uses_streams(options)
    if outgoing and not incoming and not is_one_file(options.input):
        raise UsageError(f"-o {options.output.output}: standard output takes one image", hint="-o with a folder")
    if outgoing and options.run.log is not None and find_descriptor(options.run.log) == 1:
        raise UsageError(f"--log {options.run.log}: standard output is for the image", hint="--log with a file")
    run = options.run
    excluded = {"--compare": options.output.compare, "--dry-run": run.dry_run, "--watch": run.watch}
    for option, given in ({"--json": run.json and outgoing} | excluded).items():
        if given and (incoming or outgoing):
            raise UsageError(f"{option} cannot be used with - for an image", hint="name files")
    if options.run.cluster and (incoming or outgoing):
        raise UsageError("--cluster cannot be used with - for an image", hint="name files")
    if outgoing and isinstance(sys.stdout, ClosedStream):
        raise UsageError("standard output is closed, so the image cannot be written", hint="> out.png, or -o out.png")
    if incoming and isinstance(sys.stdin, ClosedStream):
        raise UsageError("standard input is closed, so the image cannot be read", hint="< in.png")
    if outgoing and sys.stdout.isatty():
        line = "standard output is a terminal, which is not for images"
        raise UsageError(line, hint="> out.png, or -o out.png")
    if incoming and sys.stdin.isatty():
        raise UsageError("standard input is a terminal, which has no image", hint="< in.png")


@contextmanager
def replace_streams(job: Job, options: Options, cleanups: list[Callable[[], None]]) -> Iterator[Streams]:
    """Replace standard streams by files. `cleanups` gets a function for a process that ends at once."""
    incoming, outgoing = uses_streams(options)
    if not incoming and not outgoing:
        yield Streams(job)
        return
    folder = make_temporary_folder().resolve()
    clear = partial(shutil.rmtree, folder, ignore_errors=True)
    cleanups.append(clear)
    try:
        if incoming:
            job = replace(job, inputs=InputSpec((str(save_stdin(folder)),)), run=replace(job.run, shard=None))
        if outgoing:
            job = replace(job, output=f"{folder}/out/")
        yield Streams(job, folder)
    finally:
        clear()


def save_stdin(folder: Path) -> Path:
    """Save standard input to a file with the suffix of its format. Raises ImageError, OutputError."""
    path = folder / STEM
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, BLOCK)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}", "TMPDIR=/a/larger/disk") from None
    try:
        format = probe(path).format
    except ImageError as error:
        raise rename_paths(error, folder) from None
    return path.rename(path.with_suffix(SUFFIX_BY_FORMAT.get(format, f".{format.lower()}")))


def write_to_stdout(path: Path) -> None:
    """Write the bytes of a file to standard output. Raises PipeClosed, OutputError."""
    with translate_write_errors(), path.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, BLOCK)
        sys.stdout.buffer.flush()


def rename_paths(error: RestoreError, folder: Path) -> RestoreError:
    """Return the error with the names of the streams instead of those of the temporary files."""
    folder_name = re.escape(str(folder))
    message = re.sub(rf"{folder_name}/out/[\w.]*", "standard output", error.message)
    message = re.sub(rf"{folder_name}/{STEM}[\w.]*", "standard input", message)
    hint = re.sub(rf"-o {folder_name}/out/{STEM}\.(\w+)", lambda found: f"--format {found[1]}", error.hint or "")
    return type(error)(message, re.sub(rf"{folder_name}/{STEM}[\w.]*", "in.png", hint) or None)
