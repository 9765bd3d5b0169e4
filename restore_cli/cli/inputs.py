"""What the words about inputs mean: lists, shards, what to do with what is there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from glob import has_magic
from pathlib import Path

from restore_cli.cli.options import Options
from restore_cli.cli.standard import Missing
from restore_cli.errors import UsageError
from restore_cli.jobs.paths import Asked

__all__ = ["STANDARD", "again", "asked", "one_file", "shard_for"]

STANDARD = "-"
"""standard input or output"""

RANKS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("RANK", "WORLD_SIZE", "", ""),
)
"""the number of this process, how many there are, the first number, the step between two"""


def asked(options: Options) -> Asked:
    """The inputs as they were named. UsageError for none, and for what cannot be together."""
    paths = tuple(options.inputs or ())
    if options.null and options.files_from is None:
        raise UsageError("-0 is about a list", hint="--files-from FILE")
    if options.files_from is None and not paths:
        raise UsageError("no inputs", hint="restore denoise photos/, or --files-from FILE")
    if STANDARD in paths and (len(paths) > 1 or options.files_from is not None):
        raise UsageError("- is one image from standard input, and stands alone", hint="./- for a file of that name")
    listed = None if options.files_from is None else read_list(options.files_from, options.null)
    return Asked(paths, listed, options.recursive, options.follow_links)


def read_list(name: str, null: bool) -> tuple[str, ...]:
    """The paths of a list. UsageError where it cannot be read."""
    if name == STANDARD and isinstance(sys.stdin, Missing):
        raise UsageError("--files-from -: standard input is closed", hint="--files-from FILE")
    try:
        content = sys.stdin.buffer.read() if name == STANDARD else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"--files-from {name}: cannot be read: {error.strerror}") from None
    parts = content.split(b"\0") if null else content.replace(b"\r\n", b"\n").split(b"\n")
    if not null and b"\0" in content:
        raise UsageError(f"--files-from {name}: is separated by NUL", hint="-0")
    return tuple(os.fsdecode(part) for part in parts if part)


def again(options: Options) -> str:
    """What is done with outputs that are there. UsageError for two answers."""
    chosen = [word for word in ("resume", "skip-existing", "overwrite") if getattr(options, word.replace("-", "_"))]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} contradict each other; give one of them")
    return chosen[0] if chosen else "resume"


def shard_for(options: Options, environment: Mapping[str, str]) -> tuple[tuple[int, int] | None, str | None]:
    """(I, N) of the inputs, None for all of them, and the names of the variables that said so. UsageError.

    Variables count where a folder, a pattern, a list or several files are named: a single file is always restored.
    """
    if options.shard is not None:
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", options.shard)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {options.shard}: expected I/N with I from 1 to N", hint="--shard 1/8")
        return parts(int(found[1]), int(found[2])), None
    if options.cluster is not None or one_file(options):
        return None, None
    for rank, size, first, step in RANKS:
        if rank in environment and size in environment:
            return shard_of(environment, rank, size, first, step), f"{rank} and {size}"
    return None, None


def shard_of(environment: Mapping[str, str], rank: str, size: str, first: str, step: str) -> tuple[int, int] | None:
    """What the variables of those names say. UsageError."""
    said = f"{rank}={environment[rank]} {size}={environment[size]}"
    try:
        number, count = int(environment[rank]), int(environment[size])
        index = (number - int(environment.get(first, "0"))) // int(environment.get(step, "1")) + 1
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{said}: expected whole numbers", hint="--shard I/N, 1/1 for all") from None
    if not 1 <= index <= count:
        raise UsageError(f"{said}: no part of {count}", hint="--shard I/N, 1/1 for all")
    return parts(index, count)


def one_file(options: Options) -> bool:
    """Whether a single file is named, and no folder, pattern or list."""
    names = options.inputs or []
    if options.files_from is not None or len(names) != 1:
        return False
    return not Path(names[0]).is_dir() and (Path(names[0]).exists() or not has_magic(names[0]))


def parts(index: int, count: int) -> tuple[int, int] | None:
    """None where there is only one."""
    return (index, count) if count > 1 else None
