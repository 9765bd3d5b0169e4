"""One picture from standard input, or to standard output, through temporary files so that memory stays bounded."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from restore_cli.cli.console import reading
from restore_cli.cli.inputs import STANDARD, one_file
from restore_cli.cli.options import Options
from restore_cli.cli.standard import Missing
from restore_cli.errors import ImageError, OutputError, RestoreError, UsageError
from restore_cli.image.codec import probe
from restore_cli.image.formats.capabilities import SUFFIX_BY_FORMAT
from restore_cli.jobs.paths import Asked
from restore_cli.jobs.run import Job, Result
from restore_cli.special_files import find_descriptor

__all__ = ["Streams", "refuse_contradictions", "streams", "uses_standard"]

BLOCK = 1 << 20
STEM = "standard"


@dataclass(frozen=True)
class Streams:
    """A job whose picture comes from or goes to a stream, by way of a folder."""

    job: Job
    folder: Path | None = None
    """None where no stream is used"""

    def delivered(self, result: Result) -> Result:
        """The Result in the words of who asked; a picture for standard output has been written there."""
        if self.folder is None:
            return result
        if result.status == "done" and self.name(result.output) == STANDARD:
            send(Path(result.output))
        return replace(
            result,
            input=self.name(result.input),
            output=self.name(result.output),
            error=None if result.error is None else renamed(result.error, self.folder),
        )

    def name(self, path: str) -> str:
        """A path in the words of who asked."""
        return STANDARD if self.folder is not None and path.startswith(str(self.folder)) else path


def uses_standard(options: Options) -> tuple[bool, bool]:
    """Whether the picture comes from standard input, and whether it goes to standard output."""
    incoming = options.inputs is not None and len(options.inputs) == 1 and names_stream(options.inputs[0], 0)
    return incoming, incoming if options.output is None else names_stream(options.output, 1)


def names_stream(name: str, descriptor: int) -> bool:
    """Return whether `name` is "-" or a path of that standard stream, such as /dev/stdout."""
    return name == STANDARD or find_descriptor(name) == descriptor


def refuse_contradictions(options: Options) -> None:
    """UsageError for what cannot be done with streams."""
    incoming, outgoing = uses_standard(options)
    if outgoing and not incoming and not one_file(options):
        raise UsageError(f"-o {options.output}: standard output takes one image", hint="-o with a folder")
    if outgoing and options.log is not None and find_descriptor(options.log) == 1:
        raise UsageError(f"--log {options.log}: standard output is for the image", hint="--log with a file")
    for word in ("json", "compare", "dry_run", "watch"):
        if getattr(options, word) and (outgoing or (incoming and word != "json")):
            raise UsageError(f"--{word.replace('_', '-')} does not go with - for a picture", hint="name files")
    if options.cluster and (incoming or outgoing):
        raise UsageError("--cluster does not go with - for a picture", hint="name files")
    if outgoing and isinstance(sys.stdout, Missing):
        raise UsageError("standard output is closed, there is no place for an image", hint="> out.png, or -o out.png")
    if incoming and isinstance(sys.stdin, Missing):
        raise UsageError("standard input is closed, there is no image", hint="< in.png")
    if outgoing and sys.stdout.isatty():
        raise UsageError("standard output is a terminal, not a place for a picture", hint="> out.png, or -o out.png")
    if incoming and sys.stdin.isatty():
        raise UsageError("standard input is a terminal, there is no picture", hint="< in.png")


@contextmanager
def streams(job: Job, options: Options, leaving: list[Callable[[], None]]) -> Iterator[Streams]:
    """The job with files in the place of streams; `leaving` is what is done where the process ends at once."""
    incoming, outgoing = uses_standard(options)
    if not incoming and not outgoing:
        yield Streams(job)
        return
    folder = Path(tempfile.mkdtemp(prefix="restore-")).resolve()
    clear = partial(shutil.rmtree, folder, ignore_errors=True)
    leaving.append(clear)
    try:
        if incoming:
            job = replace(job, asked=Asked((str(receive(folder)),)), shard=None)
        if outgoing:
            job = replace(job, output=f"{folder}/out/")
        yield Streams(job, folder)
    finally:
        clear()


def receive(folder: Path) -> Path:
    """Standard input as a file whose name ends as its content says. Raises ImageError."""
    path = folder / STEM
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, BLOCK)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}", "TMPDIR=/a/larger/disk") from None
    try:
        format = probe(path).format
    except ImageError as error:
        raise renamed(error, folder) from None
    return path.rename(path.with_suffix(SUFFIX_BY_FORMAT.get(format, f".{format.lower()}")))


def send(path: Path) -> None:
    """A file's bytes to standard output. Raises PipeClosed, OutputError."""
    with reading(), path.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, BLOCK)
        sys.stdout.buffer.flush()


def renamed(error: RestoreError, folder: Path) -> RestoreError:
    """The error with the streams' names instead of those of the files behind them."""
    folder_name = re.escape(str(folder))
    message = re.sub(rf"{folder_name}/out/[\w.]*", "standard output", error.message)
    message = re.sub(rf"{folder_name}/{STEM}[\w.]*", "standard input", message)
    hint = re.sub(rf"-o {folder_name}/out/{STEM}\.(\w+)", lambda found: f"--format {found[1]}", error.hint or "")
    return type(error)(message, re.sub(rf"{folder_name}/{STEM}[\w.]*", "in.png", hint) or None)
