"""Batches of tiles through the model; a GPU has the next one before the last one is back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from restore_cli.contract import Model
from restore_cli.errors import RestoreError
from restore_cli.pinned import PINNED

__all__ = ["Begun", "begin", "restored"]

AHEAD = 1
"""Batches that a GPU has beside the one that is waited for."""


class Event(Protocol):
    """Something that will have happened, torch.cuda.Event for one."""

    def synchronize(self) -> None:
        """Waits for it."""


@dataclass(frozen=True)
class Begun:
    """A batch that the model has been given."""

    tiles: Tensor
    out: Tensor
    """(b, c, h·scale, w·scale) on the CPU; not to be read before the event"""
    event: Event | None
    """that it is there; None where it is already"""

    def result(self) -> Tensor:
        """Waits for it. Memory that a GPU copies into is scarce, so it goes back at once."""
        if self.event is None:
            return self.out
        self.event.synchronize()
        return self.out.clone()


def begin(model: Model, tiles: Tensor) -> Begun:
    """Gives the batch (b, c, h, w) to the model. A GPU works on meanwhile where there is pinned memory to copy into."""
    out = model(tiles)
    pinned = PINNED.like(out, out.device) if out.device.type == "cuda" else None
    if pinned is None:
        return Begun(tiles, out.cpu(), None)
    with torch.cuda.device(out.device):
        pinned.copy_(out, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # PyTorch's own
        event.record()
    return Begun(tiles, pinned, event)


def restored(model: Model, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, list[int]]]:
    """Each batch (b, c, h, w) -> (b, c, h·scale, w·scale) on the CPU, in order, and which of it ran in float32."""
    under_way: deque[Begun] = deque()
    for tiles in batches:
        under_way.append(begin(model, tiles))
        while under_way and (len(under_way) > AHEAD or under_way[0].event is None):
            yield finite(model, under_way.popleft())
    while under_way:
        yield finite(model, under_way.popleft())


def finite(model: Model, begun: Begun) -> tuple[Tensor, list[int]]:
    """The batch when it is there, and which of its tiles overflowed and were run again in float32.

    Raises RestoreError where even those are not finite.
    """
    out = begun.result()
    bad = overflowed(out)
    if bad and model.exact is not None:
        again = model.exact(begun.tiles[bad]).cpu()
        if not overflowed(again):
            # On a CPU `out` is the model's own tensor of inference mode, which cannot be written to outside of it.
            return out.index_copy(0, torch.tensor(bad), again), bad
    if bad:
        raise RestoreError(
            "the model gave numbers that are not finite, even in float32: its weights do not suit this picture",
            hint="restore models verify",
        )
    return out, []


def overflowed(out: Tensor) -> list[int]:
    """The tiles (b, c, h, w) that hold something infinite or no number: their extremes tell, in one pass."""
    return [i for i, tile in enumerate(out) if not torch.isfinite(torch.stack(torch.aminmax(tile))).all()]
