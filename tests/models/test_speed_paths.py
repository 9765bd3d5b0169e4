"""Fused and chunked operators compute the same as their references."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import read_golden
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import Mlp
from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys
from restore_cli.models.ops import attention, chunked_attention, chunks
from restore_cli.models.ops.attention import (
    fast_overlapping_window_attention,
    fast_window_attention,
    overlapping_window_attention,
    window_attention,
)
from restore_cli.models.ops.chunked_attention import split_windows
from restore_cli.models.ops.chunks import add_in_chunks
from restore_cli.models.ops.linear import Activation, linear
from restore_cli.models.ops.shift import shift_channels
from restore_cli.models.ops.windows import split_axis

CPU = torch.device("cpu")


@pytest.mark.parametrize("activation", ["none", "gelu", "swish"])
@pytest.mark.parametrize("biased", [True, False])
def test_fused_product_equals_the_plain_one(activation: Activation, biased: bool) -> None:
    x, weight, bias = torch.randn(2, 5, 7, 60), torch.randn(24, 60), torch.randn(24) if biased else None
    plain = {"none": nn.Identity(), "gelu": nn.GELU(), "swish": nn.SiLU()}[activation](F.linear(x, weight, bias))
    torch.testing.assert_close(linear(x, weight, bias, activation), plain, rtol=1e-5, atol=1e-5)


def test_fused_product_follows_autocast() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(8, 16), torch.randn(4, 16), None).dtype == torch.bfloat16


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
    plain = window_attention(qkv, (8, 16), shift, bias if any(shift) or bias is None else bias[:1], 0.5)
    monkeypatch.setattr(chunked_attention, "CHUNK_BYTES", 2 * 4 * 3 * 128 * 128)
    torch.testing.assert_close(fast_window_attention(qkv, (8, 16), shift, bias, 0.5), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shift", [(0, 0), (4, 4)])
@pytest.mark.parametrize("size", [1.0, 10.0])
@pytest.mark.parametrize("biased", [True, False])
def test_attention_in_bfloat16_is_the_reference_but_for_rounding(
    shift: tuple[int, int], size: float, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some scores of the larger size are above one hundred. Their powers overflow unless the largest is subtracted."""
    torch.manual_seed(0)
    qkv = [(part * torch.randn(2, 16, 24, 3, 30)).bfloat16() for part in (size, 1.0, 1.0)]
    bias = torch.randn(4, 3, 64, 64) if biased else None
    exact = [part.double() for part in qkv]
    expected = window_attention(exact, (8, 8), shift, bias if any(shift) or bias is None else bias[:1], 0.5)
    monkeypatch.setattr(chunked_attention, "CHUNK_BYTES", 2 * 2 * 3 * 64 * 64)
    found = fast_window_attention(qkv, (8, 8), shift, bias, 0.5)
    assert found.dtype == torch.bfloat16
    assert relative(found.double(), expected) < 0.03


@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize("most", [1, 5, 11])
def test_attention_of_pytorch_in_chunks_equals_the_reference(
    margin: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    qkv, pairs = [torch.randn(2, 16, 24, 3, 5) for _ in range(3)], (64, (8 + 2 * margin) ** 2)

    bias = torch.randn(1 if margin else 4, 3, *pairs)
    monkeypatch.setattr(attention, "onednn_is_exact", lambda: False)
    monkeypatch.setattr(attention, "MAX_WINDOWS", most)
    if margin:
        found = fast_overlapping_window_attention(qkv, (8, 8), margin, bias, 0.5)
        expected = overlapping_window_attention(qkv, (8, 8), margin, bias, 0.5)
    else:
        found = fast_window_attention(qkv, (8, 8), (4, 4), bias, 0.5)
        expected = window_attention(qkv, (8, 8), (4, 4), bias, 0.5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


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
            out = fast_overlapping_window_attention(qkv, (8, 8), 2, torch.empty(1, 1, 64, 144), 1.0)
        else:
            out = fast_window_attention(qkv, (8, 8), (4, 4) if form == "shifted" else (0, 0), None, 1.0)
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
    monkeypatch.setattr(chunks, "CHUNK_PIXELS", strip)
    with torch.inference_mode():
        torch.testing.assert_close(add_in_chunks(x, mlp), whole)


HEADS = ["swinir_classical_x3", "swinir_classical_x4", "swinir_real_large_x4", "swinir_lightweight_x3", "hat_x4"]


@pytest.mark.parametrize("name", HEADS)
def test_a_head_in_row_strips_equals_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, ours, weights, _, _ = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)
    x = torch.rand(1, 3, 6 * net.contract.tile_multiple, 4 * net.contract.tile_multiple)
    whole = net(x)
    monkeypatch.setattr(chunks, "HEAD_ROWS", 7)
    assert relative(net(x), whole) < 1e-6


WINDOWED = ["swinir_classical_x4", "swinir_color_jpeg", "hat_x4"]


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("name", WINDOWED)
def test_window_attention_in_strips_equals_the_whole(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of some rows of windows, the last of which may be lower."""
    architecture, ours, weights, _, _ = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)
    multiple = net.contract.tile_multiple
    x = torch.rand(2, net.contract.channels, 7 * multiple, 4 * multiple)
    whole, values = net(x), rows * multiple * 2 * 4 * multiple * int(ours["dim"])
    monkeypatch.setattr(chunks, "WINDOW_STRIP_VALUES", ceil(values / torch.get_num_threads()))
    assert relative(net(x), whole) < 1e-6


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("most", [1, 11, 16, 1000])
def test_parts_of_an_axis_hold_each_window_once(shift: int, most: int) -> None:
    seen = torch.zeros(2, 40)
    parts = list(split_axis(40, 8, shift, 1, most))
    for part in parts:
        found = part.read(seen)
        assert found.shape[1] % 8 == 0
        assert found.shape[1] <= max(8, most)
        part.write(seen, found + 1)
    assert bool((seen == 1).all())
    assert [part.wraps for part in parts] == [False] * (len(parts) - bool(shift)) + [True] * bool(shift)


RESTORERS = ["restormer_biasfree", "restormer_dual_pixel", "restormer_gray"]


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("name", RESTORERS)
def test_restormer_in_row_strips_equals_the_whole(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, ours, weights, _, _ = read_golden(name)
    net = build_network(architecture, ours, weights, Path(name), CPU, torch.float32)
    x = torch.rand(2, net.contract.channels, 48, 40)
    whole = net(x)
    monkeypatch.setattr(chunks, "BRANCH_BYTES", 4 * 40 * rows)
    assert relative(net(x), whole) < 1e-5


@pytest.mark.parametrize("rows", [1, 2, 3, 16])
def test_emt_in_row_strips_equals_the_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its MLPs see two px to each side, so that a strip has two rows at least."""
    architecture, ours, weights, _, _ = read_golden("emt_x2")
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path("emt_x2"), CPU, torch.float32)
    x = torch.rand(2, 3, 45, 64)
    whole = net(x)
    monkeypatch.setattr(chunks, "BRANCH_BYTES", 4 * 64 * rows)
    assert relative(net(x), whole) < 1e-6


def test_a_network_does_not_change_its_input() -> None:
    """Its blocks overwrite theirs."""
    for name in [*WINDOWED, *RESTORERS, "emt_x2"]:
        architecture, ours, weights, _, _ = read_golden(name)
        net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)
        x = torch.rand(1, net.contract.channels, 2 * net.contract.tile_multiple, 2 * net.contract.tile_multiple)
        given = x.clone()
        net(x)
        assert torch.equal(x, given)


@pytest.mark.parametrize("name", RESTORERS)
def test_restormer_in_bfloat16_adds_up_many_strips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 has eight bits, so a sum of more than 256 equal numbers would stop to grow."""
    architecture, ours, weights, _, _ = read_golden(name)
    exact, rounded = (
        build_network(architecture, ours, weights, Path(name), CPU, dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    torch.manual_seed(0)
    x = torch.rand(1, exact.contract.channels, 8, 8).repeat(1, 1, 128, 1)
    expected, whole = exact(x), rounded(x)
    monkeypatch.setattr(chunks, "BRANCH_BYTES", 2 * 8)
    assert relative(rounded(x), expected) < 2 * relative(whole, expected)


def test_shifted_channels_are_filled_with_zeros() -> None:
    x = torch.arange(1.0, 46.0).view(1, 3, 3, 5)
    out = shift_channels(x)
    assert out[0, :, -1, 0].tolist() == out[0, :, 0, 1].tolist() == [0, 0, 0]
    assert out[0, -1, :, 2].tolist() == out[0, 0, :, 3].tolist() == [0, 0, 0]
    assert torch.equal(out[0, :, :-1, 0], x[0, :, 1:, 0])
    assert torch.equal(out[..., 4], x[..., 4])


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative error in the Frobenius norm."""
    return float((found - expected).norm() / expected.norm())
