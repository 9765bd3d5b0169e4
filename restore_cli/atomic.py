"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import BinaryIO

from restore_cli.errors import OutputError
from restore_cli.special_files import refuse_special_file
from restore_cli.system import lock_file, locks_by_opening

__all__ = [
    "abandon",
    "atomic_write",
    "describe_refusal",
    "make_folder",
    "make_temporary_folder",
    "sweep",
    "sync_folder",
]

_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("no space left on its disk", "free some space, or choose another folder with -o"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another folder with -o"),
    errno.EFBIG: ("the file would be larger than is allowed there", "choose another folder with -o"),
    errno.EACCES: ("no permission to write there", "choose another folder with -o"),
    errno.EPERM: ("no permission to write there", "choose another folder with -o"),
    errno.EROFS: ("its disk is mounted read-only", "choose another folder with -o"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one with -o"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path with -o"),
    errno.EISDIR: ("is a folder", "name a file with -o"),
}
"""The text and the hint for each error number. For others, the text is that of the system."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Error numbers of the disk that is written to. Others may come from other work in the block, such as a download."""
_PARTS: set[Path] = set()
"""The temporary files that this process is writing."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary binary file that replaces `path` when the block ends without an error.

    The file is synced to disk first. After an error, the temporary file is removed and an old file at `path` stays. A
    kill leaves at most a hidden `.restore-*.part`. If `path` is a link, the file that it leads to is replaced. A folder
    or a device is refused. Raises OutputError.
    """
    target = _target(path)
    try:
        part, file = _part(target.parent)
    except OSError as error:
        raise describe_refusal(path, error) from error
    try:
        try:
            yield file
        except OSError as error:
            if error.errno in _DISK:
                raise describe_refusal(path, error) from error
            raise
        _publish(file, part, target, path)
    except BaseException:  # also KeyboardInterrupt: no incomplete file may stay
        _close(file)  # first, because Windows does not remove an open file
        with suppress(OSError):
            part.unlink()
        raise
    finally:
        _PARTS.discard(part)
        _close(file)


def _close(file: BinaryIO) -> None:
    """Close the file. Errors are ignored: after a failed write, the rest of its buffer cannot be written either."""
    with suppress(OSError):
        file.close()


def _part(folder: Path) -> tuple[Path, BinaryIO]:
    """Create and lock a temporary file. `sweep` in other processes removes only files without a lock."""
    while True:
        part = folder / f".restore-{os.getpid()}-{secrets.token_hex(4)}.part"
        file = part.open("x+b")  # fails if it exists; the umask sets the mode, as for any new file
        with suppress(OSError):  # some file systems have no locks
            lock_file(file)
        if part.exists():  # otherwise another process has removed it before it was locked
            _PARTS.add(part)
            return part, file
        file.close()


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder. Files of running ones are locked."""
    for part in folder.glob(".restore-*.part"):
        with suppress(OSError):
            if locks_by_opening():
                part.unlink()
                continue
            with part.open("rb") as file:
                lock_file(file)
                part.unlink()


def abandon() -> None:
    """Remove the temporary files of this process, which is about to end."""
    for part in list(_PARTS):
        with suppress(OSError):
            part.unlink()


def _target(path: Path) -> Path:
    """Return the path without links. Raises OutputError if no file can be written there."""
    try:
        target = path.resolve()
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        refuse_special_file(path)
    except OSError as error:
        raise describe_refusal(path, error) from error
    except RuntimeError as error:  # what Python 3.11 and 3.12 raise for links in a circle
        raise OutputError(f"{path}: cannot be written: its link leads back to itself") from error
    return target


def _publish(file: BinaryIO, part: Path, target: Path, path: Path) -> None:
    """Sync the bytes, rename the file, and sync its folder. In this order, a crash leaves the old or the new file."""
    try:
        file.flush()
        os.fsync(file.fileno())
        if locks_by_opening():
            file.close()
        part.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise describe_refusal(path, error) from error


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a new name in it survives a power cut. Some file systems cannot do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{folder}: is a file, not a folder", "choose another folder with -o") from error
    except OSError as error:
        raise describe_refusal(folder, error) from error


def make_temporary_folder() -> Path:
    """Make a folder in TMPDIR, or where the system keeps temporary files. Raises OutputError."""
    try:
        return Path(mkdtemp(prefix="restore-"))
    except OSError as error:
        line = f"temporary files cannot be written: {error.strerror or error}"
        raise OutputError(line, "TMPDIR=/a/larger/disk") from error


def describe_refusal(path: Path, error: OSError) -> OutputError:
    """Return the error for a path that the system refuses to write."""
    if error.errno == errno.ENOENT:
        if not path.parent.is_dir():
            line = f"{path}: cannot be written: there is no folder {path.parent}"
            return OutputError(line, f"mkdir -p {path.parent}")
        line = f"{path}: cannot be written: {path.parent} accepts no new files"
        return OutputError(line, "choose another folder with -o")
    reason, step = _REASONS.get(error.errno or 0, (error.strerror or str(error), "choose another folder with -o"))
    return OutputError(f"{path}: cannot be written: {reason}", step)
