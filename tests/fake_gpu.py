"""A simulated GPU. Its tensors have no values, and networks run on it as on a GPU, also in a PyTorch without CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["CUDA", "CallRecorder", "autocast_on_gpu", "fake_gpu", "move_to_gpu"]

CUDA = torch.device("cuda:0")


class WithoutDriver(TorchFunctionMode):
    """Replaces functions that need the driver of the device by single operators."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if func is Tensor.__getitem__:
            return view(*args)
        if func is Tensor.__setitem__:
            place = view(*args[:2])
            write = torch.ops.aten.copy_ if isinstance(args[2], Tensor) else torch.ops.aten.fill_
            return write(place, args[2])
        if func is Tensor.contiguous:
            layout = (kwargs or {}).get("memory_format", torch.contiguous_format)
            return args[0].clone(memory_format=layout)
        if func is Tensor.copy_:
            return torch.ops.aten.copy_(*args)
        return func(*args, **(kwargs or {}))


def view(x: Tensor, index: Any) -> Tensor:  # noqa: ANN401  # anything that can be an index
    """Return `x[index]` for integers, slices, None and an ellipsis."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        missing = x.dim() - sum(part is not None and part is not Ellipsis for part in parts)
        parts[at : at + 1] = [slice(None)] * missing
    dim = 0
    for part in parts:
        if isinstance(part, int):
            x = x.select(dim, part)
        elif part is None:
            x = x.unsqueeze(dim)
            dim += 1
        else:
            begin, end, step = part.indices(x.shape[dim])
            x = torch.ops.aten.slice(x, dim, begin, end, step)
            dim += 1
    return x


class CallRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """Records every operator that is called, with its arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's own
        self.calls: list[tuple[torch._ops.OpOverload, dict[str, Any]]] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        names = [argument.name for argument in func._schema.arguments]
        self.calls.append((func, dict(zip(names, args, strict=False)) | (kwargs or {})))
        return func(*args, **(kwargs or {}))


def move_to_gpu(module: nn.Module, device: torch.device = CUDA) -> None:
    """Move the weights of a module to the simulated GPU."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(make_gpu_copy(weight, device), requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, make_gpu_copy(buffer, device))


def make_gpu_copy(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the simulated GPU with the same shape and layout."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)


@contextmanager
def fake_gpu() -> Iterator[CallRecorder]:
    """Inside this block, tensors on a GPU have a shape and a dtype, but no values."""
    recorded = CallRecorder()
    with FakeTensorMode(), WithoutDriver(), recorded:
        yield recorded


@contextmanager
def autocast_on_gpu(dtype: torch.dtype) -> Iterator[None]:
    """Keep `torch.autocast` enabled although there is no CUDA."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", dtype != torch.float32)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
