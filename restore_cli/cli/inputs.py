"""Options about inputs: paths, lists, shards, and what happens to existing outputs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from glob import has_magic
from pathlib import Path

from restore_cli.cli.options import InputFlags, Options, RunFlags
from restore_cli.cli.standard_streams import ClosedStream
from restore_cli.errors import UsageError
from restore_cli.jobs.paths import InputSpec

__all__ = ["STANDARD", "choose_if_exists", "choose_shard", "is_one_file", "read_inputs"]

STANDARD = "-"
"""the path that means standard input or output"""

RANK_VARIABLES = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("RANK", "WORLD_SIZE", "", ""),
)
"""variables with the number of this process, the number of processes, the first number, and the step"""


def read_inputs(flags: InputFlags) -> InputSpec:
    """Return the inputs that the options name. Raises UsageError if there are none or they contradict each other."""
    paths = tuple(flags.inputs or ())
    if flags.null and flags.files_from is None:
        raise UsageError("-0 needs a list", hint="--files-from FILE")
    if flags.files_from is None and not paths:
        raise UsageError("no inputs", hint="restore denoise photos/, or --files-from FILE")
    if STANDARD in paths and (len(paths) > 1 or flags.files_from is not None):
        line = "- is one image from standard input and excludes other inputs"
        raise UsageError(line, hint="./- for a file of that name")
    listed = None if flags.files_from is None else read_list(flags.files_from, flags.null)
    return InputSpec(paths, listed, flags.recursive, flags.follow_links)


def read_list(name: str, null: bool) -> tuple[str, ...]:
    """Return the paths of a list file. Raises UsageError."""
    if name == STANDARD and isinstance(sys.stdin, ClosedStream):
        raise UsageError("--files-from -: standard input is closed", hint="--files-from FILE")
    try:
        content = sys.stdin.buffer.read() if name == STANDARD else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"--files-from {name}: cannot be read: {error.strerror}") from None
    parts = content.split(b"\0") if null else content.replace(b"\r\n", b"\n").split(b"\n")
    if not null and b"\0" in content:
        raise UsageError(f"--files-from {name}: contains NUL bytes", hint="-0")
    return tuple(os.fsdecode(part) for part in parts if part)


def choose_if_exists(flags: RunFlags) -> str:
    """Return what to do with existing outputs. Raises UsageError for contradicting flags."""
    chosen = [word for word in ("resume", "skip-existing", "overwrite") if getattr(flags, word.replace("-", "_"))]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} contradict each other; give one of them")
    return chosen[0] if chosen else "resume"


def choose_shard(options: Options, environment: Mapping[str, str]) -> tuple[tuple[int, int] | None, str | None]:
    """Return the shard (I, N), or None for all inputs, and the names of the variables that set it. Raises UsageError.

    Variables count only for several inputs: a folder, a pattern, a list or several files.
    """
    if options.run.shard is not None:
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", options.run.shard)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {options.run.shard}: expected I/N with I from 1 to N", hint="--shard 1/8")
        return drop_single_shard(int(found[1]), int(found[2])), None
    if options.run.cluster is not None or is_one_file(options.input):
        return None, None
    for rank, size, first, step in RANK_VARIABLES:
        if rank in environment and size in environment:
            return read_shard(environment, rank, size, first, step), f"{rank} and {size}"
    return None, None


def read_shard(environment: Mapping[str, str], rank: str, size: str, first: str, step: str) -> tuple[int, int] | None:
    """Return the shard that these variables set. Raises UsageError."""
    given = f"{rank}={environment[rank]} {size}={environment[size]}"
    try:
        number, count = int(environment[rank]), int(environment[size])
        index = (number - int(environment.get(first, "0"))) // int(environment.get(step, "1")) + 1
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{given}: expected whole numbers", hint="--shard I/N, 1/1 for all") from None
    if not 1 <= index <= count:
        raise UsageError(f"{given}: the number is not one of {count}", hint="--shard I/N, 1/1 for all")
    return drop_single_shard(index, count)


def is_one_file(flags: InputFlags) -> bool:
    """Whether the options name a single file, and no folder, pattern or list."""
    names = flags.inputs or []
    if flags.files_from is not None or len(names) != 1:
        return False
    return not Path(names[0]).is_dir() and (Path(names[0]).exists() or not has_magic(names[0]))


def drop_single_shard(index: int, count: int) -> tuple[int, int] | None:
    """Return None if there is only one part."""
    return (index, count) if count > 1 else None
