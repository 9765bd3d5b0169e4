"""Tests of the attention kernel in Triton's interpreter, on a CPU. test_kernel.py runs them in a process."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import log
from pathlib import Path

import pytest
import torch
from golden_files import read_golden
from torch import Tensor
from torch.nn import functional as F

from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys
from restore_cli.models.ops import attention
from restore_cli.models.ops.attention import kernel_is_correct, overlapping_window_attention, window_attention
from restore_cli.models.ops.triton_attention import triton_attention

CPU = torch.device("cpu")


def parts(size: tuple[int, int, int], count: int, heads: int, d: int) -> Tensor:
    """Return `count` tensors (b, h, w, heads, d) that are views of one map, as in the models."""
    return torch.randn(*size, count, heads, d).movedim(3, 0)


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference divided by the norm of the expected tensor."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize(("window", "d"), [((8, 8), 30), ((4, 4), 5), ((16, 8), 10), ((7, 7), 30)])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize(("count", "biased"), [(3, True), (2, False)])
def test_the_kernel_equals_plain_attention(
    window: tuple[int, int], d: int, shifted: bool, count: int, biased: bool
) -> None:
    qkv, n = list(3 * parts((2, 2 * window[0], 3 * window[1]), count, 2, d)), window[0] * window[1]
    shift = (window[0] // 2, window[1] // 2) if shifted else (0, 0)
    bias = torch.randn(4 if shifted else 1, 2, n, n) if biased else None
    expected = window_attention(qkv, window, shift, bias, 0.3)
    assert relative(triton_attention(qkv, window, shift, 0, bias, 0.3), expected) < 1e-6


@pytest.mark.parametrize(("window", "margin"), [((8, 8), 2), ((4, 8), 1), ((8, 8), 4)])
def test_the_kernel_sees_zeros_beyond_the_map(window: tuple[int, int], margin: int) -> None:
    qkv = list(parts((2, 16, 24), 3, 2, 10))
    bias = torch.randn(1, 2, window[0] * window[1], (window[0] + 2 * margin) * (window[1] + 2 * margin))
    expected = overlapping_window_attention(qkv, window, margin, bias, 0.3)
    assert relative(triton_attention(qkv, window, (0, 0), margin, bias, 0.3), expected) < 1e-6


def test_half_precision_differs_only_by_rounding() -> None:
    """Only float16, because the interpreter cannot multiply bfloat16."""
    qkv = parts((1, 16, 32), 3, 2, 30).half()
    bias = torch.randn(4, 2, 64, 64)
    expected = window_attention([part.float() for part in qkv], (8, 8), (4, 4), bias, 0.2)
    out = triton_attention(list(qkv), (8, 8), (4, 4), 0, bias, 0.2)
    assert out.dtype == torch.float16
    assert relative(out, expected) < torch.finfo(torch.float16).eps


def test_large_scores_do_not_overflow() -> None:
    """Scores of up to a million: a rounding error of one would change the result.

    Whole numbers and a factor of one in the exponent to base two keep the kernel's scores exact.
    """
    qkv = [part.round() for part in 300 * parts((1, 8, 8), 3, 1, 16)]
    expected = window_attention([part.double() for part in qkv], (8, 8), (0, 0), None, log(2))
    assert relative(triton_attention(qkv, (8, 8), (0, 0), 0, None, log(2)), expected) < 1e-6


def test_maps_of_any_layout_are_read() -> None:
    qkv = [part.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2) for part in parts((1, 16, 16), 3, 2, 6)]
    found = triton_attention(qkv, (8, 8), (4, 4), 0, None, 0.4)
    assert relative(found, window_attention(qkv, (8, 8), (4, 4), None, 0.4)) < 1e-6


@pytest.mark.parametrize("name", ["swinir_classical_x4", "swinir_color_jpeg", "hat_x4", "emt_x2"])
def test_networks_reach_the_reference_with_the_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*given: object) -> bool:
        calls.append(given)
        return True

    monkeypatch.setattr(attention, "can_use_kernel", counted)
    architecture, ours, weights, x, reference = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)
    span, multiple = 255 if architecture == "emt" else 1, net.contract.pad_multiple
    h, w = x.shape[-2:]
    out = net(F.pad(x / span, (0, -w % multiple, 0, -h % multiple), mode="reflect").float())
    assert relative(out[..., : reference.shape[-2], : reference.shape[-1]] * span, reference) < 1e-5
    assert calls


FORM = (CPU, torch.float16, (3, 2, 10), (8, 8), True, 0, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("margin", [0, 2])
def test_a_correct_kernel_is_accepted(dtype: torch.dtype, margin: int) -> None:
    assert kernel_is_correct.__wrapped__(CPU, dtype, (3, 2, 10), (8, 8), not margin, margin, True)
    assert kernel_is_correct.__wrapped__(CPU, dtype, (2, 1, 12), (4, 8), True, 0, False)


def wrong(*given: object) -> Tensor:
    return 1.01 * triton_attention(*given)  # type: ignore[arg-type]  # passed on as they came


def nothing(*given: object) -> Tensor:
    return float("nan") * triton_attention(*given)  # type: ignore[arg-type]  # passed on as they came


def absent(*given: object) -> Tensor:
    raise ImportError("no Triton")


@pytest.mark.parametrize("kernel", [wrong, nothing, absent])
def test_a_wrong_or_missing_kernel_is_refused(kernel: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "triton_attention", kernel)
    assert not kernel_is_correct.__wrapped__(*FORM)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("none left"), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_lack_of_memory_does_not_refuse_the_kernel(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*given: object) -> Tensor:
        raise error

    monkeypatch.setattr(attention, "triton_attention", short)
    with pytest.raises(type(error), match=re.escape(str(error))):
        kernel_is_correct.__wrapped__(*FORM)
