"""Folded, fused and chunked forms compute the same as the plain forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import read_golden
from torch import Tensor
from torch.nn import functional as F

from benchmarks.plain_emt import PlainEMT
from restore_cli.models import attention as attention_module
from restore_cli.models import layers
from restore_cli.models.attention import overlapping_window_attention, split_windows, window_attention
from restore_cli.models.emt import shift_channels
from restore_cli.models.layers import Activation, Mlp, linear, residual_in_chunks
from restore_cli.models.load import COMPUTED_KEYS, as_tuples, build_module, build_network, drop_keys
from restore_cli.weights.architectures import EMTConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize("activation", ["none", "gelu", "swish"])
@pytest.mark.parametrize("biased", [True, False])
def test_fused_product_equals_the_plain_one(activation: Activation, biased: bool) -> None:
    x, weight, bias = torch.randn(2, 5, 7, 60), torch.randn(24, 60), torch.randn(24) if biased else None
    plain = linear(x, weight, bias, activation)  # with gradients on, the plain way
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight, bias, activation), plain, rtol=1e-5, atol=1e-5)


def test_fused_product_follows_autocast() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(8, 16), torch.randn(4, 16), None).dtype == torch.bfloat16


def test_linear_keeps_its_gradients() -> None:
    x, weight = torch.randn(3, 16, requires_grad=True), torch.randn(4, 16)
    (slope,) = torch.autograd.grad(linear(x, weight, None, "gelu").sum(), x)
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("shift", [(0, 0), (4, 8), (0, 8)])
@pytest.mark.parametrize("size", [8.0, 0.3])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("biased", [True, False])
def test_chunked_attention_equals_that_of_pytorch(
    shift: tuple[int, int], size: float, count: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores above one hundred are included, whose powers overflow unless the largest is subtracted."""
    qkv = [size * torch.randn(2, 16, 48, 3, 5) for _ in range(count)]
    bias = torch.randn(4, 3, 128, 128) if biased else None
    plain = window_attention(qkv, (8, 16), shift, bias, 0.5)  # with gradients on, the fused kernel
    monkeypatch.setattr(attention_module, "CHUNK_BYTES", 2 * 4 * 3 * 128 * 128)
    with torch.inference_mode():
        torch.testing.assert_close(window_attention(qkv, (8, 16), shift, bias, 0.5), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize("most", [1, 5, 11])
def test_attention_of_pytorch_in_chunks_equals_a_single_call(
    margin: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    qkv, pairs = [torch.randn(2, 16, 24, 3, 5) for _ in range(3)], (64, (8 + 2 * margin) ** 2)

    def attended() -> Tensor:  # with gradients on, as PyTorch does it
        if margin:
            return overlapping_window_attention(qkv, (8, 8), margin, bias, 0.5)
        return window_attention(qkv, (8, 8), (4, 4), bias, 0.5)

    bias = torch.randn(1 if margin else 4, 3, *pairs)
    whole = attended()
    monkeypatch.setattr(attention_module, "MAX_WINDOWS", most)
    torch.testing.assert_close(attended(), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "shifted", "surrounded"])
def test_no_call_has_more_windows_than_cuda_launches(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map has 272×272 windows, as that of a large image without tiles. Its tensors have no values."""
    batches: list[int] = []
    usual = F.scaled_dot_product_attention

    def counted(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:  # noqa: ANN401  # passed on
        batches.append(len(q))
        return usual(q, k, v, **given)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    with torch.inference_mode(), torch.device("meta"):
        qkv = [torch.empty(1, 272 * 8, 272 * 8, 1, 10, dtype=torch.float16) for _ in range(3)]
        if form == "surrounded":
            out = overlapping_window_attention(qkv, (8, 8), 2, torch.empty(1, 1, 64, 144), 1.0)
        else:
            out = window_attention(qkv, (8, 8), (4, 4) if form == "shifted" else (0, 0), None, 1.0)
    assert out.shape == qkv[0].shape
    assert sum(batches) == 272**2
    assert max(batches) <= 65535


@pytest.mark.parametrize("most", [1, 2, 3, 7, 12, 50, 1000])
def test_the_boxes_hold_each_window_once(most: int) -> None:
    seen = torch.zeros(2, 5, 7)
    for box in split_windows((2, 5, 7), most):
        assert 0 < seen[box].numel() <= most
        seen[box] += 1
    assert bool((seen == 1).all())


@pytest.mark.parametrize("strip", [1, 7, 24, 100])
def test_a_residual_branch_in_chunks_equals_the_whole(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, mlp = torch.randn(2, 3, 4, 10), Mlp(10, 20)
    whole = x + mlp(x)
    monkeypatch.setattr(layers, "CHUNK_PIXELS", strip)
    with torch.inference_mode():
        torch.testing.assert_close(residual_in_chunks(x, mlp), whole)


HEADS = ["swinir_classical_x3", "swinir_classical_x4", "swinir_real_large_x4", "swinir_lightweight_x3", "hat_x4"]


@pytest.mark.parametrize("name", HEADS)
def test_a_head_in_row_strips_equals_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, ours, weights, _, _ = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)
    x = torch.rand(1, 3, 6 * net.contract.tile_multiple, 4 * net.contract.tile_multiple)
    whole = net(x)
    monkeypatch.setattr(layers, "STRIP_ROWS", 7)
    assert relative(net(x), whole) < 1e-6


def test_shifted_channels_are_filled_with_zeros() -> None:
    x = torch.arange(1.0, 46.0).view(1, 3, 3, 5)
    out = shift_channels(x)
    assert out[0, :, -1, 0].tolist() == out[0, :, 0, 1].tolist() == [0, 0, 0]
    assert out[0, -1, :, 2].tolist() == out[0, 0, :, 3].tolist() == [0, 0, 0]
    assert torch.equal(out[0, :, :-1, 0], x[0, :, 1:, 0])
    assert torch.equal(out[..., 4], x[..., 4])


def test_emt_equals_its_plain_implementation() -> None:
    _, ours, weights, _, _ = read_golden("emt_x4")
    words: dict[str, Any] = {key: as_tuples(value) for key, value in ours.items()}
    config = EMTConfig(**words)
    plain = PlainEMT(config)
    state = drop_keys(weights, COMPUTED_KEYS)
    plain.load_state_dict(state, strict=True)
    side = max(max(window) for window in config.windows)
    x = F.interpolate(torch.rand(1, 3, 4, 4), size=(2 * side, 2 * side), mode="bicubic").clamp(0, 1)
    with torch.inference_mode():
        expected = plain.eval()(x)
    assert relative(build_network("emt", ours, state, Path("emt"), CPU, torch.float32)(x), expected) < 1e-5


@pytest.mark.parametrize("name", ["swinir_classical_x4", "hat_x4", "restormer_withbias", "emt_x4"])
def test_prepared_and_trainable_forms_agree(name: str) -> None:
    architecture, ours, weights, _, _ = read_golden(name)
    state = drop_keys(weights, COMPUTED_KEYS)
    net = build_network(architecture, ours, state, Path(name), CPU, torch.float32)
    module = build_module(architecture, ours).eval()
    module.load_state_dict(state)
    x = F.interpolate(torch.rand(1, net.contract.channels, 4, 4), size=(64, 64), mode="bicubic").clamp(0, 1)
    assert relative(net(x), module(x).detach()) < 1e-5


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative error in the Frobenius norm."""
    return float((found - expected).norm() / expected.norm())
