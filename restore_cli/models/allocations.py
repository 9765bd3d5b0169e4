"""Watches the tensors that PyTorch makes: limits them while a network is built, finds their peak while it runs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

__all__ = ["AllocationLimit", "PeakMeter"]

Operator = Any
Arguments = Mapping[str, Any]
aten: Any = torch.ops.aten
INITIALISERS: tuple[Operator, ...] = (aten.normal_.default, aten.uniform_.default)


def find_tensors(values: object) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dictionaries."""
    return [value for value in tree_iter(values) if isinstance(value, Tensor)]


class AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises ValueError in the block before the tensors that are made there have more than `elements` in all.

    Initial values are 0, not random: the weights of a file replace them, and drawing them takes seconds.
    """

    def __init__(self, elements: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = elements

    def __torch_dispatch__(
        self, func: Operator, types: object, args: tuple[object, ...] = (), kwargs: Arguments | None = None
    ) -> object:
        """Run an operator. One that makes a tensor from numbers tells its size on the meta device first."""
        named = dict(kwargs or {})
        if func in INITIALISERS:
            return aten.zero_.default(args[0])
        if not find_tensors((args, named)):
            if any(argument.name == "device" for argument in func._schema.arguments):
                self.count(func(*args, **named | {"device": torch.device("meta"), "pin_memory": None}))
            return func(*args, **named)
        out = func(*args, **named)
        if not func._schema.is_mutable:
            self.count(out)
        return out

    def count(self, made: object) -> None:
        self.left -= sum(tensor.numel() for tensor in find_tensors(made))
        if self.left < 0:
            raise ValueError("the network would be much larger than the file")


class PeakMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds the most bytes that the tensors which are made in the block hold at the same time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held, self.peak = 0, 0
        self.sizes: dict[int, int] = {}
        """bytes of each storage that exists, by its id; 0 for those from outside of the block"""

    def __torch_dispatch__(
        self, func: Operator, types: object, args: tuple[object, ...] = (), kwargs: Arguments | None = None
    ) -> object:
        """Run an operator, and count its results until they are freed."""
        for tensor in find_tensors((args, kwargs)):
            self.add(tensor, counts=False)
        out = func(*args, **(kwargs or {}))
        for tensor in find_tensors(out):
            self.add(tensor, counts=True)
        return out

    def add(self, tensor: Tensor, counts: bool) -> None:
        storage = tensor.untyped_storage()
        if id(storage) in self.sizes:
            return
        self.sizes[id(storage)] = storage.nbytes() if counts else 0
        self.held += self.sizes[id(storage)]
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self.remove, id(storage)).atexit = False

    def remove(self, storage_id: int) -> None:
        self.held -= self.sizes.pop(storage_id)
