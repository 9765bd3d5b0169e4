"""The manifest of a remote folder: one object for each run, which is written in parts while the run lasts."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from restore_cli.atomic import make_temporary_folder
from restore_cli.errors import RestoreError
from restore_cli.jobs.manifest import Manifest
from restore_cli.jobs.storage import delete_files, download_folder, upload_file

__all__ = ["RemoteManifest", "open_remote_manifest"]

FOLDER = ".restore-manifest"
"""the folder of manifests in a remote output folder"""
PART_SECONDS = 30.0
"""time after which finished images are recorded in a part, even if no other image starts"""


class RemoteManifest(Manifest):
    """The manifest of a remote folder. It works on copies in a temporary folder, and uploads its new lines.

    Object stores cannot append to a file. So a part is uploaded whenever lines must become visible, and at the end of
    the run one object with all lines replaces its parts. The names of objects are in the order in which they count:
    runs are numbered, and the parts of a run come before its whole.
    """

    def __init__(
        self,
        url: str,
        temporary: Path,
        options: Mapping[str, Any],
        is_current: Callable[[Mapping[str, Any]], bool],
        shard: tuple[int, int] | None = None,
    ) -> None:
        """Download and read the manifests of all runs. Raises OutputError, StorageError."""
        self.url, self.temporary = url, temporary
        files = download_folder(url, temporary)
        number = 1 + max((int(path.name[:6]) for path in files if path.name[:6].isdigit()), default=0)
        suffix = "" if shard is None else f".{shard[0]}-of-{shard[1]}"
        self.name = f"{number:06d}-{secrets.token_hex(4)}{suffix}"
        self.parts: list[str] = []
        self.published, self.last_part = 0, time.monotonic()
        super().__init__(temporary / f"{self.name}.jsonl", files, options, is_current)

    def append(self, event: Mapping[str, Any]) -> None:
        """Append one line, and upload a part if none was uploaded for some time. Raises OutputError, StorageError."""
        super().append(event)
        if time.monotonic() - self.last_part > PART_SECONDS:
            self.publish()

    def publish(self) -> None:
        """Upload the lines that no part has yet. Raises OutputError, StorageError."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self.published)
            if lines := file.read():
                name = f"{self.name}.{len(self.parts) + 1:06d}.jsonl"
                part = self.path.with_name("part")
                part.write_bytes(lines)
                upload_file(part, f"{self.url}/{name}")
                self.parts.append(name)
                self.published += len(lines)
                self.last_part = time.monotonic()

    def close(self) -> None:
        """Replace the parts with one object. If that fails, the parts stay."""
        super().close()
        with suppress(RestoreError):
            if self.parts:
                upload_file(self.path, f"{self.url}/{self.path.name}")
                delete_files(self.url, self.parts)
        shutil.rmtree(self.temporary, ignore_errors=True)


def open_remote_manifest(
    folder: str,
    options: Mapping[str, Any],
    is_current: Callable[[Mapping[str, Any]], bool],
    shard: tuple[int, int] | None = None,
) -> RemoteManifest:
    """Return the manifest of a remote folder. Raises OutputError, StorageError."""
    temporary = make_temporary_folder()
    try:
        return RemoteManifest(f"{folder.rstrip('/')}/{FOLDER}", temporary, options, is_current, shard)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
