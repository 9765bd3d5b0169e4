"""Why a source gave no file, in a few words, whichever library the error comes from."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping

from restore_cli.errors import ChecksumMismatch
from restore_cli.weights.entry import HubSource, Source

__all__ = ["is_no_space", "reason", "status"]

WORDS = {401: "access refused", 403: "access refused", 404: "not found", 429: "too many requests"}
LIMIT = 160


def reason(source: Source, error: Exception) -> str:
    """One line, without the name of the source."""
    if isinstance(error, ChecksumMismatch):
        return "wrong sha256"
    for link in _chain(error):
        if (code := status(link)) is not None:
            return _http_reason(source, code, link.response.headers)  # type: ignore[attr-defined]
        if "Timeout" in type(link).__name__:
            return "timed out"
        if type(link).__name__ == "ConnectError":
            return "no connection"
    return _printable(str(error) or type(error).__name__)


def status(error: BaseException) -> int | None:
    """The HTTP status, where the error has one; by shape, because the hub's library has changed its own before."""
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def is_no_space(error: Exception) -> bool:
    """Whether the disk or a quota is full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(isinstance(link, OSError) and link.errno in full for link in _chain(error))


def _http_reason(source: Source, code: int, headers: Mapping[str, str]) -> str:
    words = WORDS.get(code, "")
    if isinstance(source, HubSource):
        if (
            headers.get("X-Error-Code") == "RepoNotFound"
        ):  # also what a hub says where the repository is of another kind
            words = f"{'access refused or ' if code == 401 else ''}no such {source.repo_type}"
        elif headers.get("X-Error-Code") == "RevisionNotFound":
            words = "no such commit"
        words += " (HF_TOKEN?)" if code in (401, 403) else ""
    when = _printable(headers.get("Retry-After", ""))
    later = f"try again {f'in {when} s' if when.isdigit() else f'after {when}'}" if when else ""
    return ", ".join(filter(None, (f"HTTP {code}", words, later)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _printable(text: str) -> str:
    """The first line, of a length that fits into a message."""
    lines = text.strip().splitlines() or [""]
    return "".join(c for c in lines[0] if c.isprintable())[:LIMIT]
