"""SwinIR and HAT with aligned rows: the same function, products of whole 16 bytes, and where they are used."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_gpu import CUDA, CallRecorder, autocast_on_gpu, fake_gpu, move_to_gpu
from golden_files import GOLDEN, read_golden
from torch import Tensor, nn

from benchmarks.peers import CASES
from restore_cli.models import aligned, stored_precision
from restore_cli.models.aligned import ALIGNED_FORMS, align_rows, can_align_rows
from restore_cli.models.inference import keep_biases, optimize
from restore_cli.models.load import build_module
from restore_cli.models.network import Network
from restore_cli.models.ops import attention, block_tail

CPU = torch.device("cpu")
NAMES = sorted(path.stem for path in GOLDEN.glob("*.safetensors") if path.stem.startswith(("swinir", "hat")))
PRODUCTS = (torch.ops.aten.linear, torch.ops.aten.conv2d)


def build_optimized(architecture: str, config: dict[str, Any]) -> nn.Module:
    """Return an optimized network with random weights."""
    torch.manual_seed(0)
    module = build_module(architecture, config).requires_grad_(False).eval()
    for weight in module.parameters():
        if weight.dim() == 1:  # layer norms and biases would be ones and zeros
            weight.add_(torch.randn_like(weight) / 4)
    optimize(module)
    return module


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference divided by the norm of the expected tensor."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def make_tile(module: nn.Module) -> Tensor:
    """Return two tiles (2, c, h, w) of two tile multiples per side."""
    contract = Network(module, CPU, torch.float32).contract
    side = 2 * contract.tile_multiple
    return torch.rand(2, contract.channels, side, side)


def narrow(config: dict[str, Any]) -> dict[str, Any]:
    """Return the changes that give a network features of 20 channels."""
    branch = {"compress": 3, "squeeze": 5} if "compress" in config else {}
    return {"dim": 20, "heads": [2] * len(config["heads"])} | branch


@pytest.mark.parametrize("name", NAMES)
def test_aligned_rows_do_not_change_the_result(name: str) -> None:
    """All configurations of the reference files, with features of 20 channels, which are padded to 24."""
    architecture, config, *_ = read_golden(name)
    module = build_optimized(architecture, config | narrow(config))
    x, padded = make_tile(module), deepcopy(module)
    align_rows(padded)
    assert {
        part.weight.shape[0] % 8 for part in padded.get_submodule("layers").modules() if isinstance(part, nn.Conv2d)
    } == {0}
    with torch.inference_mode():
        assert relative(padded(x), module(x)) < 1e-5


def test_each_form_is_used_by_a_reference_file() -> None:
    found: set[type[nn.Module]] = set()
    for name in ("swinir_classical_x4", "hat_x4"):
        module = build_optimized(*read_golden(name)[:2])
        align_rows(module)
        found |= {type(part) for part in module.modules()}
    assert found >= set(ALIGNED_FORMS.values())


def test_a_network_that_shares_weights_is_not_changed() -> None:
    architecture, config, *_ = read_golden("hat_x4")
    module = build_optimized(architecture, config | narrow(config))
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    copy = deepcopy(module, {id(weight): weight for weight in (*module.parameters(), *module.buffers())})
    align_rows(copy)
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("name", ["swinir_classical_x4", "hat_x4"])
def test_aligned_blocks_can_be_compiled(name: str) -> None:
    architecture, config, *_ = read_golden(name)
    module = build_optimized(architecture, config)
    align_rows(module)
    x = make_tile(module)
    with torch.inference_mode():
        expected = module(x)
        torch._dynamo.reset()
        for block in module.modules():
            if type(block) in ALIGNED_FORMS.values() and not isinstance(block, nn.LayerNorm):
                block.compile(backend="aot_eager", fullgraph=True)
        assert relative(module(x), expected) < 1e-5


def run_published(name: str, monkeypatch: pytest.MonkeyPatch) -> CallRecorder:
    """Return the operators of one tile in float16 on a simulated GPU, where all kernels are correct."""
    monkeypatch.setattr(attention, "can_use_kernel", lambda *form: True)
    monkeypatch.setattr(stored_precision, "can_align_rows", lambda *form: True)
    monkeypatch.setattr(attention, "triton_attention", record_attention)
    monkeypatch.setattr(block_tail, "triton_layer_norm", make_rows)
    monkeypatch.setattr(block_tail, "triton_block_tail", record_tail)
    case = next(case for case in CASES if case.name == name)
    module = build_optimized(case.architecture, asdict(case.config))
    keep_biases(module)
    with fake_gpu() as recorder:
        move_to_gpu(module)
        network = Network(module, CUDA, torch.float16)
        recorder.calls.clear()
        with torch.inference_mode(), autocast_on_gpu(torch.float16):
            network.module(torch.empty(1, 3, 64, 64, device=CUDA))
    return recorder


def make_rows(x: Tensor, *rest: object) -> Tensor:
    """Return an empty tensor like the kernel's."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def record_attention(qkv: list[Tensor], *rest: object) -> Tensor:
    """Check the rows that the attention kernel reads, without a copy."""
    assert all(part.stride() == qkv[0].stride() and part.stride(2) % 8 == 0 for part in qkv)
    return torch.empty_like(qkv[0], memory_format=torch.contiguous_format)


def record_tail(x: Tensor, attended: Tensor, branch: Tensor | None, gate: Tensor | None, *rest: object) -> Tensor:
    """Check that inputs are in half precision, and that rows need no copy.

    The layout of the branch is not checked, because cuDNN is absent here.
    """
    parts = [part for part in (x, attended, branch, gate) if part is not None]
    assert [part.dtype for part in parts] == [torch.float16] * len(parts)
    assert attended.is_contiguous()
    return make_rows(x)


@pytest.mark.parametrize(("name", "count"), [("SwinIR-M ×4", 46), ("HAT ×4", 198), ("SwinIR-S ×4", 28)])
def test_rows_of_products_are_multiples_of_16_bytes(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a GPU computes products of half precision in slower ways."""
    recorded = run_published(name, monkeypatch)
    products = [given for operator, given in recorded.calls if operator.overloadpacket in PRODUCTS]
    halves = [given["weight"] for given in products if given["input"].dtype == torch.float16]
    assert len(halves) == count
    odd = {tuple(weight.shape[:2]) for weight in halves if weight.shape[0] % 8 or weight.shape[1] % 8}
    assert {shape for shape in odd if 3 not in shape} == set()  # images have 3 channels


def check(dtype: torch.dtype = torch.float16, device: torch.device = CUDA, **changes: object) -> bool:
    """Return whether rows of a SwinIR are aligned on a GPU where the kernels are correct."""
    architecture, config, *_ = read_golden("swinir_classical_x4")
    return can_align_rows(build_optimized(architecture, config | changes), dtype, device)


def test_rows_are_aligned_only_where_the_kernels_are_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_tail, "has_matrix_units", lambda device: True)
    monkeypatch.setattr(block_tail, "block_kernels_are_correct", lambda *form: True)
    assert check()
    assert not check(device=CPU)
    assert not check(dim=264, heads=[2, 2])
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not check()
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(block_tail, "has_matrix_units", lambda device: False)
    assert not check()
    monkeypatch.setattr(block_tail, "has_matrix_units", lambda device: True)
    monkeypatch.setattr(block_tail, "block_kernels_are_correct", lambda *form: False)
    assert not check()
    restormer = SimpleNamespace(config=SimpleNamespace(dim=48))
    assert not aligned.can_align_rows(restormer, torch.float16, CUDA)  # type: ignore[arg-type]  # not a network
