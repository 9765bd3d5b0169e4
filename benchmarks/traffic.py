"""Counts on a CPU what a GPU would move and compute for each model in float16, and the time that this takes at least.

    python -m benchmarks.traffic [--bandwidth 4.3e12] [--product 7.9e14]

Each operator of one tile counts the bytes of its inputs and outputs. Views count nothing. The Triton kernels count what
they read and write. The table also has the network without the kernels of blocks, with plain attention too, and that
with features in float32, as under autocast. *Unaligned* counts products whose rows are not whole 16 bytes, without
those whose rows are pixels of an image. A GPU's products and moves overlap in part, so the least time is between the
longer of the two and their sum.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import CASES, Case, build_ours, make_weights
from restore_cli.models import aligned
from restore_cli.models.aligned import align_rows
from restore_cli.models.forms import emt, layers, restormer
from restore_cli.models.inference import keep_biases
from restore_cli.models.network import Network
from restore_cli.models.ops import attention, chunks, linear
from restore_cli.models.ops.triton_blocks import TailWeights
from restore_cli.models.precision import InResidualDtype

SIDE = 64
"""Side of the tile in px: the smallest that suits all windows."""

CPU = torch.device("cpu")

PRODUCTS = (torch.ops.aten.linear, torch.ops.aten.conv2d)

UNPADDED = (1, 3)
"""Widths that no product can pad: one input of a depthwise convolution, and the channels of an image."""


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """Counts the operators that run inside it, and the bytes that they touch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's own
        self.bytes = self.calls = self.unaligned = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        places = {part.untyped_storage().data_ptr() for part in read}
        new = [part for part in made if part.untyped_storage().data_ptr() not in places]
        if read and (new or func._schema.is_mutable):
            self.count(*read, *new)
        if func.overloadpacket in PRODUCTS and args[1].dtype == torch.float16:
            self.unaligned += any(size % 8 for size in args[1].shape[:2] if size not in UNPADDED)
        return out

    def count(self, *parts: Tensor) -> None:
        """Add one operator that touches these tensors."""
        self.bytes += sum(part.numel() * part.element_size() for part in parts)
        self.calls += 1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=float, default=4.3e12, help="bytes/s of the GPU's memory")
    parser.add_argument("--product", type=float, default=7.9e14, help="FLOP/s of its products in float16")
    given = parser.parse_args()
    columns = (
        "kernels, GB/MP",
        "attention's",
        "plain",
        "float32 features",
        "operators",
        "unaligned",
        "moves, s/MP",
        "products",
    )
    sys.stdout.write(f"| model | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}\n")
    for case in CASES:
        net = build_ours(case, make_weights(case), CPU, torch.float16)
        for module in (net.module, net.float32_module):
            keep_biases(module)  # as on a GPU
        for module in net.module.modules():
            if isinstance(module, layers.FastWindowAttention):
                module.add_masks()
        kernel, plain, wide = (
            count_traffic(net, True, True),
            count_traffic(net, False, True),
            count_traffic(net, False, False),
        )
        blocks = kernel
        if case.architecture in ("swinir", "hat"):
            align_rows(net.module)
            blocks = count_traffic(net, True, True)
        sizes = [found.bytes / SIDE**2 / 1000 for found in (blocks, kernel, plain, wide)]
        counts = [f"{kernel.calls} → {blocks.calls}", f"{kernel.unaligned} → {blocks.unaligned}"]
        moves, products = sizes[0] * 1e9 / given.bandwidth, count_flop(case) / SIDE**2 * 1e6 / given.product
        cells = [case.name, *(f"{size:.0f}" for size in sizes), *counts, f"{moves:.3f}", f"{products:.3f}"]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()


def count_traffic(net: Network, kernel: bool, halves: bool) -> Traffic:
    """Count one tile, with or without the attention kernel, with features in float16 or float32."""
    traffic, module = Traffic(), net.module if halves else net.float32_module
    with simulate_gpu(kernel, halves), patch.object(net, "module", module), traffic:
        net(torch.rand(1, 3, SIDE, SIDE))
    return traffic


@contextmanager
def simulate_gpu(kernel: bool, halves: bool) -> Iterator[None]:
    """Turn off what only a CPU does. Each kernel is replaced by an operator that touches the same tensors."""

    def fused(qkv: Sequence[Tensor], *rest: object) -> Tensor:
        return torch.addcmul(qkv[0], qkv[-2], qkv[-1]) if len(qkv) > 2 else torch.add(qkv[0], qkv[1])

    def tail(
        x: Tensor, attended: Tensor, branch: Tensor | None, gate: Tensor | None, weights: TailWeights, epsilon: float
    ) -> Tensor:
        found: Tensor = torch.ops.restore.block_tail(x, attended, branch, gate, list(weights), epsilon)
        return found

    with ExitStack() as stack:
        stack.enter_context(patch.object(aligned, "fast_padded_layer_norm", torch.ops.restore.padded_layer_norm))
        stack.enter_context(patch.object(aligned, "fast_block_tail", tail))
        stack.enter_context(patch.object(attention, "can_use_kernel", return_value=kernel))
        stack.enter_context(patch.object(attention, "triton_attention", fused))
        stack.enter_context(patch.object(attention, "onednn_is_exact", return_value=False))
        for user in (chunks, emt, layers):
            stack.enter_context(patch.object(user, "runs_in_strips", return_value=False))
        if not halves:
            stack.enter_context(patch.object(InResidualDtype, "forward", lambda self, x: self.module(x)))
        yield


def count_flop(case: Case) -> int:
    """Return the FLOP of one tile, attention included."""
    net = build_ours(case, make_weights(case), CPU, torch.float32)
    with simulate_gpu(False, True), disable_onednn(), FlopCounterMode(display=False) as counter:
        net(torch.rand(1, 3, SIDE, SIDE))
    return int(counter.get_total_flops())


@contextmanager
def disable_onednn() -> Iterator[None]:
    """Let products run as operators that can be counted."""
    with ExitStack() as stack:
        for module in (linear, restormer):
            stack.enter_context(patch.object(module, "can_use_onednn", return_value=False))
        yield


if __name__ == "__main__":
    main()
