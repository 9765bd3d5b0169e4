"""Entry -> a verified file on this disk: bundled, cached, from a hub, or from an address.

Sources are tried in order. A file is used only after its sha256 was checked; a wrong one is deleted.
A download that was cut leaves at most a hidden part, which is taken up again where a sha256 can tell that it fits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from restore_cli.atomic import sync_folder
from restore_cli.errors import ChecksumMismatch, UsageError, WeightsUnavailable
from restore_cli.weights.address import Moved, WebPage, is_offline, quiet_client
from restore_cli.weights.ask import ask
from restore_cli.weights.entry import Entry, HubSource, Source, UrlSource
from restore_cli.weights.progress import Progress, Silent, WrongSize, bar_class, refuse_size
from restore_cli.weights.reasons import is_no_space, reason, status
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
    refuse_sha256,
    remove,
    sweep,
    verify,
)
from restore_cli.weights.transfer import download

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
    if offline or is_offline():
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
    waiting = deque(entry.sources)
    while waiting:
        source = waiting.popleft()
        try:
            with quiet_client():
                path = _from_source(entry, source, force, progress)
            sweep(entry)
            return path
        except Exception as error:  # a source fails in whatever way its library knows; the next one is tried
            if is_no_space(error):
                raise _full(entry, source) from None
            failures.append((source, error))
            if isinstance(error, Moved) and entry.sha256 and source in entry.sources:
                waiting.append(UrlSource(error.target))  # last, and only because its bytes can be checked
            if waiting:
                progress.passed_over(entry.name, f"{source}: {reason(source, error)}")
    raise _unavailable(entry, failures)


def _unavailable(entry: Entry, failures: list[tuple[Source, Exception]]) -> WeightsUnavailable | ChecksumMismatch:
    """Every source with its reason, and what to do."""
    mismatches = [error for _, error in failures if isinstance(error, ChecksumMismatch)]
    if len(mismatches) == len(failures):
        details = "; ".join(error.message.removeprefix(f"{entry.name}: ") for error in mismatches)
        return ChecksumMismatch(f"{entry.name}: {details}", hint=mismatches[-1].hint)
    reasons = "; ".join(f"{source}: {reason(source, error)}" for source, error in failures)
    hint = "install restore-cli again" if entry.bundled else f"restore models pull {entry.name}, later"
    return WeightsUnavailable(f"{entry.name} cannot be fetched: {reasons}", hint=hint)


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
    from huggingface_hub import hf_hub_download

    # asked first because this fails at once, where hf_hub_download tries for half a minute
    there = ask(source)
    refuse_size(entry, there.size)
    if there.sha256 is not None:
        refuse_sha256(entry, there.sha256, f"the file of {source}")
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
    except (ChecksumMismatch, WebPage):
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
        download(entry, source.url, part, progress)
        sha256 = checked(entry, part, str(source))
    except Exception as error:
        wrong = isinstance(error, (WrongSize, WebPage, ChecksumMismatch)) or status(error) == RANGE_NOT_SATISFIABLE
        if part.is_file() and (wrong or part.stat().st_size == 0):
            part.unlink()
        raise
    part.replace(own_file(entry))
    sync_folder(cache_dir())
    keep(entry, own_file(entry), sha256)
