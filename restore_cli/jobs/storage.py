"""Remote files: s3://, gs://, ftp://, sftp://, http:// and all other protocols of fsspec.

An input is downloaded into a temporary folder of the worker, and its output is uploaded from there. Credentials are
those of fsspec's own configuration.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from restore_cli.errors import ImageError, OutputError, UsageError
from restore_cli.jobs.paths import FileState, IgnoredFiles, Input, make_natural_key

__all__ = ["download_file", "list_remote", "read_remote_state", "upload_file"]

ATOMIC_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"}
"""object stores, where an uploaded file appears only when it is complete"""
MODIFIED_KEYS = ("LastModified", "last_modified", "modified", "mtime", "modify", "updated")
"""keys under which file systems return the modification time"""


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path on it. Raises UsageError, ImageError if it cannot be reached."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: cannot be reached: {error}") from None
    except Exception as error:  # file systems raise their own errors
        raise ImageError(f"{url}: cannot be reached: {describe_storage_error(error)}") from None
    return system, path


def list_remote(url: str, suffixes: Collection[str], recursive: bool, ignored: IgnoredFiles) -> list[Input]:
    """Return the images of a remote folder in natural order, or one remote file. Raises ImageError."""
    system, root = open_filesystem(url)
    try:
        facts = system.info(root)
        if facts["type"] != "directory":
            return [Input(url, url.rpartition("/")[2], None, facts.get("size") or -1, read_modified_ns(facts))]
        below = system.find(root, maxdepth=None if recursive else 1, detail=True)
    except Exception as error:  # file systems raise their own errors
        raise ImageError(f"{url}: cannot be listed: {describe_storage_error(error)}") from None
    found = []
    for path, facts in below.items():
        relative = path.removeprefix(root).lstrip("/")
        if any(part.startswith(".") for part in relative.split("/")):
            ignored.hidden += 1
        elif Path(relative).suffix.lower() not in suffixes:
            ignored.others += 1
        else:
            size = -1 if facts.get("size") is None else facts["size"]
            found.append(Input(f"{url.rstrip('/')}/{relative}", relative, url, size, read_modified_ns(facts)))
    return sorted(found, key=lambda item: [make_natural_key(part) for part in item.relative.split("/")])


def read_remote_state(url: str) -> FileState | None:
    """Return (bytes, modification time in ns) of a remote file, None if it does not exist. Raises OutputError."""
    system, path = open_filesystem(url)
    try:
        system.invalidate_cache()
        facts = system.info(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # file systems raise their own errors
        raise OutputError(f"{url}: its state cannot be read: {describe_storage_error(error)}") from None
    return facts.get("size") or 0, read_modified_ns(facts)


def download_file(url: str, copy: Path) -> None:
    """Download a URL to the file `copy`. Raises ImageError."""
    system, path = open_filesystem(url)
    try:
        system.get_file(path, str(copy))
    except Exception as error:  # file systems raise their own errors
        raise ImageError(f"{url}: cannot be fetched: {describe_storage_error(error)}") from None


def upload_file(path: Path, url: str) -> None:
    """Upload a file under a temporary name and rename it when it is complete. Raises OutputError."""
    system, target = open_filesystem(url)
    folder, _, _ = target.rpartition("/")
    whole = not ATOMIC_PROTOCOLS.isdisjoint([system.protocol] if isinstance(system.protocol, str) else system.protocol)
    part = target if whole else f"{folder}/.restore-{secrets.token_hex(8)}.part"
    try:
        if folder:
            make_folders(system, folder)
        system.put_file(str(path), part)
        if not whole:
            system.mv(part, target)
    except Exception as error:  # file systems raise their own errors, and some cannot write
        line = f"{url}: cannot be written: {describe_storage_error(error)}"
        raise OutputError(line, "-o with another folder") from None


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


def read_modified_ns(facts: Mapping[str, Any]) -> int:
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


def describe_storage_error(error: Exception) -> str:
    """Return the error as one line."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines[0] else type(error).__name__
