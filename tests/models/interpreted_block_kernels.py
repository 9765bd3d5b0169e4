"""Tests of the kernels of blocks in Triton's interpreter, on a CPU. test_block_kernels.py runs them in a process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_files import read_golden
from torch import Tensor
from torch.nn import functional as F

from restore_cli.models.aligned import align_rows
from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys
from restore_cli.models.ops import block_tail as module
from restore_cli.models.ops.block_tail import block_kernels_are_correct, block_tail, padded_layer_norm
from restore_cli.models.ops.triton_blocks import TailWeights, triton_block_tail, triton_layer_norm

CPU = torch.device("cpu")
SIZES = [(180, 184, 360), (60, 64, 120), (10, 16, 21), (240, 240, 480)]
"""Channels, width of rows, and hidden channels. The rows of the first are in two parts."""


def rows(channels: int, width: int) -> Tensor:
    """Return maps (2, 9, 17, width) with zeros beyond the channels."""
    return F.pad(torch.randn(2, 9, 17, channels), (0, width - channels))


def make_weights(channels: int, width: int, hidden: int) -> TailWeights:
    """Return random weights with zeros beyond the channels."""
    beyond, into = (0, width - channels), torch.randn(hidden, channels) / channels**0.5
    vectors = [F.pad(torch.randn(channels), beyond) for _ in range(4)]
    projection, back = torch.randn(channels, channels) / channels**0.5, torch.randn(hidden, channels) / hidden**0.5
    return TailWeights(
        F.pad(projection, beyond), vectors[0], vectors[1], vectors[2],
        F.pad(into, beyond), torch.randn(hidden), F.pad(back, beyond), vectors[3],
    )  # fmt: skip


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference divided by the norm of the expected tensor."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize(("channels", "width", "hidden"), SIZES)
@pytest.mark.parametrize("gated", [True, False])
def test_the_kernel_equals_the_plain_end_of_a_block(channels: int, width: int, hidden: int, gated: bool) -> None:
    x, attended, weights = rows(channels, width), torch.randn(2, 9, 17, channels), make_weights(channels, width, hidden)
    branch, gate = (rows(channels, width), torch.rand(2, width)) if gated else (None, None)
    found = triton_block_tail(x, attended, branch, gate, weights, 1e-5)
    assert relative(found, block_tail(x, attended, branch, gate, weights, 1e-5)) < 1e-6
    assert not found[..., channels:].any()


@pytest.mark.parametrize(("channels", "width", "hidden"), SIZES)
def test_the_kernel_equals_plain_layer_norm(channels: int, width: int, hidden: int) -> None:
    x = 5 + 3 * rows(channels, width)
    weight, bias = make_weights(channels, width, hidden)[2:4]
    found = triton_layer_norm(x, weight, bias, 1e-5, channels)
    assert relative(found, padded_layer_norm(x, weight, bias, 1e-5, channels)) < 1e-6
    assert not found[..., channels:].any()


def test_half_precision_differs_only_by_rounding() -> None:
    """Only float16, because the interpreter cannot multiply bfloat16."""
    weights = TailWeights(*(part.half() for part in make_weights(180, 184, 360)))
    x, attended, branch = rows(180, 184).half(), torch.randn(2, 9, 17, 180).half(), rows(180, 184).half()
    gate = torch.rand(2, 184).half()
    exact = TailWeights(*(part.float() for part in weights))
    expected = block_tail(x.float(), attended.float(), branch.float(), gate.float(), exact, 1e-5)
    found = triton_block_tail(x, attended, branch, gate, weights, 1e-5)
    assert found.dtype == torch.float16
    assert relative(found, expected) < torch.finfo(torch.float16).eps
    norm, exact_norm = weights[2:4], exact[2:4]
    normed = padded_layer_norm(x.float(), *exact_norm, 1e-5, 180)
    assert relative(triton_layer_norm(x, *norm, 1e-5, 180), normed) < torch.finfo(torch.float16).eps


def test_features_in_float32_stay_float32_with_products_in_half_precision() -> None:
    weights = make_weights(20, 24, 40)
    halves = TailWeights(*(part if i in (2, 3) else part.half() for i, part in enumerate(weights)))
    x, attended = rows(20, 24), torch.randn(2, 9, 17, 20)
    found = triton_block_tail(x, attended.half(), None, None, halves, 1e-5)
    assert found.dtype == torch.float32
    assert relative(found, block_tail(x, attended, None, None, weights, 1e-5)) < torch.finfo(torch.float16).eps


def test_rows_of_any_layout_are_read() -> None:
    weights, x = make_weights(20, 24, 40), rows(20, 24)
    mixed = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    attended = torch.randn(2, 9, 17, 20)
    expected = triton_block_tail(x, attended, x, torch.ones(2, 24), weights, 1e-5)
    assert torch.equal(triton_block_tail(mixed, attended, mixed, torch.ones(2, 24), weights, 1e-5), expected)
    norm = weights[2:4]
    assert torch.equal(triton_layer_norm(mixed, *norm, 1e-5, 20), triton_layer_norm(x, *norm, 1e-5, 20))


@pytest.mark.parametrize("name", ["swinir_classical_x4", "hat_x4"])
def test_networks_reach_the_reference_with_the_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "padded_layer_norm", triton_layer_norm)
    monkeypatch.setattr(module, "block_tail", triton_block_tail)
    architecture, ours, weights, x, reference = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)
    align_rows(net.module)
    multiple = net.contract.pad_multiple
    h, w = x.shape[-2:]
    out = net(F.pad(x, (0, -w % multiple, 0, -h % multiple), mode="reflect").float())
    assert relative(out[..., : reference.shape[-2], : reference.shape[-1]], reference) < 1e-5


FORM = (CPU, torch.float16, 20, 24, 40)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_correct_kernels_are_accepted(dtype: torch.dtype) -> None:
    assert block_kernels_are_correct.__wrapped__(CPU, dtype, 180, 184, 360)
    assert block_kernels_are_correct.__wrapped__(CPU, dtype, 60, 64, 120)


def wrong_tail(*given: object) -> Tensor:
    return 1.01 * triton_block_tail(*given)  # type: ignore[arg-type]  # passed on as they came


def wrong_norm(*given: object) -> Tensor:
    return float("nan") * triton_layer_norm(*given)  # type: ignore[arg-type]  # passed on as they came


def absent(*given: object) -> Tensor:
    raise ImportError("no Triton")


WRONG = [("triton_block_tail", wrong_tail), ("triton_layer_norm", wrong_norm)]
WRONG += [("triton_block_tail", absent), ("triton_layer_norm", absent)]


@pytest.mark.parametrize(("name", "kernel"), WRONG)
def test_a_wrong_or_missing_kernel_is_refused(
    name: str, kernel: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, kernel)
    assert not block_kernels_are_correct.__wrapped__(*FORM)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("none left"), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_lack_of_memory_does_not_refuse_the_kernels(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*given: object) -> Tensor:
        raise error

    monkeypatch.setattr(module, "triton_block_tail", short)
    with pytest.raises(type(error), match=re.escape(str(error))):
        block_kernels_are_correct.__wrapped__(*FORM)
