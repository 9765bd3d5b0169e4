"""A GPU starts the next batch before the last one is collected; a CPU does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from restore_cli.contract import Contract
from restore_cli.tiling import batches
from restore_cli.tiling.batches import PendingBatch, are_finite, find_overflows, run_batches
from restore_cli.tiling.host_copy import HostCopy


class LoggingModel:
    """Doubles its input, and logs each call and each wait."""

    contract = Contract(1, 1, 1, 1, 1, overlap=0, tile=None, activation_floats_per_px=1)
    fp32_fallback = None

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.log.append(f"begin {int(x.flatten()[0])}")
        return 2 * x


class LateEvent:
    """The event of a device whose check is valid only after a wait."""

    def __init__(self, log: list[str], finite: Tensor, result: Tensor) -> None:
        self.log, self.finite, self.result = log, finite, result

    def synchronize(self) -> None:
        self.log.append(f"wait {int(self.result.flatten()[0]) // 2}")
        self.finite.copy_(are_finite(self.result))


def make_batches(count: int) -> list[Tensor]:
    return [torch.full((2, 1, 3, 3), float(i)) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_an_asynchronous_device_runs_one_batch_ahead(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LoggingModel()

    def submit(model: LoggingModel, tiles: Tensor) -> PendingBatch:
        result = model(tiles)
        finite = torch.zeros(len(tiles), dtype=torch.bool)
        return PendingBatch(tiles, result, HostCopy(finite, LateEvent(model.log, finite, result)))

    monkeypatch.setattr(batches, "submit", submit)
    found = [out for out, _ in run_batches(model, make_batches(count))]
    assert all(torch.equal(out, 2 * tiles) for out, tiles in zip(found, make_batches(count), strict=True))
    expected = ["begin 0"] * (count > 0)
    for i in range(count):
        expected += [f"begin {i + 1}"] * (i + 1 < count) + [f"wait {i}"]
    assert model.log == expected


def test_order_is_kept_if_pinned_memory_is_sometimes_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third batch gets pinned memory; the others are ready at once."""
    model = LoggingModel()

    def submit(model: LoggingModel, tiles: Tensor) -> PendingBatch:
        result = model(tiles)
        if int(tiles.flatten()[0]) % 3:
            return PendingBatch(tiles, result, HostCopy(are_finite(result), None))
        finite = torch.zeros(len(tiles), dtype=torch.bool)
        return PendingBatch(tiles, result, HostCopy(finite, LateEvent(model.log, finite, result)))

    monkeypatch.setattr(batches, "submit", submit)
    found = [out for out, _ in run_batches(model, make_batches(8))]
    assert all(torch.equal(out, 2 * tiles) for out, tiles in zip(found, make_batches(8), strict=True))


def test_a_cpu_yields_each_batch_before_it_starts_the_next() -> None:
    model = LoggingModel()
    for i, _ in enumerate(run_batches(model, make_batches(4))):
        assert model.log == [f"begin {j}" for j in range(i + 1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 7, 8, 26])
def test_a_single_value_that_is_not_finite_is_found(value: float, place: int) -> None:
    out = torch.rand(3, 3, 3, 3)
    assert find_overflows(are_finite(out)) == []
    out[1].flatten()[place] = value
    assert find_overflows(are_finite(out)) == [1]
