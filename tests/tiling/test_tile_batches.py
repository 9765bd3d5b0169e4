"""A GPU is given the next batch before the last one is waited for; a CPU is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from restore_cli.contract import Contract
from restore_cli.tiling import batches
from restore_cli.tiling.batches import PendingBatch, find_overflows, run_batches


class Logged:
    """Doubles, and writes down that it was called, and the waiting for each result."""

    contract = Contract(1, 1, 1, 1, 1, overlap=0, tile=None, activation_floats_per_px=1)
    fp32_fallback = None

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.log.append(f"begin {int(x.flatten()[0])}")
        return 2 * x


class Later:
    """The event of a device that gives its numbers when it is waited for, and not before."""

    def __init__(self, log: list[str], out: Tensor, coming: Tensor) -> None:
        self.log, self.out, self.coming = log, out, coming

    def synchronize(self) -> None:
        self.log.append(f"wait {int(self.coming.flatten()[0]) // 2}")
        self.out.copy_(self.coming)


def given(count: int) -> list[Tensor]:
    return [torch.full((2, 1, 3, 3), float(i)) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_device_that_runs_by_itself_has_one_batch_ahead(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Logged()

    def submit(model: Logged, tiles: Tensor) -> PendingBatch:
        coming = model(tiles)
        out = torch.full_like(coming, float("nan"))
        return PendingBatch(tiles, out, Later(model.log, out, coming))

    monkeypatch.setattr(batches, "submit", submit)
    found = [out for out, _ in run_batches(model, given(count))]
    assert all(torch.equal(out, 2 * tiles) for out, tiles in zip(found, given(count), strict=True))
    expected = ["begin 0"] * (count > 0)
    for i in range(count):
        expected += [f"begin {i + 1}"] * (i + 1 < count) + [f"wait {i}"]
    assert model.log == expected


def test_results_without_pinned_memory_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third batch finds some; the others come back at once."""
    model = Logged()

    def submit(model: Logged, tiles: Tensor) -> PendingBatch:
        coming = model(tiles)
        if int(tiles.flatten()[0]) % 3:
            return PendingBatch(tiles, coming, None)
        out = torch.full_like(coming, float("nan"))
        return PendingBatch(tiles, out, Later(model.log, out, coming))

    monkeypatch.setattr(batches, "submit", submit)
    found = [out for out, _ in run_batches(model, given(8))]
    assert all(torch.equal(out, 2 * tiles) for out, tiles in zip(found, given(8), strict=True))


def test_on_a_cpu_each_batch_is_given_out_before_the_next_begins() -> None:
    model = Logged()
    for i, _ in enumerate(run_batches(model, given(4))):
        assert model.log == [f"begin {j}" for j in range(i + 1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 7, 8, 26])
def test_one_number_that_is_none_is_seen_wherever_it_is(value: float, place: int) -> None:
    out = torch.rand(3, 3, 3, 3)
    assert find_overflows(out) == []
    out[1].flatten()[place] = value
    assert find_overflows(out) == [1]
