"""Memory of the host that a GPU reads and writes by itself while the program goes on."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

__all__ = ["PINNED", "PinnedMemory"]

MOST = 2**30
"""Bytes of a block at most. PyTorch rounds blocks up to powers of two and keeps them; drivers refuse larger ones."""


class PinnedMemory:
    """Blocks of pinned memory as long as the system gives them. It is scarce, and copies without it are only slower."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most

    def like(self, x: Tensor, device: torch.device) -> Tensor | None:
        """Return an empty block of the shape and dtype of `x` for copies from and to a GPU, None where none is left.

        A size that was refused is not asked for again: some drivers leak what they could not give.
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
    """Clear the error that CUDA keeps of a refused block, which the next kernel would report as its own."""
    with suppress(RuntimeError):
        torch.zeros(1, device=device)


PINNED = PinnedMemory()
"""That of this process: the system counts pinned memory for all of it."""
