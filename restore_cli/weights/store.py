"""Checkpoint files on this disk, with a record of each: its sha256, and its size and time when it was hashed.

The record of NAME.pth is NAME.json beside it. If the catalogue has no sha256, files must have that of the record.
A file is hashed again if its size or time has changed, and always by `verify`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from restore_cli.errors import ChecksumMismatch, UsageError, WeightsError, WeightsUnavailable
from restore_cli.weights.entry import BundledSource, Entry, HubSource
from restore_cli.weights.hub_client import refuse_page
from restore_cli.weights.permissions import explain_unsafe_folder

__all__ = [
    "compute_sha256",
    "delete_file",
    "delete_parts",
    "find_in_hub_cache",
    "get_bundled_file",
    "get_cache_dir",
    "get_cached_file",
    "get_part_file",
    "locate",
    "lock_entry",
    "record_file",
    "refuse_sha256",
    "refuse_unsafe_cache",
    "remove",
    "verify",
    "verify_file",
]

BUNDLED = Path(__file__).resolve().parent / "bundled"
MODE = 0o755
"""of the cache folder: other users cannot write to it, even if the umask would allow that"""


@dataclass(frozen=True)
class Record:
    """The state of a file when it was hashed."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def get_cache_dir() -> Path:
    """Return $RESTORE_CACHE, or restore/ in the cache folder of the user."""
    if own := os.environ.get("RESTORE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "restore"


def refuse_unsafe_cache() -> None:
    """Raise WeightsError if other users may control the content of the cache folder."""
    if reason := explain_unsafe_folder(get_cache_dir()):
        line = f"the cache {get_cache_dir()} is not used: {reason}"
        raise WeightsError(line, hint=f"chmod o-w {get_cache_dir()}, or set RESTORE_CACHE to a folder of your own")


def may_use_cache(entry: Entry) -> bool:
    """Return whether the cache is safe. A bundled checkpoint can do without the cache.

    Raises WeightsError if the cache is unsafe and another checkpoint needs it.
    """
    if entry.bundled:
        return explain_unsafe_folder(get_cache_dir()) is None
    refuse_unsafe_cache()
    return True


def get_bundled_file(source: BundledSource) -> Path:
    """Return the path of a file of the package."""
    return BUNDLED / source.file


def get_cached_file(entry: Entry) -> Path:
    """Return the path of a file that was downloaded from a web address and verified."""
    return get_cache_dir() / f"{entry.name}{entry.suffix}"


def get_part_file(entry: Entry, url: str) -> Path:
    """Return the path of an unfinished download. Each address has its own, so that two sources are never mixed."""
    return get_cache_dir() / f".{entry.name}.{hashlib.sha256(url.encode()).hexdigest()[:12]}.part"


@contextmanager
def lock_entry(entry: Entry) -> Iterator[None]:
    """Let only one process at a time download or delete `entry`. The lock of a killed process is free."""
    import filelock

    refuse_unsafe_cache()
    try:
        get_cache_dir().mkdir(MODE, parents=True, exist_ok=True)
        lock = filelock.FileLock(get_cache_dir() / f".{entry.name}.lock")
        lock.acquire()
    except OSError as error:
        line = f"{entry.name}: cannot write to the cache {get_cache_dir()}: {error.strerror or error}"
        raise WeightsUnavailable(line, hint="set RESTORE_CACHE to a folder that can be written") from None
    try:
        yield
    finally:
        lock.release()


def locate(entry: Entry) -> Path | None:
    """Return the file of `entry` on disk that has the right sha256, or None. The network is not used."""
    expected = _find_expected_sha256(entry)
    record, bundled = _read_record(entry), _list_bundled(entry)
    # another installation with the same cache may have recorded its own bundled file
    if record is not None and record.sha256 == expected and (not bundled or Path(record.path) in bundled):
        path = Path(record.path)
        if record == _read_state(path, record.sha256):
            return path
    for path in _list_copies(entry):
        with suppress(OSError, ChecksumMismatch):
            record_file(entry, path, verify_file(entry, path))
            return path
    return None


def verify(entry: Entry) -> Path | None:
    """Hash the file of `entry` and return its path, or None. Raises ChecksumMismatch, WeightsUnavailable."""
    for path in _list_copies(entry):
        try:
            record_file(entry, path, verify_file(entry, path))
        except OSError as error:
            raise WeightsUnavailable(f"{entry.name}: cannot read {path}: {error.strerror or error}") from None
        return path
    return None


def remove(entry: Entry) -> list[Path]:
    """Delete every downloaded copy of `entry` and its record. Returns the deleted copies. Raises UsageError."""
    if entry.bundled:
        raise UsageError(f"{entry.name} ships with the package and stays", hint="restore models")
    with lock_entry(entry):
        gone = _list_copies(entry)
        for path in [*gone, _get_record_file(entry)]:
            delete_file(path)
        delete_parts(entry)
    return gone


def verify_file(entry: Entry, path: Path, origin: str | None = None) -> str:
    """Return the sha256 of the file. Raises ChecksumMismatch for a wrong one, OSError if it cannot be read.

    `origin` is the source of a new download. Messages name it instead of the file, which is deleted if it is wrong.
    Raises WebPageError if the source sent a page.
    """
    if origin:
        with path.open("rb") as file:
            refuse_page(file.read(1 << 16))
    found = compute_sha256(path)
    refuse_sha256(entry, found, f"the file from {origin}" if origin else str(path))
    return found


def compute_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 small hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_sha256(entry: Entry, found: str, what: str) -> None:
    """Raise ChecksumMismatch if `found`, the sha256 of `what`, is not that of the catalogue or first download."""
    expected = _find_expected_sha256(entry)
    if expected is None or found == expected:
        return
    who = "the catalogue says" if entry.sha256 else "it was at the first download"
    command = f"restore models pull {entry.name} --force" if entry.sha256 else f"restore models rm {entry.name}"
    raise ChecksumMismatch(f"{entry.name}: sha256 of {what} is {found[:12]}…, {who} {expected[:12]}…", command)


def record_file(entry: Entry, path: Path, sha256: str) -> None:
    """Record the state of a file that was just hashed."""
    state = _read_state(path, sha256)
    if state is None or not may_use_cache(entry) or state == _read_record(entry):
        return
    record = _get_record_file(entry)
    fresh = record.with_name(f".{entry.name}.{os.getpid()}.json")
    try:
        record.parent.mkdir(MODE, parents=True, exist_ok=True)
        fresh.write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
        fresh.replace(record)
    except OSError:
        # without a record the file is only hashed again, but a sha256 that is not in the catalogue must be kept
        if entry.sha256 is None:
            raise


def delete_file(path: Path) -> None:
    """Delete a file. In the cache of a hub, delete also its blob, unless another snapshot links to it."""
    blob = path.parent / path.readlink() if path.is_symlink() else None
    path.unlink(missing_ok=True)
    if blob is not None and blob.parent.name == "blobs":
        snapshots = blob.parent.parent.joinpath("snapshots").resolve()
        target = blob.resolve()
        if not any(link.resolve() == target for link in snapshots.rglob("*") if link.is_symlink()):
            blob.unlink(missing_ok=True)


def delete_parts(entry: Entry) -> None:
    """Delete the unfinished downloads of `entry`."""
    for part in get_cache_dir().glob(f".{entry.name}.*.part"):
        part.unlink(missing_ok=True)


def _get_record_file(entry: Entry) -> Path:
    return get_cache_dir() / f"{entry.name}.json"


def _read_record(entry: Entry) -> Record | None:
    if not may_use_cache(entry):
        return None
    try:
        found: dict[str, Any] = json.loads(_get_record_file(entry).read_text(encoding="utf-8"))
        if not isinstance(found["path"], str) or not isinstance(found["sha256"], str):
            return None
        return Record(found["path"], int(found["size"]), int(found["mtime_ns"]), found["sha256"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _find_expected_sha256(entry: Entry) -> str | None:
    if entry.sha256 is not None:
        return entry.sha256
    record = _read_record(entry)
    return record.sha256 if record is not None else None


def _read_state(path: Path, sha256: str) -> Record | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return Record(str(path), stat.st_size, stat.st_mtime_ns, sha256)


def _list_bundled(entry: Entry) -> list[Path]:
    files = [get_bundled_file(source) for source in entry.sources if isinstance(source, BundledSource)]
    return [file for file in files if file.is_file()]


def _list_copies(entry: Entry) -> list[Path]:
    """Return the files of `entry` on disk, right or wrong: in the package, in our cache, in the cache of the hub."""
    hubs = [path for source in entry.sources if isinstance(source, HubSource) and (path := find_in_hub_cache(source))]
    own = [get_cached_file(entry)] if may_use_cache(entry) else []
    return [path for path in [*_list_bundled(entry), *own, *hubs] if path.is_file()]


def find_in_hub_cache(source: HubSource) -> Path | None:
    """Return the file in the cache of huggingface_hub, right or wrong, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision, repo_type=source.repo_type)
    return Path(found) if isinstance(found, str) else None
