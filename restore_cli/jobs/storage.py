"""Remote files: s3://, gs://, ftp://, sftp://, http:// and all other protocols of fsspec.

An input is downloaded into a temporary folder of the worker, and its output is uploaded from there. Credentials are
those of fsspec's own configuration.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from restore_cli.errors import INSTALL_EXTRA, ImageError, OutputError, RestoreError, UsageError
from restore_cli.jobs.paths import FileState, IgnoredFiles, Input, make_natural_key
from restore_cli.jobs.storage_errors import classify_error, make_request, read_error_code

__all__ = [
    "delete_files",
    "download_file",
    "download_folder",
    "find_states",
    "list_remote",
    "read_remote_state",
    "upload_file",
]

ATOMIC_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"}
"""object stores, which have no folders, and where an uploaded file appears only when it is complete"""
TAG_KEYS = ("ETag", "etag")
"""keys under which object stores return a tag that changes with the contents"""
MODIFIED_KEYS = ("LastModified", "last_modified", "modified", "mtime", "modify", "updated")
"""keys under which file systems return the modification time"""
Facts = Mapping[str, Any]
"""what fsspec returns on a file"""


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path on it. Raises UsageError, ImageError if it cannot be reached."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        hint = INSTALL_EXTRA.format("s3") if url.startswith(("s3:", "s3a:")) else None
        raise UsageError(f"{url}: cannot be reached: {error}", hint) from None
    except ValueError as error:
        raise UsageError(f"{url}: cannot be reached: {error}") from None
    except Exception as error:  # file systems raise their own errors
        raise classify_error(error, url, "cannot be reached", ImageError) from None
    return system, path


def list_remote(
    url: str, suffixes: Collection[str], recursive: bool, ignored: IgnoredFiles, excluded: str | None = None
) -> list[Input]:
    """Return the images of a remote folder in natural order, or one remote file.

    `excluded` is left out if it is a folder below this one. Raises ImageError, StorageError.
    """
    states = find_states(url, recursive, ImageError)
    if "" in states:
        return [Input(url, url.rpartition("/")[2], None, *states[""])]
    if not states:
        system, root = open_filesystem(url)
        make_request(lambda: system.info(root), url, "cannot be listed", ImageError)
    folder, found = url.rstrip("/"), []
    excluded_below = find_path_below(folder, excluded)
    for relative, state in states.items():
        if excluded_below is not None and relative.startswith(excluded_below):
            continue
        if any(part.startswith(".") for part in relative.split("/")):
            ignored.hidden += 1
        elif Path(relative).suffix.lower() not in suffixes:
            ignored.others += 1
        else:
            found.append(Input(f"{folder}/{relative}", relative, url, *state))
    return sorted(found, key=lambda item: [make_natural_key(part) for part in item.relative.split("/")])


def find_path_below(folder: str, other: str | None) -> str | None:
    """Return the relative path of a folder below another one, with a slash at its end. None if it is not below it."""
    start, path = f"{folder}/", f"{(other or '').rstrip('/')}/"
    return path.removeprefix(start) if path.startswith(start) and path != start else None


def find_states(url: str, recursive: bool = True, kind: type[RestoreError] = OutputError) -> dict[str, FileState]:
    """Return the state of each file below a folder by its relative path, or of the URL itself as "" if it is a file.

    A folder of an object store takes one request for each 1000 files. Raises `kind`, StorageError.
    """
    system, root = open_filesystem(url)
    depth = None if recursive else 1

    def find() -> dict[str, Facts]:
        system.invalidate_cache()
        try:
            below: dict[str, Facts]
            if getattr(system, "async_impl", False):  # an object store: asking for the type of the URL costs a request
                below = system.find(root, maxdepth=depth, detail=True)
            elif (facts := system.info(root))["type"] != "directory":
                below = {root: facts}
            else:  # without `on_error`, folders that cannot be listed would count as empty
                below = system.find(root, maxdepth=depth, detail=True, on_error="raise")
        except FileNotFoundError:
            below = {}
        system.invalidate_cache()  # its cache takes as much memory as the answer
        return below

    below = make_request(find, url, "cannot be listed", kind)
    files = {path: facts for path, facts in below.items() if not path.endswith("/")}  # keys with a slash mark folders
    return {path.removeprefix(root).removeprefix("/"): read_state(facts) for path, facts in files.items()}


def read_remote_state(url: str) -> FileState | None:
    """Return the state of a remote file, None if it does not exist. Raises OutputError, StorageError."""
    system, path = open_filesystem(url)

    def read() -> FileState | None:
        system.invalidate_cache()
        try:
            return read_state(system.info(path))
        except FileNotFoundError:
            return None
        except Exception as error:  # file systems raise their own errors
            if read_error_code(error) in ("400", "403"):
                system.ls(path)  # raises an error with the reason, which a HEAD request does not return
            raise

    return make_request(read, url, "its state cannot be read", OutputError)


def read_state(facts: Facts) -> FileState:
    """Return the size in bytes, -1 if it is not known, and the tag of the contents or else the modification time."""
    size = facts.get("size")
    tag = next((str(facts[name]).strip('"') for name in TAG_KEYS if facts.get(name)), "")
    return -1 if size is None else size, tag or read_modified_ns(facts)


def download_file(url: str, copy: Path) -> None:
    """Download a URL to the file `copy`. Raises ImageError, StorageError."""
    system, path = open_filesystem(url)
    make_request(lambda: system.get_file(path, str(copy)), url, "cannot be fetched", ImageError)


def download_folder(url: str, folder: Path) -> list[Path]:
    """Download the files of a folder, without its sub-folders. Return the copies in the order of their names.

    Other users of the store may choose the names. Names with separators are skipped: their copies could replace files
    outside of `folder`. Raises OutputError, StorageError.
    """
    system, root = open_filesystem(url)
    while True:
        names = list_bare_names(url)
        copies, paths = [folder / name for name in names], [f"{root}/{name}" for name in names]
        if not names:
            return []
        try:
            get = partial(system.get, paths, [str(copy) for copy in copies])
            make_request(get, url, "cannot be fetched", OutputError)
            return copies
        except OutputError:
            if list_bare_names(url) == names:
                raise  # otherwise another run has replaced its parts meanwhile


def list_bare_names(url: str) -> list[str]:
    """Return the sorted names of the files of a folder. Those with a slash or a backslash are left out.

    Raises OutputError, StorageError.
    """
    return sorted(name for name in find_states(url) if name not in ("", ".", "..") and not {"/", "\\"} & set(name))


def upload_file(path: Path, url: str) -> None:
    """Upload a file under a temporary name and rename it when it is complete. Raises OutputError, StorageError."""
    system, target = open_filesystem(url)
    whole = not ATOMIC_PROTOCOLS.isdisjoint([system.protocol] if isinstance(system.protocol, str) else system.protocol)

    def upload() -> None:
        if whole:
            system.put_file(str(path), target)
            return
        folder, _, _ = target.rpartition("/")
        part = f"{folder}/.restore-{secrets.token_hex(8)}.part"
        if folder:
            make_folders(system, folder)
        system.put_file(str(path), part)
        system.mv(part, target)

    make_request(upload, url, "cannot be written", OutputError)


def delete_files(url: str, names: Sequence[str]) -> None:
    """Delete files of a folder. Raises OutputError, StorageError."""
    system, root = open_filesystem(url)
    make_request(lambda: system.rm([f"{root}/{name}" for name in names]), url, "cannot be deleted", OutputError)


def make_folders(system: Any, folder: str) -> None:  # noqa: ANN401  # fsspec has no types
    """Make a folder and its parents. Another thread or process may make any of them at the same time."""
    for left in reversed(range(folder.count("/") + 2)):
        try:
            system.makedirs(folder, exist_ok=True)
            return
        except Exception:  # file systems raise their own errors
            system.invalidate_cache()
            if not left and not system.isdir(folder):
                raise


def read_modified_ns(facts: Facts) -> int:
    """Return the modification time in ns, 0 if the file system does not return it."""
    stamp = next((facts[name] for name in MODIFIED_KEYS if facts.get(name)), 0)
    if isinstance(stamp, datetime):
        return int(stamp.timestamp() * 1e9)
    if isinstance(stamp, int | float):
        return int(stamp * 1e9)
    try:  # as FTP writes it: 20260131235959, with or without a fraction
        return int(datetime.strptime(str(stamp)[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp() * 1e9)
    except ValueError:
        return 0
