"""Layer norms and the ends of transformer blocks, on rows that zeros widen to whole 16 bytes: references and backends.

A GPU computes each in one Triton kernel. Networks use these operators only where `block_kernels_are_correct`.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from restore_cli.models.ops.kernel_trial import has_matrix_units, kernels_agree
from restore_cli.models.ops.triton_blocks import (
    MAX_TAIL_WIDTH,
    TailWeights,
    triton_block_tail,
    triton_layer_norm,
)

__all__ = [
    "block_kernels_are_correct",
    "block_tail",
    "can_use_block_kernels",
    "fast_block_tail",
    "fast_padded_layer_norm",
    "padded_layer_norm",
]

TRIAL_MAP = (2, 9, 17)
"""Pictures, rows and columns of the map on which the kernels are tried: several programs, the last one not full."""


def padded_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, channels: int) -> Tensor:
    """Normalise the first `channels` channels, and set the others to zero: (..., width) -> (..., width)."""
    normed = F.layer_norm(x[..., :channels], (channels,), weight[:channels], bias[:channels], epsilon)
    return F.pad(normed, (0, x.shape[-1] - channels))


def block_tail(
    x: Tensor, attended: Tensor, branch: Tensor | None, gate: Tensor | None, weights: TailWeights, epsilon: float
) -> Tensor:
    """Return s + mlp(norm(s)) with s = x + attended·projection + branch·gate: (b, h, w, width) -> (b, h, w, width).

    attended is (b, h, w, c). The branch is (b, h, w, width) and its gate (b, width); both may be None.
    """
    total = x + attended @ weights.projection + weights.projection_bias
    if branch is not None and gate is not None:
        total = total + branch * gate[:, None, None]
    normed = padded_layer_norm(total, weights.norm_weight, weights.norm_bias, epsilon, attended.shape[-1])
    return total + F.gelu(F.linear(normed, weights.into, weights.into_bias)) @ weights.back + weights.back_bias


def fast_padded_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, channels: int) -> Tensor:
    """Compute `padded_layer_norm` with the fastest backend of the device."""
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.restore.padded_layer_norm(x, weight, bias, epsilon, channels)
        return found
    backend = triton_layer_norm if x.device.type == "cuda" else padded_layer_norm
    return backend(x, weight, bias, epsilon, channels)


def fast_block_tail(
    x: Tensor, attended: Tensor, branch: Tensor | None, gate: Tensor | None, weights: TailWeights, epsilon: float
) -> Tensor:
    """Compute `block_tail` with the fastest backend of the device."""
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.restore.block_tail(x, attended, branch, gate, list(weights), epsilon)
        return found
    backend = triton_block_tail if x.device.type == "cuda" else block_tail
    return backend(x, attended, branch, gate, weights, epsilon)


@torch.library.custom_op(
    "restore::padded_layer_norm",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, float epsilon, int channels) -> Tensor",
)
def opaque_padded_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, channels: int) -> Tensor:
    """`fast_padded_layer_norm` as a single operator for PyTorch's compiler."""
    return fast_padded_layer_norm(x, weight, bias, epsilon, channels)


@torch.library.custom_op(
    "restore::block_tail",
    mutates_args=(),
    schema="(Tensor x, Tensor attended, Tensor? branch, Tensor? gate, Tensor[] weights, float epsilon) -> Tensor",
)
def opaque_block_tail(
    x: Tensor, attended: Tensor, branch: Tensor | None, gate: Tensor | None, weights: list[Tensor], epsilon: float
) -> Tensor:
    """`fast_block_tail` as a single operator for PyTorch's compiler."""
    return fast_block_tail(x, attended, branch, gate, TailWeights(*weights), epsilon)


@opaque_padded_layer_norm.register_fake
@opaque_block_tail.register_fake
def fake_rows(x: Tensor, *_: object) -> Tensor:
    """Return an empty tensor with the shape and layout of the result."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def can_use_block_kernels(device: torch.device, dtype: torch.dtype, channels: int, width: int, hidden: int) -> bool:
    """Return whether both kernels may run with products in this dtype: on NVIDIA's GPUs where they are correct.

    On AMD's RDNA GPUs the kernel for the end of a block needs too many registers.
    """
    if device.type != "cuda" or torch.version.hip is not None or width > MAX_TAIL_WIDTH or not has_matrix_units(device):
        return False
    return block_kernels_are_correct(device, dtype, channels, width, hidden)


@cache
def block_kernels_are_correct(device: torch.device, dtype: torch.dtype, channels: int, width: int, hidden: int) -> bool:
    """Return whether the Triton kernels run here and agree with the references on small maps. Each form is tried once.

    Features are float16 with products in float16, else float32 (docs/decisions/044).
    """
    features = torch.float16 if dtype == torch.float16 else torch.float32
    weights = trial_weights(device, dtype, features, channels, width, hidden)
    x, branch = (wave((*TRIAL_MAP, width), i, device, channels) for i in (1, 2))
    x, branch, gate = x.to(features), branch.to(dtype), wave((TRIAL_MAP[0], width), 3, device).to(dtype)
    attended = wave((*TRIAL_MAP, channels), 4, device).to(dtype)

    def expect() -> list[Tensor]:
        exact = TailWeights(*(part.double() for part in weights))
        wide = [part.double() for part in (x, attended, branch, gate)]
        return [
            padded_layer_norm(wide[0], exact.norm_weight, exact.norm_bias, 1e-5, channels),
            block_tail(wide[0], wide[1], None, None, exact, 1e-5),
            block_tail(wide[0], wide[1], wide[2], wide[3], exact, 1e-5),
        ]

    return kernels_agree(
        "layer norms and MLPs",
        device,
        dtype,
        lambda: [
            triton_layer_norm(x, weights.norm_weight, weights.norm_bias, 1e-5, channels),
            triton_block_tail(x, attended, None, None, weights, 1e-5),
            triton_block_tail(x, attended, branch, gate, weights, 1e-5),
        ],
        expect,
    )


def trial_weights(
    device: torch.device, dtype: torch.dtype, features: torch.dtype, channels: int, width: int, hidden: int
) -> TailWeights:
    """Return weights with which products are about as large as their inputs, and zeros beyond the channels."""
    shapes = [(channels, width), (width,), (width,), (width,), (hidden, width), (hidden,), (hidden, width), (width,)]
    parts = [wave(shape, 5 + i, device, channels if shape[-1] == width else None) for i, shape in enumerate(shapes)]
    scaled = [part / part.shape[0] ** 0.5 if part.dim() == 2 else part for part in parts]
    kinds = [features if 2 <= i < 4 else dtype for i in range(len(scaled))]
    return TailWeights(*(part.to(kind) for part, kind in zip(scaled, kinds, strict=True)))


def wave(shape: tuple[int, ...], seed: int, device: torch.device, channels: int | None = None) -> Tensor:
    """Return numbers in -1…1 that repeat rarely, with zeros beyond the channels."""
    count = torch.Size(shape).numel()
    out = ((torch.arange(count, device=device) + seed * 1009) % 7919).float().mul(seed).sin().view(shape)
    if channels is not None:
        out[..., channels:] = 0
    return out
