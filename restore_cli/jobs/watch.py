"""Files that appear in a folder that is watched."""

from __future__ import annotations

from dataclasses import dataclass, field

from restore_cli.jobs.paths import Input

__all__ = ["INTERVAL", "Appearing"]

INTERVAL = 1.0
"""seconds between two looks; a file counts once it has not changed from one to the next"""

Facts = tuple[int, int]


@dataclass
class Appearing:
    """What has been seen, look by look."""

    taken: dict[str, Facts] = field(default_factory=dict)
    before: dict[str, Facts] = field(default_factory=dict)
    now: dict[str, Facts] = field(default_factory=dict)

    def settled(self, item: Input) -> bool:
        """Whether a file is new or changed and has stopped growing; true once for each time that it changes."""
        facts = item.bytes, item.modified
        if self.taken.get(item.path) == facts:
            return False
        if self.before.get(item.path) == facts:
            self.taken[item.path] = facts
            return True
        self.now[item.path] = facts
        return False

    def look_again(self) -> None:
        """A look is over."""
        self.before, self.now = self.now, {}
