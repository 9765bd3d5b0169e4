"""Runs batches of tiles through a model. A GPU computes the next batch while the last one is copied back."""

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

__all__ = ["PendingBatch", "run_batches", "submit"]

AHEAD = 1
"""Batches that a GPU may start before the current one has been collected."""


class DeviceEvent(Protocol):
    """A point in the work of a device, such as torch.cuda.Event."""

    def synchronize(self) -> None:
        """Wait until the device has reached it."""


@dataclass(frozen=True)
class PendingBatch:
    """A batch that the model has started."""

    tiles: Tensor
    """(b, c, h, w), the input"""
    out: Tensor
    """(b, c, h·scale, w·scale) on the CPU; valid after the event"""
    event: DeviceEvent | None
    """reached when `out` is valid; None if it already is"""

    def result(self) -> Tensor:
        """Wait for the output and return it. Pinned memory is scarce, so its block is copied and freed."""
        if self.event is None:
            return self.out
        self.event.synchronize()
        return self.out.clone()


def submit(model: Model, tiles: Tensor) -> PendingBatch:
    """Start the batch (b, c, h, w). With pinned memory to copy into, this returns before a GPU has finished."""
    out = model(tiles)
    pinned = PINNED.like(out, out.device) if out.device.type == "cuda" else None
    if pinned is None:
        return PendingBatch(tiles, out.cpu(), None)
    with torch.cuda.device(out.device):
        pinned.copy_(out, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # PyTorch's own
        event.record()
    return PendingBatch(tiles, pinned, event)


def run_batches(model: Model, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield, for each batch (b, c, h, w) in order, its output and the indices of the tiles that ran again in float32.

    The output is (b, c, h·scale, w·scale) on the CPU.

    Raises:
        RestoreError: a tile is not finite in float32 either.
    """
    pending: deque[PendingBatch] = deque()
    for tiles in batches:
        pending.append(submit(model, tiles))
        while pending and (len(pending) > AHEAD or pending[0].event is None):
            yield collect(model, pending.popleft())
    while pending:
        yield collect(model, pending.popleft())


def collect(model: Model, batch: PendingBatch) -> tuple[Tensor, list[int]]:
    """Return the output of a batch, and which of its tiles overflowed and ran again in float32."""
    out = batch.result()
    bad = find_overflows(out)
    fallback = model.fp32_fallback if bad else None
    if fallback is not None:
        again = fallback(batch.tiles[bad]).cpu()
        if not find_overflows(again):
            # On a CPU `out` is a tensor of inference mode, which cannot be written to outside of that mode.
            return out.index_copy(0, torch.tensor(bad), again), bad
    if bad:
        reason = "its weights are damaged or do not suit this image"
        raise RestoreError(f"the output of the model is not finite, even in float32: {reason}", "restore models verify")
    return out, []


def find_overflows(out: Tensor) -> list[int]:
    """Return the indices of the tiles in (b, c, h, w) that hold infinities or NaN; one pass for both extremes."""
    return [i for i, tile in enumerate(out) if not torch.isfinite(torch.stack(torch.aminmax(tile))).all()]
