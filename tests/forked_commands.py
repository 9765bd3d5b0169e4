"""Run command lines, each in a fork of this process, which has loaded the program: `python forked_commands.py`.

Each line of standard input is a JSON object: `arguments`, and `box`, the only folder in which the command may write.
The command runs in a/b/work inside the box. Each line of standard output is an object too: `code`, `out`, `err`, and
`outside`, the paths outside of the box that the command tried to change, which is refused.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

LIMIT = 120
"""seconds after which a command counts as hanging"""
MEMORY = 5 * 2**30
PREPARED = (
    "torch",
    "restore_cli.cli.main",
    "restore_cli.cli.run_task",
    "restore_cli.evaluation.evaluate",
    "restore_cli.jobs.workers.worker",
)
DEVICES = {"/dev/null", "/dev/stdout", "/dev/stderr"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {  # events of the interpreter -> where they carry the path that is changed, and the folder it is relative to
    "os.mkdir": (0, 2),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.truncate": (0, None),
    "os.chmod": (0, 2),
    "os.chown": (0, 3),
    "os.utime": (0, 3),
    "os.rename": (1, 3),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
}


def guard(box: Path, outside: list[str]) -> None:
    """Refuse every change of a file outside of `box`, and append its path to `outside`."""

    def check(path: str | bytes | os.PathLike[str] | int | None, folder: int = -1) -> None:
        if path is None or isinstance(path, int) or (name := os.fsdecode(path)) in DEVICES:
            return
        base = Path.cwd() if folder == -1 else Path(f"/proc/self/fd/{folder}").readlink()
        place = (base / name).resolve()
        if str(place) not in DEVICES and not place.is_relative_to(box):
            outside.append(str(place))
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    def hook(event: str, facts: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(facts[2], int) and facts[2] & WRITES:
            check(facts[0])
        elif event in CHANGES:
            path, folder = CHANGES[event]
            check(facts[path], -1 if folder is None else facts[folder])

    sys.addaudithook(hook)


def run_here(arguments: list[str], box: Path) -> int:
    """Run one command in this process; return its exit code."""
    from restore_cli.cli.main import main

    signal.alarm(LIMIT)
    os.chdir(box / "a/b/work")
    os.environ.update(HOME=f"{box}/home", TMPDIR=f"{box}/tmp", RESTORE_CACHE=f"{box}/cache")
    tempfile.tempdir = None  # forget the folder that was found before the fork
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, (path, flags) in enumerate(((Path("in.png"), os.O_RDONLY), (box / "out", new), (box / "err", new))):
        os.dup2(os.open(path, flags, 0o600), number)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.argv = ["restore", *arguments]
    outside: list[str] = []
    guard(box.resolve(), outside)
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    (box / "outside").write_text(json.dumps(outside))
    return code


def run_in_fork(arguments: list[str], box: Path) -> dict[str, Any]:
    """Run one command in a fork; return how it ended. A negative code is the signal that ended it."""
    child = os.fork()
    if not child:
        code = 99
        try:
            code = run_here(arguments, box)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = {name: (box / name).read_bytes().decode("utf-8", "surrogateescape") for name in ("out", "err")}
    note = box / "outside"
    return {"code": code, "outside": json.loads(note.read_text()) if note.exists() else [], **said}


def main() -> None:
    """Load the slow modules once, then run the command of each line."""
    for name in PREPARED:
        import_module(name)
    import_module("torch").set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(f"{json.dumps(run_in_fork(order['arguments'], Path(order['box'])))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
