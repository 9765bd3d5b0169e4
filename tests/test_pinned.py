"""If the system refuses pinned memory, a GPU's results return through plain memory. The GPU is simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from restore_cli import pinned
from restore_cli.models import network
from restore_cli.models.network import Network
from restore_cli.pinned import PinnedMemory
from restore_cli.tiling import host_copy
from restore_cli.tiling.host_copy import copy_to_host

CUDA = torch.device("cuda:0")
ERRORS = ["CUDA error: out of memory", "CUDA error: invalid argument"]


@dataclass
class Driver:
    """Simulates how CUDA refuses a block of pinned memory: it keeps the error, and the next launch reports it."""

    most: int
    """bytes of the largest block that it allocates"""
    message: str = ERRORS[0]
    asked: list[int] = field(default_factory=list)
    stale: bool = False

    def empty(self, allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a `torch.empty` that takes pinned memory from this driver."""

        def empty(*size: Any, pin_memory: bool = False, **given: Any) -> Tensor:  # noqa: ANN401  # as torch.empty
            out = allocate(*size, **given)
            if pin_memory:
                self.asked.append(out.nbytes)
                if out.nbytes > self.most:
                    self.stale = True
                    raise getattr(torch, "AcceleratorError", RuntimeError)(self.message)
            return out

        return empty


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """Lets the next operator on the GPU report the error that the driver has kept."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's own
        self.driver = driver

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if self.driver.stale and any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves((args, out))):
            self.driver.stale = False
            raise RuntimeError(self.driver.message)
        return out


@contextmanager
def gpu(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A simulated GPU, in a process that has not requested pinned memory yet."""
    memory = PinnedMemory()
    monkeypatch.setattr(host_copy, "PINNED", memory)
    monkeypatch.setattr(network, "PINNED", memory)
    monkeypatch.setattr(torch, "empty", driver.empty(torch.empty))
    with FakeTensorMode(), Launches(driver):
        yield


@pytest.mark.parametrize("message", ERRORS)
def test_a_result_returns_through_plain_memory(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(0, message)
    with gpu(driver, monkeypatch):
        for _ in range(2):
            copy = copy_to_host(torch.empty(2, 3, 32, 32, device=CUDA))
            assert (copy.out.device.type, copy.out.shape, copy.event) == ("cpu", (2, 3, 32, 32), None)
    assert driver.asked == [2 * 3 * 32 * 32 * 4]  # a refused size is not requested again


@pytest.mark.parametrize("message", ERRORS)
def test_tiles_reach_the_gpu_through_plain_memory(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(0, message)
    with gpu(driver, monkeypatch):
        model = Network(nn.Identity(), CUDA, torch.float32)
        assert model(torch.empty(1, 3, 16, 16)).is_cuda
        assert model(torch.empty(1, 3, 16, 16)).is_cuda
    assert driver.asked == [3 * 16 * 16 * 4]


def test_smaller_blocks_are_still_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(3 * 16 * 16 * 4)
    with gpu(driver, monkeypatch):
        model = Network(nn.Identity(), CUDA, torch.float32)
        for count in (4, 1, 2, 4):
            assert model(torch.empty(count, 3, 16, 16)).is_cuda
    assert driver.asked == [3 * 16 * 16 * 4 * count for count in (4, 1, 2)]


def test_no_block_is_requested_that_would_be_rounded_up_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(1 << 60)
    with gpu(driver, monkeypatch):
        for size in (pinned.MOST, pinned.MOST + 1):
            block = PinnedMemory().like(torch.empty(size, dtype=torch.uint8), CUDA)
            assert (block is not None) == (size == pinned.MOST)
    assert driver.asked == [pinned.MOST]
    assert pinned.MOST.bit_count() == 1
