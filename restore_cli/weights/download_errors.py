"""Describes in a few words why a download failed, for the errors of all libraries that take part."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping

from restore_cli.errors import ChecksumMismatch
from restore_cli.weights.entry import HubSource, Source

__all__ = ["describe_failure", "is_disk_full", "read_status"]

WORDS = {401: "access refused", 403: "access refused", 404: "not found", 429: "too many requests"}
LIMIT = 160


def describe_failure(source: Source, error: Exception) -> str:
    """Return the reason in one line, without the name of the source."""
    if isinstance(error, ChecksumMismatch):
        return "wrong sha256"
    for link in _walk_causes(error):
        if (code := read_status(link)) is not None:
            return _describe_http_error(source, code, link.response.headers)  # type: ignore[attr-defined]
        if "Timeout" in type(link).__name__:
            return "timed out"
        if type(link).__name__ == "ConnectError":
            return "no connection"
    return _read_first_line(str(error) or type(error).__name__)


def read_status(error: BaseException) -> int | None:
    """Return the HTTP status of an error, or None. The type of the error depends on the version of huggingface_hub."""
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def is_disk_full(error: Exception) -> bool:
    """Return whether the disk or a quota is full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(isinstance(link, OSError) and link.errno in full for link in _walk_causes(error))


def _describe_http_error(source: Source, code: int, headers: Mapping[str, str]) -> str:
    words = WORDS.get(code, "")
    if isinstance(source, HubSource):
        if headers.get("X-Error-Code") == "RepoNotFound":  # also for a repository of another type
            words = f"{'access refused or ' if code == 401 else ''}no such {source.repo_type}"
        elif headers.get("X-Error-Code") == "RevisionNotFound":
            words = "no such commit"
        words += " (HF_TOKEN?)" if code in (401, 403) else ""
    when = _read_first_line(headers.get("Retry-After", ""))
    later = f"try again {f'in {when} s' if when.isdigit() else f'after {when}'}" if when else ""
    return ", ".join(filter(None, (f"HTTP {code}", words, later)))


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _read_first_line(text: str) -> str:
    """Return the printable characters of the first line, at most LIMIT."""
    lines = text.strip().splitlines() or [""]
    return "".join(c for c in lines[0] if c.isprintable())[:LIMIT]
