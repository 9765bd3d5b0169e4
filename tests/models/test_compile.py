"""Compiled blocks are kept only if they are correct and faster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from golden_files import read_golden
from torch import Tensor

from restore_cli.models import compile as compiled_module
from restore_cli.models.compile import compile_if_faster
from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys
from restore_cli.models.network import Network

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the compiler's own
needs_a_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler is here")


def net(name: str) -> Network:
    architecture, config, weights, _, _ = read_golden(name)
    return build_network(architecture, config, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)


def as_fast(plain: float, compiled: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the measured times of the original and the compiled network; their results stay real."""
    times = iter([plain, compiled])
    monkeypatch.setattr(compiled_module, "measure_call", lambda network, tiles: (network(tiles), next(times)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch._dynamo.reset()
    return tmp_path / "compiled"


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@needs_a_compiler
@pytest.mark.parametrize("name", ["swinir_classical_x4", "hat_x4", "emt_x4", "restormer_biasfree"])
def test_faster_code_is_kept_for_its_tile_size(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(name)
    side = 4 * model.contract.tile_multiple
    full, other = torch.rand(1, 3, side, side), torch.rand(1, 3, side, 2 * side)
    expected, of_other = model(full), model(other)
    as_fast(2.0, 1.0, monkeypatch)
    said = compile_if_faster(model, (1, 3, side, side), folder)
    assert said.endswith("tiles take 0.50 of the time")
    assert 0 < difference(model(full), expected) < 1e-5
    assert torch.equal(model(other), of_other)


@needs_a_compiler
def test_slower_code_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tile = net("swinir_lightweight_x2"), torch.rand(1, 3, 32, 32)
    expected = model(tile)
    as_fast(1.0, 1.3, monkeypatch)
    assert compile_if_faster(model, (1, 3, 32, 32), folder).endswith("took 1.30 times as long")
    assert torch.equal(model(tile), expected)


@needs_a_compiler
def test_code_that_changes_the_image_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tile = net("swinir_lightweight_x2"), torch.rand(1, 3, 32, 32)
    expected = model(tile)
    results = iter([(torch.zeros(3), 2.0), (torch.full((3,), 0.01), 1.0)])
    monkeypatch.setattr(compiled_module, "measure_call", lambda network, tiles: next(results))
    assert compile_if_faster(model, (1, 3, 32, 32), folder).endswith("the output changed: 40 dB")
    assert torch.equal(model(tile), expected)


def test_lack_of_memory_leaves_the_network_uncompiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(network: Network, tiles: Tensor) -> tuple[Tensor, float]:
        raise torch.OutOfMemoryError("none left")

    model = net("swinir_lightweight_x2")
    monkeypatch.setattr(compiled_module, "measure_call", short)
    assert "none left" in compile_if_faster(model, (1, 3, 32, 32), folder)
    assert model.compiled_size is None


def test_a_compiler_error_leaves_the_network_uncompiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("PATH", str(folder))
    model, tile = net("swinir_lightweight_x2"), torch.rand(1, 3, 32, 32)
    expected = model(tile)
    assert compile_if_faster(model, (1, 3, 32, 32), folder).startswith("--compile: not compiled, ")
    assert torch.equal(model(tile), expected)
