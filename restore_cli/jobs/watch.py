"""Waits until files of a watched folder are complete."""

from __future__ import annotations

from dataclasses import dataclass, field

from restore_cli.jobs.paths import FileState, Input

__all__ = ["SCAN_SECONDS", "StableFileWatcher"]

SCAN_SECONDS = 1.0
"""time between two scans; a file is complete if it has not changed between two of them"""


@dataclass
class StableFileWatcher:
    """Compares the files of each scan with those of the scan before."""

    accepted: dict[str, FileState] = field(default_factory=dict)
    previous: dict[str, FileState] = field(default_factory=dict)
    current: dict[str, FileState] = field(default_factory=dict)

    def is_stable(self, item: Input) -> bool:
        """Whether a file is new or changed and has stopped changing. True once for each change."""
        state = item.bytes, item.modified
        if self.accepted.get(item.path) == state:
            return False
        if self.previous.get(item.path) == state:
            self.accepted[item.path] = state
            return True
        self.current[item.path] = state
        return False

    def end_scan(self) -> None:
        """Start a new scan."""
        self.previous, self.current = self.current, {}
