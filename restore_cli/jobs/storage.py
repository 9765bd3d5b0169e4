"""Files that lie elsewhere: s3://, gs://, ftp://, sftp://, http://, whatever fsspec can reach.

An input is fetched into a temporary folder beside the worker, a result is sent from there; pictures are never
restored over the wire. Listing, fetching and sending are fsspec's; who may do so, its own configuration says.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from restore_cli.errors import ImageError, OutputError, UsageError
from restore_cli.jobs.paths import Input, PassedOver, natural

__all__ = ["fetch_file", "list_remote", "look_at", "send"]

WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"}
"""object stores: what is sent there appears when all of it is there"""
MODIFIED = ("LastModified", "last_modified", "modified", "mtime", "modify", "updated")
"""what file systems call the time of the last change"""


def place(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there. Raises UsageError where fsspec lacks what it takes."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: cannot be reached: {error}") from None
    except Exception as error:  # each file system has its own: no such host, no permission
        raise ImageError(f"{url}: cannot be reached: {said(error)}") from None
    return system, path


def list_remote(url: str, suffixes: Collection[str], recursive: bool, passed: PassedOver) -> list[Input]:
    """The images of a folder, in natural order; or the one file. Raises ImageError where it cannot be looked into."""
    system, root = place(url)
    try:
        facts = system.info(root)
        if facts["type"] != "directory":
            return [Input(url, url.rpartition("/")[2], None, facts.get("size") or -1, modified(facts))]
        below = system.find(root, maxdepth=None if recursive else 1, detail=True)
    except Exception as error:  # each file system has its own
        raise ImageError(f"{url}: cannot be looked into: {said(error)}") from None
    found = []
    for path, facts in below.items():
        relative = path.removeprefix(root).lstrip("/")
        if any(part.startswith(".") for part in relative.split("/")):
            passed.hidden += 1
        elif Path(relative).suffix.lower() not in suffixes:
            passed.others += 1
        else:
            size = facts.get("size")
            item = Input(f"{url.rstrip('/')}/{relative}", relative, url, -1 if size is None else size, modified(facts))
            found.append(item)
    return sorted(found, key=lambda item: [natural(part) for part in item.relative.split("/")])


def look_at(url: str) -> tuple[int, int] | None:
    """(bytes, time of last change in ns) of what is there. Raises OutputError where nobody can tell."""
    system, path = place(url)
    try:
        system.invalidate_cache()
        facts = system.info(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # each file system has its own
        raise OutputError(f"{url}: cannot be looked at: {said(error)}") from None
    return facts.get("size") or 0, modified(facts)


def fetch_file(url: str, copy: Path) -> None:
    """The file of a URL as `copy`. Raises ImageError where it cannot be fetched."""
    system, path = place(url)
    try:
        system.get_file(path, str(copy))
    except Exception as error:  # each file system has its own
        raise ImageError(f"{url}: cannot be fetched: {said(error)}") from None


def send(path: Path, url: str) -> None:
    """A finished file to where it belongs, under its name only when all of it is there. Raises OutputError."""
    system, target = place(url)
    folder, _, _ = target.rpartition("/")
    whole = not WHOLE.isdisjoint([system.protocol] if isinstance(system.protocol, str) else system.protocol)
    part = target if whole else f"{folder}/.restore-{secrets.token_hex(8)}.part"
    try:
        if folder:
            make_folders(system, folder)
        system.put_file(str(path), part)
        if not whole:
            system.mv(part, target)
    except Exception as error:  # each file system has its own, and some cannot write
        raise OutputError(f"{url}: cannot be written: {said(error)}", "-o with another folder") from None


class Folders(Protocol):
    """What a file system of fsspec does with folders."""

    def makedirs(self, path: str, exist_ok: bool) -> None: ...
    def isdir(self, path: str) -> bool: ...
    def invalidate_cache(self) -> None: ...


def make_folders(system: Folders, folder: str) -> None:
    """The folder and those above it. Another thread or process may make any of them between a look and the making."""
    for left in reversed(range(folder.count("/") + 2)):
        try:
            system.makedirs(folder, exist_ok=True)
            return
        except Exception:  # each file system has its own
            system.invalidate_cache()
            if not left and not system.isdir(folder):
                raise


def modified(facts: Mapping[str, Any]) -> int:
    """Time of the last change, ns; 0 where the file system does not tell."""
    stamp = next((facts[name] for name in MODIFIED if facts.get(name)), 0)
    if isinstance(stamp, datetime):
        return int(stamp.timestamp() * 1e9)
    if isinstance(stamp, int | float):
        return int(stamp * 1e9)
    try:  # FTP's: 20260131235959, with or without a fraction
        return int(datetime.strptime(str(stamp)[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp() * 1e9)
    except ValueError:
        return 0


def said(error: Exception) -> str:
    """One line."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines[0] else type(error).__name__
