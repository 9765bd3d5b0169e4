"""Copies results of a device to the CPU while the device goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from restore_cli.pinned import PINNED

__all__ = ["DeviceEvent", "HostCopy", "copy_to_host"]


class DeviceEvent(Protocol):
    """A point in the work of a device, such as torch.cuda.Event."""

    def synchronize(self) -> None:
        """Wait until the device has reached it."""


@dataclass(frozen=True)
class HostCopy:
    """A tensor on the CPU that a device may still be writing."""

    out: Tensor
    event: DeviceEvent | None
    """reached when `out` is valid; None if it already is"""

    def wait(self) -> Tensor:
        """Wait for the values and return them, perhaps in pinned memory, which is scarce."""
        if self.event is not None:
            self.event.synchronize()
        return self.out

    def take(self) -> Tensor:
        """Wait for the values and return them, never in pinned memory."""
        return self.out if self.event is None else self.wait().clone()


def copy_to_host(x: Tensor) -> HostCopy:
    """Start to copy a tensor to the CPU. With pinned memory to copy into, this returns before a GPU has finished."""
    pinned = PINNED.like(x, x.device) if x.device.type == "cuda" else None
    if pinned is None:
        return HostCopy(x.cpu(), None)
    with torch.cuda.device(x.device):
        pinned.copy_(x.contiguous(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # PyTorch's own
        event.record()
    return HostCopy(pinned, event)
