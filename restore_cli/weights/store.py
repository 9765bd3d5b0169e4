"""Where checkpoints lie on this disk, and what is known of each: its sha256, and the file's state when it was hashed.

Beside a downloaded NAME.pth lies NAME.json. Where the catalogue has no sha256, the one recorded there is enforced.
A file is hashed again when its size or time has changed since, and by `verify` always.
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
from restore_cli.weights.address import refuse_page
from restore_cli.weights.entry import BundledSource, Entry, HubSource
from restore_cli.weights.permissions import why_unsafe

__all__ = [
    "bundled_file",
    "cache_dir",
    "check_cache",
    "checked",
    "discard",
    "in_hub_cache",
    "keep",
    "locate",
    "locked",
    "own_file",
    "part_file",
    "refuse_sha256",
    "remove",
    "sha256_of",
    "sweep",
    "verify",
]

BUNDLED = Path(__file__).resolve().parent / "bundled"
MODE = 0o755
"""of the cache folder: other users may not write to it, whatever the umask allows"""


@dataclass(frozen=True)
class Record:
    """What was true of a file when it was hashed."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def cache_dir() -> Path:
    """$RESTORE_CACHE, or restore/ in the user's cache folder."""
    if own := os.environ.get("RESTORE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "restore"


def check_cache() -> None:
    """Raise WeightsError where other users may control what is in the cache folder."""
    if reason := why_unsafe(cache_dir()):
        line = f"the cache {cache_dir()} is not used: {reason}"
        raise WeightsError(line, hint=f"chmod o-w {cache_dir()}, or set RESTORE_CACHE to a folder of your own")


def is_trusted(entry: Entry) -> bool:
    """Whether the cache may be used for `entry`: what ships with the package does without an unsafe one.

    Raises WeightsError where an unsafe cache would be needed.
    """
    if entry.bundled:
        return why_unsafe(cache_dir()) is None
    check_cache()
    return True


def bundled_file(source: BundledSource) -> Path:
    """Where a file that ships with the package lies."""
    return BUNDLED / source.file


def own_file(entry: Entry) -> Path:
    """Where a file from a URL lies once it is whole and verified."""
    return cache_dir() / f"{entry.name}{entry.suffix}"


def part_file(entry: Entry, url: str) -> Path:
    """Where a download from `url` grows; one per address, so that no two sources are ever joined."""
    return cache_dir() / f".{entry.name}.{hashlib.sha256(url.encode()).hexdigest()[:12]}.part"


@contextmanager
def locked(entry: Entry) -> Iterator[None]:
    """One process at a time fetches or removes `entry`; a killed one holds nothing."""
    import filelock

    check_cache()
    try:
        cache_dir().mkdir(MODE, parents=True, exist_ok=True)
        lock = filelock.FileLock(cache_dir() / f".{entry.name}.lock")
        lock.acquire()
    except OSError as error:
        raise WeightsUnavailable(
            f"{entry.name}: cannot write to the cache {cache_dir()}: {error.strerror or error}",
            hint="set RESTORE_CACHE to a folder that can be written",
        ) from None
    try:
        yield
    finally:
        lock.release()


def locate(entry: Entry) -> Path | None:
    """The file of `entry` that is on disk and has the right sha256, or None; asks no network."""
    expected = _expected(entry)
    record = _recorded(entry)
    if record is not None and record.sha256 == expected and record == _state(Path(record.path), record.sha256):
        return Path(record.path)
    for path in _copies(entry):
        with suppress(OSError, ChecksumMismatch):
            keep(entry, path, checked(entry, path))
            return path
    return None


def verify(entry: Entry) -> Path | None:
    """The file of `entry`, hashed anew; None where none is on disk. Raises ChecksumMismatch for a wrong one."""
    for path in _copies(entry):
        try:
            keep(entry, path, checked(entry, path))
        except OSError as error:
            raise WeightsUnavailable(f"{entry.name}: cannot read {path}: {error.strerror or error}") from None
        return path
    return None


def remove(entry: Entry) -> list[Path]:
    """Deletes every copy of `entry` that was downloaded, and what was recorded of it; gives what was deleted."""
    if entry.bundled:
        raise UsageError(f"{entry.name} ships with the package and stays", hint="restore models")
    with locked(entry):
        gone = _copies(entry)
        for path in [*gone, _record_file(entry)]:
            discard(path)
        sweep(entry)
    return gone


def checked(entry: Entry, path: Path, origin: str | None = None) -> str:
    """The sha256 of the file, which is the right one; else ChecksumMismatch. Raises OSError where it cannot be read.

    `origin` says where a file that just came is from; it will not be there any more when the message is read. Raises
    WebPage where that sent a page.
    """
    if origin:
        with path.open("rb") as file:
            refuse_page(file.read(1 << 16))
    found = sha256_of(path)
    refuse_sha256(entry, found, f"the file from {origin}" if origin else str(path))
    return found


def sha256_of(path: Path) -> str:
    """64 small hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_sha256(entry: Entry, found: str, what: str) -> None:
    """Raises ChecksumMismatch unless `found`, the sha256 of `what`, is the catalogue's or the first download's."""
    expected = _expected(entry)
    if expected is None or found == expected:
        return
    who = "the catalogue says" if entry.sha256 else "it was at the first download"
    command = f"restore models pull {entry.name} --force" if entry.sha256 else f"restore models rm {entry.name}"
    raise ChecksumMismatch(
        f"{entry.name}: sha256 of {what} is {found[:12]}…, {who} {expected[:12]}…",
        hint=command,
    )


def keep(entry: Entry, path: Path, sha256: str) -> None:
    """Records the state of a file that was just hashed."""
    state = _state(path, sha256)
    if state is None or not is_trusted(entry) or state == _recorded(entry):
        return
    record = _record_file(entry)
    fresh = record.with_name(f".{entry.name}.{os.getpid()}.json")
    try:
        record.parent.mkdir(MODE, parents=True, exist_ok=True)
        fresh.write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
        fresh.replace(record)
    except OSError:
        # a cache that cannot be written costs a second hashing, but a hash that nobody else knows must not be lost
        if entry.sha256 is None:
            raise


def discard(path: Path) -> None:
    """Deletes a file; of a hub's cache also the blob that it points to, unless another snapshot does too."""
    blob = path.parent / path.readlink() if path.is_symlink() else None
    path.unlink(missing_ok=True)
    if blob is not None and blob.parent.name == "blobs":
        snapshots = blob.parent.parent.joinpath("snapshots").resolve()
        target = blob.resolve()
        if not any(link.resolve() == target for link in snapshots.rglob("*") if link.is_symlink()):
            blob.unlink(missing_ok=True)


def sweep(entry: Entry) -> None:
    """Deletes what downloads of `entry` left unfinished."""
    for part in cache_dir().glob(f".{entry.name}.*.part"):
        part.unlink(missing_ok=True)


def _record_file(entry: Entry) -> Path:
    return cache_dir() / f"{entry.name}.json"


def _recorded(entry: Entry) -> Record | None:
    if not is_trusted(entry):
        return None
    try:
        found: dict[str, Any] = json.loads(_record_file(entry).read_text(encoding="utf-8"))
        if not isinstance(found["path"], str) or not isinstance(found["sha256"], str):
            return None
        return Record(found["path"], int(found["size"]), int(found["mtime_ns"]), found["sha256"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _expected(entry: Entry) -> str | None:
    if entry.sha256 is not None:
        return entry.sha256
    record = _recorded(entry)
    return record.sha256 if record is not None else None


def _state(path: Path, sha256: str) -> Record | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return Record(str(path), stat.st_size, stat.st_mtime_ns, sha256)


def _copies(entry: Entry) -> list[Path]:
    """The files on disk that claim to be `entry`, right or wrong: bundled, own, in the hub's cache."""
    bundled = [bundled_file(source) for source in entry.sources if isinstance(source, BundledSource)]
    hubs = [path for source in entry.sources if isinstance(source, HubSource) and (path := in_hub_cache(source))]
    own = [own_file(entry)] if is_trusted(entry) else []
    return [path for path in [*bundled, *own, *hubs] if path.is_file()]


def in_hub_cache(source: HubSource) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision, repo_type=source.repo_type)
    return Path(found) if isinstance(found, str) else None
