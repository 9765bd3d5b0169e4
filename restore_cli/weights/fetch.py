"""Entry -> a verified file on this disk: bundled, cached, from a hub, or from an address.

Sources are tried in order. A file is used only after its sha256 was checked; a wrong one is deleted.
A download that was cut leaves at most a hidden part, which is taken up again where a sha256 can tell that it fits.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path

from restore_cli.atomic import sync_folder
from restore_cli.errors import ChecksumMismatch, UsageError, WeightsUnavailable
from restore_cli.weights.entry import Entry, HubSource, Source, UrlSource
from restore_cli.weights.progress import Progress, Silent, WrongSize, bar_class, refuse_size
from restore_cli.weights.store import (
    bundled_file,
    cache_dir,
    checked,
    discard,
    in_hub_cache,
    keep,
    locate,
    locked,
    own_file,
    part_file,
    remove,
    sweep,
    verify,
)

__all__ = ["Progress", "fetch", "fetch_first", "locate", "remove", "verify"]

RANGE_NOT_SATISFIABLE = 416


def fetch(entry: Entry, *, offline: bool = False, force: bool = False, progress: Progress | None = None) -> Path:
    """The verified file of `entry`, downloaded where it is not on disk (`force`: in any case).

    Raises WeightsUnavailable where no source gave it, ChecksumMismatch where every source gave something else.
    """
    if force and offline:
        raise UsageError(f"{entry.name}: --force downloads again, --offline forbids it; give one of them")
    if not force and (path := locate(entry)) is not None:
        return path
    if offline or _hub_offline():
        verify(entry)  # a file that is there and wrong is said to be wrong, not missing
        why = "--offline is given" if offline else "HF_HUB_OFFLINE is set"
        raise WeightsUnavailable(
            f"{entry.name} is not on this disk and {why}", hint=f"restore models pull {entry.name}, with a network"
        )
    with locked(entry):
        # whoever held the lock before may have brought the file
        if not force and (path := locate(entry)) is not None:
            return path
        return _from_sources(entry, force, progress or Silent())


def fetch_first(
    entries: Sequence[Entry], *, offline: bool = False, progress: Progress | None = None
) -> tuple[Entry, Path]:
    """The first of `entries` that is on disk or can be fetched, and its file.

    Only what cannot be had is passed over; a wrong sha256 is an error. Where none can be had, the first one's reason.
    """
    refusals: list[WeightsUnavailable] = []
    for entry in entries:
        try:
            return entry, fetch(entry, offline=offline, progress=progress)
        except WeightsUnavailable as refusal:
            refusals.append(refusal)
    if not refusals:
        raise ValueError("no entries to choose from")
    raise refusals[0]


def _from_sources(entry: Entry, force: bool, progress: Progress) -> Path:
    failures: list[tuple[Source, Exception]] = []
    for source in entry.sources:
        try:
            with _quiet():
                path = _from_source(entry, source, force, progress)
            sweep(entry)
            return path
        except Exception as error:  # a source fails in whatever way its library knows; the next one is tried
            if _no_space(error):
                raise _full(entry, source) from None
            failures.append((source, error))
    if all(isinstance(error, ChecksumMismatch) for _, error in failures):
        raise failures[-1][1]
    reasons = "; ".join(f"{source}: {_reason(error)}" for source, error in failures)
    raise WeightsUnavailable(f"{entry.name} cannot be had: {reasons}", hint=f"restore models info {entry.name}")


def _full(entry: Entry, source: Source) -> WeightsUnavailable:
    where = "the hub's cache (HF_HOME)" if isinstance(source, HubSource) else f"{cache_dir()} (RESTORE_CACHE)"
    return WeightsUnavailable(f"{entry.name}: no space left in {where}", hint="free some, or name another folder")


def _from_source(entry: Entry, source: Source, force: bool, progress: Progress) -> Path:
    if isinstance(source, HubSource):
        return _from_hub(entry, source, force, progress)
    if isinstance(source, UrlSource):
        return _from_url(entry, source, progress)
    path = bundled_file(source)
    keep(entry, path, checked(entry, path))
    return path


def _from_hub(entry: Entry, source: HubSource, force: bool, progress: Progress) -> Path:
    """Through the hub's own cache, so that other programs share the file; a wrong one is deleted from it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    # asked first because this fails at once, where hf_hub_download tries for half a minute
    there = get_hf_file_metadata(
        hf_hub_url(source.repo, source.file, repo_type=source.repo_type, revision=source.revision)
    )
    refuse_size(entry, there.size)
    # a copy that is there already is one that `locate` has just refused
    stale = in_hub_cache(source) is not None
    bar = bar_class(entry, progress)
    path = Path(
        hf_hub_download(
            source.repo,
            source.file,
            repo_type=source.repo_type,
            revision=source.revision,
            force_download=force or stale,
            tqdm_class=bar,
        )
    )
    try:
        keep(entry, path, checked(entry, path, str(source)))
    except ChecksumMismatch:
        discard(path)
        raise
    return path


def _from_url(entry: Entry, source: UrlSource, progress: Progress) -> Path:
    """Into a hidden part that becomes the file once its sha256 is right.

    A part is deleted when its bytes are known to be wrong; where they were an old part's, a new one is begun.
    """
    part = part_file(entry, source.url)
    if entry.sha256 is None:
        # without a sha256 nothing could tell whether a rest belongs to this beginning
        part.unlink(missing_ok=True)
    resumed = part.is_file()
    try:
        _transfer(entry, source, part, progress)
    except Exception:
        if not resumed or part.exists():
            raise
        _transfer(entry, source, part, progress)
    return own_file(entry)


def _transfer(entry: Entry, source: UrlSource, part: Path, progress: Progress) -> None:
    try:
        _append(entry, source, part, progress)
        sha256 = checked(entry, part, str(source))
    except Exception as error:
        wrong = isinstance(error, (WrongSize, ChecksumMismatch)) or _status(error) == RANGE_NOT_SATISFIABLE
        if part.is_file() and (wrong or part.stat().st_size == 0):
            part.unlink()
        raise
    part.replace(own_file(entry))
    sync_folder(cache_dir())
    keep(entry, own_file(entry), sha256)


def _append(entry: Entry, source: UrlSource, part: Path, progress: Progress) -> None:
    """What is missing of the part, to disk."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.file_download import http_get

    # like the hub's: without a network this fails at once, where http_get tries for some seconds
    get_session().head(source.url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    with part.open("ab") as file:
        http_get(
            source.url,
            file,
            resume_size=file.tell(),
            headers={"Accept-Encoding": "identity"},
            expected_size=entry.bytes,
            tqdm_class=bar_class(entry, progress),
        )
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _quiet() -> Iterator[None]:
    """The hub's library neither logs nor warns: what went wrong is in our own error."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def _hub_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _no_space(error: Exception) -> bool:
    return any(
        isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) for link in _chain(error)
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status, where the error has one; by shape, because the hub's library has changed its own before."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _reason(error: Exception) -> str:
    """A few words: whatever library the error came from."""
    if isinstance(error, ChecksumMismatch):
        return "wrong sha256"
    for link in _chain(error):
        status = _status(link)
        if status in (401, 403):
            return f"HTTP {status}, access refused (HF_TOKEN?)"
        if status is not None:
            return f"HTTP {status}"
        if "Timeout" in type(link).__name__:
            return "timed out"
        if type(link).__name__ == "ConnectError":
            return "no connection"
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:120]
