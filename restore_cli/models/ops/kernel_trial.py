"""Tries fused kernels on a device before networks use them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from restore_cli.errors import is_out_of_memory

__all__ = ["has_matrix_units", "kernels_agree", "triton_is_older_than", "warn_without_kernel"]

LOG = logging.getLogger(__name__)

FP32_TOLERANCE = 1e-5
"""Relative error allowed between two float32 results whose sums have another order, as in the tests of networks."""

MATRIX_GPUS = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
"""Prefixes of the names of AMD GPUs with matrix units."""


@cache
def has_matrix_units(device: torch.device) -> bool:
    """Return whether Triton uses the matrix units of a GPU: NVIDIA's from compute capability 8.0 on, and AMD's by name.

    On other GPUs its products are slow, or it ends the process, as Triton 3.2 does at 7.0 and from 10.0 on.
    """
    if torch.version.hip is not None:
        name: str = torch.cuda.get_device_properties(device).gcnArchName
        return name.startswith(MATRIX_GPUS)
    capability = torch.cuda.get_device_capability(device)
    return capability >= (8, 0) and not (capability >= (10, 0) and triton_is_older_than(3, 3))


def triton_is_older_than(*version: int) -> bool:
    """Return whether Triton is installed in an older version than this one."""
    try:
        import triton
    except ImportError:
        return False
    return tuple(int(part) for part in triton.__version__.split(".")[:2]) < version


def kernels_agree(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    run: Callable[[], list[Tensor]],
    expect: Callable[[], list[Tensor]],
) -> bool:
    """Return whether kernels run and agree with their references, which compute in float64. If not, log why.

    `name` says what the kernels are for, and `dtype` is that of their products.
    """
    with torch.autocast(device.type, enabled=False):
        try:
            found = run()
        except Exception as error:  # no Triton, no C compiler, an unsupported GPU: many types
            if is_out_of_memory(error):
                raise  # the kernels may still be correct
            warn_without_kernel(device, (str(error).splitlines() or [type(error).__name__])[0][:200])
            return False
        pairs = zip(found, expect(), strict=True)
        errors = [float((one.double() - other).norm() / other.norm()) for one, other in pairs]
    correct = all(error < max(8 * torch.finfo(dtype).eps, FP32_TOLERANCE) for error in errors)
    if not correct:
        warn_without_kernel(device, f"results of the kernel for {name} are wrong on this device")
    return correct


@cache
def warn_without_kernel(device: torch.device, reason: str) -> None:
    """Log once per device and reason why a fused kernel is not used."""
    LOG.warning("the network runs without a fused kernel on %s, and takes longer: %s", device, reason)
