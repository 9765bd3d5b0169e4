"""Checks at the same time what all sources of some checkpoints state, without a download."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.download_errors import describe_failure
from restore_cli.weights.entry import BundledSource, Entry, Source
from restore_cli.weights.hub_client import is_offline, silence_client
from restore_cli.weights.source_info import SourceInfo, query_source
from restore_cli.weights.store import compute_sha256, get_bundled_file

__all__ = ["CONNECTIONS", "SourceCheck", "check_sources"]

CONNECTIONS = 16
"""requests at the same time"""


@dataclass(frozen=True)
class SourceCheck:
    """What one source of a checkpoint states."""

    entry: Entry
    source: Source
    info: SourceInfo | None = None
    error: str | None = None
    """the reason why there is no information"""

    @property
    def right_size(self) -> bool | None:
        """Whether the size is that of the catalogue. None if one of them is unknown."""
        return _compare(self.info.size, self.entry.bytes) if self.info else None

    @property
    def right_sha256(self) -> bool | None:
        """Whether the sha256 is that of the catalogue. None if one of them is unknown."""
        return _compare(self.info.sha256, self.entry.sha256) if self.info else None

    @property
    def usable(self) -> bool:
        """Whether the source answers, and states no wrong size or sha256."""
        return self.info is not None and self.right_size is not False and self.right_sha256 is not False


def check_sources(entries: Iterable[Entry]) -> list[SourceCheck]:
    """Check each source of each entry, in order. Raises WeightsUnavailable if HF_HUB_OFFLINE is set."""
    if is_offline():
        raise WeightsUnavailable("HF_HUB_OFFLINE is set: sources cannot be checked", hint="HF_HUB_OFFLINE=0")
    pairs = [(entry, source) for entry in entries for source in entry.sources]
    with silence_client(), ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(lambda pair: _check_source(*pair), pairs))


def _check_source(entry: Entry, source: Source) -> SourceCheck:
    try:
        if isinstance(source, BundledSource):
            path = get_bundled_file(source)
            return SourceCheck(entry, source, SourceInfo(path.stat().st_size, compute_sha256(path)))
        return SourceCheck(entry, source, query_source(source))
    except Exception as error:  # libraries raise errors of many types
        return SourceCheck(entry, source, error=describe_failure(source, error))


def _compare(found: int | str | None, expected: int | str | None) -> bool | None:
    return None if found is None or expected is None else found == expected
