"""Allocates pinned host memory, which a GPU reads and writes while the program goes on."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

__all__ = ["PINNED", "PinnedMemory"]

MOST = 2**30
"""Most bytes per block. PyTorch rounds blocks up to powers of two and keeps them; drivers refuse larger ones."""


class PinnedMemory:
    """Allocates pinned memory until the system refuses it. Copies without it are only slower."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most

    def like(self, x: Tensor, device: torch.device) -> Tensor | None:
        """Return an empty pinned tensor with the shape and dtype of `x`, or None if the system refuses it.

        A refused size is not requested again, because some drivers leak memory when they refuse.
        """
        if x.nbytes > self.most:
            return None
        try:
            return torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        except RuntimeError:
            self.most = x.nbytes // 2
            forget_failure(device)
            return None


def forget_failure(device: torch.device) -> None:
    """Clear the error that CUDA keeps after a refused block. The next kernel would report it as its own."""
    with suppress(RuntimeError):
        torch.zeros(1, device=device)


PINNED = PinnedMemory()
"""The allocator of this process, because the system limits pinned memory per process."""
