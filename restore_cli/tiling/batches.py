"""Runs batches of tiles through a model. A GPU computes the next batch before the last one has been checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from restore_cli.contract import Model
from restore_cli.errors import RestoreError
from restore_cli.tiling.host_copy import HostCopy, copy_to_host

__all__ = ["PendingBatch", "run_batches", "submit"]

AHEAD = 1
"""Batches that a GPU may start before the current one has been collected."""


@dataclass(frozen=True)
class PendingBatch:
    """A batch that the model has started."""

    tiles: Tensor
    """(b, c, h, w), the input"""
    out: Tensor
    """(b, c, h·scale, w·scale), on a GPU or on the CPU"""
    finite: HostCopy
    """(b,), whether all values of each tile are finite"""


def submit(model: Model, tiles: Tensor) -> PendingBatch:
    """Start the batch (b, c, h, w). A GPU keeps the result; from other devices it is copied to the CPU."""
    out = model(tiles)
    out = out if out.device.type == "cuda" else out.cpu()
    return PendingBatch(tiles, out, copy_to_host(are_finite(out)))


def run_batches(model: Model, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield, for each batch (b, c, h, w) in order, its output and the indices of the tiles that ran again in float32.

    The output is (b, c, h·scale, w·scale), on a GPU or on the CPU.

    Raises:
        RestoreError: a tile is not finite in float32 either.
    """
    pending: deque[PendingBatch] = deque()
    for tiles in batches:
        pending.append(submit(model, tiles))
        while pending and (len(pending) > AHEAD or pending[0].finite.event is None):
            yield collect(model, pending.popleft())
    while pending:
        yield collect(model, pending.popleft())


def collect(model: Model, batch: PendingBatch) -> tuple[Tensor, list[int]]:
    """Return the output of a batch, and which of its tiles overflowed and ran again in float32."""
    out, bad = batch.out, find_overflows(batch.finite.wait())
    fallback = model.fp32_fallback if bad else None
    if fallback is not None:
        again = fallback(batch.tiles[bad]).to(out.device)
        if not find_overflows(are_finite(again)):
            # On a CPU `out` is a tensor of inference mode, which cannot be written to outside of that mode.
            return out.index_copy(0, torch.tensor(bad, device=out.device), again), bad
    if bad:
        reason = "its weights are damaged or do not suit this image"
        raise RestoreError(f"the output of the model is not finite, even in float32: {reason}", "restore models verify")
    return out, []


def are_finite(out: Tensor) -> Tensor:
    """Return for each tile in (b, c, h, w) whether all of its values are finite; one pass for both extremes."""
    return torch.stack([torch.isfinite(torch.stack(torch.aminmax(tile))).all() for tile in out])


def find_overflows(finite: Tensor) -> list[int]:
    """Return the indices of the tiles whose values are not all finite."""
    return [i for i, good in enumerate(finite.tolist()) if not good]
