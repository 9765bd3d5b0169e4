"""What the words about inputs mean: lists, shards, what to do with what is there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from restore_cli.cli.options import Options
from restore_cli.errors import UsageError
from restore_cli.inputs import Asked

__all__ = ["STANDARD", "again", "asked", "shard"]

STANDARD = "-"
"""standard input or output"""

RANKS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("RANK", "WORLD_SIZE", None, None),
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
    return Asked(paths, listed, options.recursive)


def read_list(name: str, null: bool) -> tuple[str, ...]:
    """The paths of a list. UsageError where it cannot be read."""
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


def shard(wish: str | None, environment: Mapping[str, str]) -> tuple[tuple[int, int] | None, str | None]:
    """(I, N) of the inputs, None for all of them, and the names of the variables that said so. UsageError."""
    if wish is not None:
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", wish)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {wish}: expected I/N with I from 1 to N", hint="--shard 1/8")
        return parts(int(found[1]), int(found[2])), None
    for rank, size, first, step in RANKS:
        if rank in environment and size in environment:
            said = f"{rank}={environment[rank]} {size}={environment[size]}"
            try:
                base = int(environment.get(first, "0")) if first else 0
                stride = int(environment.get(step, "1")) if step else 1
                index, count = (int(environment[rank]) - base) // stride + 1, int(environment[size])
            except (ValueError, ZeroDivisionError):
                raise UsageError(f"{said}: expected whole numbers", hint="--shard I/N, 1/1 for all") from None
            if not 1 <= index <= count:
                raise UsageError(f"{said}: is no part of {count}", hint="--shard I/N, 1/1 for all")
            return parts(index, count), f"{rank} and {size}"
    return None, None


def parts(index: int, count: int) -> tuple[int, int] | None:
    """None where there is only one."""
    return (index, count) if count > 1 else None
