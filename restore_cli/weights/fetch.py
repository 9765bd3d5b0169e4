"""Finds or downloads the file of a checkpoint: from the package, the cache, a hub, or a web address.

Sources are tried in order. A file is used only after its sha256 was checked. A wrong file is deleted.
An interrupted download leaves a hidden part at most. It is continued if the sha256 of the whole file is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from restore_cli.atomic import sync_folder
from restore_cli.errors import ChecksumMismatch, UsageError, WeightsUnavailable
from restore_cli.weights.download_errors import describe_failure, is_disk_full, read_status
from restore_cli.weights.entry import Entry, HubSource, Source, UrlSource
from restore_cli.weights.hub_client import MovedError, WebPageError, is_offline, silence_client
from restore_cli.weights.progress import (
    OnDownload,
    SourceFailed,
    WrongSize,
    ignore_download,
    make_bar_class,
    refuse_size,
)
from restore_cli.weights.source_info import query_source
from restore_cli.weights.store import (
    delete_file,
    delete_parts,
    find_in_hub_cache,
    get_bundled_file,
    get_cache_dir,
    get_cached_file,
    get_part_file,
    locate,
    lock_entry,
    record_file,
    refuse_sha256,
    verify,
    verify_file,
)
from restore_cli.weights.transfer import download

__all__ = ["fetch", "fetch_first"]

RANGE_NOT_SATISFIABLE = 416


def fetch(entry: Entry, *, offline: bool = False, force: bool = False, on_event: OnDownload = ignore_download) -> Path:
    """Return the verified file of `entry`. It is downloaded if it is not on disk, or with `force`.

    Raises WeightsUnavailable if no source has the file, ChecksumMismatch if all sources have another file, UsageError.
    """
    if force and offline:
        raise UsageError(f"{entry.name}: --force downloads again, and --offline forbids it; give one of them")
    if not force and (path := locate(entry)) is not None:
        return path
    if offline or is_offline():
        verify(entry)  # raises ChecksumMismatch for a wrong file, which is not missing
        line = f"{entry.name} is not on this disk and {'--offline is given' if offline else 'HF_HUB_OFFLINE is set'}"
        raise WeightsUnavailable(line, hint=f"restore models pull {entry.name}, with a network")
    with lock_entry(entry):
        # the process that held the lock before may have downloaded the file
        if not force and (path := locate(entry)) is not None:
            return path
        return _fetch_from_any(entry, force, on_event)


def fetch_first(
    entries: Sequence[Entry], *, offline: bool = False, on_event: OnDownload = ignore_download
) -> tuple[Entry, Path]:
    """Return the first of `entries` that is on disk or can be downloaded, and its file.

    An entry is skipped only if no source has it. Raises ChecksumMismatch, and the first WeightsUnavailable if all are
    skipped.
    """
    refusals: list[WeightsUnavailable] = []
    for entry in entries:
        try:
            return entry, fetch(entry, offline=offline, on_event=on_event)
        except WeightsUnavailable as refusal:
            refusals.append(refusal)
    if not refusals:
        raise ValueError("no entries to choose from")
    raise refusals[0]


def _fetch_from_any(entry: Entry, force: bool, on_event: OnDownload) -> Path:
    failures: list[tuple[Source, Exception]] = []
    waiting = deque(entry.sources)
    while waiting:
        source = waiting.popleft()
        try:
            with silence_client():
                path = _fetch_from_source(entry, source, force, on_event)
            delete_parts(entry)
            return path
        except Exception as error:  # libraries raise errors of many types; then the next source is tried
            if is_disk_full(error):
                raise _describe_full_disk(entry, source) from None
            failures.append((source, error))
            if isinstance(error, MovedError) and entry.sha256 and source in entry.sources:
                waiting.append(UrlSource(error.target))  # the new owner is trusted because the sha256 is known
            if waiting:
                on_event(SourceFailed(entry.name, f"{source}: {describe_failure(source, error)}"))
    raise _combine_failures(entry, failures)


def _combine_failures(entry: Entry, failures: list[tuple[Source, Exception]]) -> WeightsUnavailable | ChecksumMismatch:
    """Return one error that names each source with its reason, and the next command."""
    mismatches = [error for _, error in failures if isinstance(error, ChecksumMismatch)]
    if len(mismatches) == len(failures):
        details = "; ".join(error.message.removeprefix(f"{entry.name}: ") for error in mismatches)
        return ChecksumMismatch(f"{entry.name}: {details}", hint=mismatches[-1].hint)
    reasons = "; ".join(f"{source}: {describe_failure(source, error)}" for source, error in failures)
    hint = "install restore-cli again" if entry.bundled else f"restore models pull {entry.name}, later"
    return WeightsUnavailable(f"{entry.name} cannot be fetched: {reasons}", hint=hint)


def _describe_full_disk(entry: Entry, source: Source) -> WeightsUnavailable:
    where = "the hub's cache (HF_HOME)" if isinstance(source, HubSource) else f"{get_cache_dir()} (RESTORE_CACHE)"
    return WeightsUnavailable(f"{entry.name}: no space left in {where}", hint="free some, or name another folder")


def _fetch_from_source(entry: Entry, source: Source, force: bool, on_event: OnDownload) -> Path:
    if isinstance(source, HubSource):
        return _fetch_from_hub(entry, source, force, on_event)
    if isinstance(source, UrlSource):
        return _fetch_from_url(entry, source, on_event)
    path = get_bundled_file(source)
    record_file(entry, path, verify_file(entry, path))
    return path


def _fetch_from_hub(entry: Entry, source: HubSource, force: bool, on_event: OnDownload) -> Path:
    """Download into the cache of the hub's client, which other programs share. A wrong file is deleted there."""
    from huggingface_hub import hf_hub_download

    # this request fails at once, but hf_hub_download would try for half a minute
    there = query_source(source)
    refuse_size(entry, there.size)
    if there.sha256 is not None:
        refuse_sha256(entry, there.sha256, f"the file of {source}")
    # `locate` did not return a copy in this cache, so it is wrong
    again = force or find_in_hub_cache(source) is not None
    path = Path(
        hf_hub_download(
            source.repo,
            source.file,
            repo_type=source.repo_type,
            revision=source.revision,
            force_download=again,
            tqdm_class=make_bar_class(entry, on_event),
        )
    )
    try:
        record_file(entry, path, verify_file(entry, path, str(source)))
    except (ChecksumMismatch, WebPageError):
        delete_file(path)
        raise
    return path


def _fetch_from_url(entry: Entry, source: UrlSource, on_event: OnDownload) -> Path:
    """Download into a hidden part, which is renamed after its sha256 was checked.

    A part with wrong bytes is deleted. If an earlier run left it, the download starts again.
    """
    part = get_part_file(entry, source.url)
    if entry.sha256 is None:
        # without a sha256 the rest of another file could be appended unnoticed
        part.unlink(missing_ok=True)
    resumed = part.is_file()
    try:
        _download_part(entry, source, part, on_event)
    except Exception:
        if not resumed or part.exists():
            raise
        _download_part(entry, source, part, on_event)
    return get_cached_file(entry)


def _download_part(entry: Entry, source: UrlSource, part: Path, on_event: OnDownload) -> None:
    try:
        download(entry, source.url, part, on_event)
        sha256 = verify_file(entry, part, str(source))
    except Exception as error:
        wrong = isinstance(error, (WrongSize, WebPageError, ChecksumMismatch))
        wrong |= read_status(error) == RANGE_NOT_SATISFIABLE
        if part.is_file() and (wrong or part.stat().st_size == 0):
            part.unlink()
        raise
    part.replace(get_cached_file(entry))
    sync_folder(get_cache_dir())
    record_file(entry, get_cached_file(entry), sha256)
