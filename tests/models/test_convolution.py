"""Convolutions in float32 on a GPU are IEEE 754, whatever the host program allows. The GPU is simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import CUDA, CallRecorder, autocast_on_gpu, fake_gpu, move_to_gpu
from golden_files import GOLDEN, read_golden
from torch import Tensor
from torch.fx import GraphModule

from restore_cli.models.forms.layers import FastConvolution
from restore_cli.models.inference import keep_biases
from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys
from restore_cli.models.ops import attention, convolution

NAMES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))


def convolutions(recorded: CallRecorder) -> Iterator[tuple[torch.dtype, bool]]:
    """Return the dtype of each convolution, and whether cuDNN may use TF32 for it."""
    for operator, given in recorded.calls:
        if "conv" in str(operator):
            yield given["input"].dtype, given.get("allow_tf32", True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_no_convolution_in_float32_may_use_tf32(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "can_use_kernel", lambda *form: True)
    monkeypatch.setattr(attention, "triton_attention", lambda qkv, *form: torch.empty_like(qkv[0]))
    architecture, ours, weights, _, _ = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), torch.device("cpu"), dtype)
    side = 2 * net.contract.tile_multiple
    keep_biases(net.module)
    with fake_gpu() as recorded:
        move_to_gpu(net.module)
        with torch.inference_mode(), autocast_on_gpu(dtype):
            out: Tensor = net.module(torch.empty(1, net.contract.channels, side, side, device=CUDA))
    assert out.device == CUDA
    assert torch.backends.cudnn.allow_tf32  # PyTorch's default, which is the host program's to change
    found = set(convolutions(recorded))
    assert (torch.float32, True) not in found
    assert (torch.float32, False) in found or (architecture == "hat" and dtype != torch.float32)
    assert dtype in {kind for kind, _ in found}


@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (3, 12), (1, 1), (1, 3)])
@pytest.mark.parametrize("biased", [True, False])
def test_results_equal_those_of_pytorch(
    kernel: int, groups: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, layer = (
        torch.randn(2, 12, 9, 7),
        FastConvolution(12, 24, kernel, padding=kernel // 2, groups=groups, bias=biased),
    )
    with torch.inference_mode():
        expected = layer(x)
        monkeypatch.setattr(convolution, "may_use_tf32", lambda x: True)
        assert torch.equal(layer(x), expected)


def test_compiled_convolutions_forbid_tf32_too(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[str] = []

    def backend(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph.code)
        return graph.forward

    monkeypatch.setattr(convolution, "may_use_tf32", lambda x: True)
    torch._dynamo.reset()
    x, layer = torch.randn(1, 3, 8, 8), FastConvolution(3, 4, 3, padding=1)
    with torch.inference_mode():
        found = torch.compile(layer, backend=backend)(x)
        assert torch.equal(found, layer(x))
    assert ["torch.ops.restore.convolution" in graph for graph in graphs] == [True]
