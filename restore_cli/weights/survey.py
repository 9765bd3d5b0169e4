"""Every source of some checkpoints asked at the same time, without a download."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.address import is_offline, quiet_client
from restore_cli.weights.ask import Answer, ask
from restore_cli.weights.entry import BundledSource, Entry, Source
from restore_cli.weights.reasons import reason
from restore_cli.weights.store import bundled_file, sha256_of

__all__ = ["CONNECTIONS", "Finding", "survey"]

CONNECTIONS = 16
"""sources that are asked at the same time"""


@dataclass(frozen=True)
class Finding:
    """What one source of a checkpoint answered."""

    entry: Entry
    source: Source
    answer: Answer | None = None
    error: str | None = None
    """why there is no answer"""

    @property
    def right_size(self) -> bool | None:
        """Whether the size is the catalogue's; None where either of them is not stated."""
        return _equal(self.answer.size, self.entry.bytes) if self.answer else None

    @property
    def right_sha256(self) -> bool | None:
        """Whether the sha256 is the catalogue's; None where either of them is not stated."""
        return _equal(self.answer.sha256, self.entry.sha256) if self.answer else None

    @property
    def usable(self) -> bool:
        """Whether the source answers, and states nothing that is wrong."""
        return self.answer is not None and self.right_size is not False and self.right_sha256 is not False


def survey(entries: Iterable[Entry]) -> list[Finding]:
    """What each source of each entry answers, in order. Raises WeightsUnavailable where HF_HUB_OFFLINE is set."""
    if is_offline():
        raise WeightsUnavailable("HF_HUB_OFFLINE is set: no source can be asked", hint="HF_HUB_OFFLINE=0")
    pairs = [(entry, source) for entry in entries for source in entry.sources]
    with quiet_client(), ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(lambda pair: _find(*pair), pairs))


def _find(entry: Entry, source: Source) -> Finding:
    try:
        if isinstance(source, BundledSource):
            path = bundled_file(source)
            return Finding(entry, source, Answer(path.stat().st_size, sha256_of(path)))
        return Finding(entry, source, ask(source))
    except Exception as error:  # a source fails in whatever way its library knows
        return Finding(entry, source, error=reason(source, error))


def _equal(found: int | str | None, expected: int | str | None) -> bool | None:
    return None if found is None or expected is None else found == expected
