"""The attention kernel without a GPU: interpreted, compiled, and not used where it does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from systems import IMPORT_PATH
from torch._subclasses.fake_tensor import FakeTensorMode

from restore_cli.models.ops import attention, kernel_trial

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not here: it exists for Linux on x86-64")


def test_the_interpreted_kernel_equals_plain_attention() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/models/interpreted_kernel.py"]
    given = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=given, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


PRODUCTS = {
    "cuda 80": "mma.sync",
    "cuda 86": "mma.sync",
    "cuda 89": "mma.sync",
    "cuda 90": "wgmma",
    "cuda 100": "tcgen05.mma",
    "cuda 120": "mma.sync",
    "hip gfx942": "v_mfma",
    "hip gfx1100": "v_wmma",
}
"""The instruction of the matrix units of each GPU."""


SPARE = {"cuda 100": 16, "hip gfx1100": 80 if kernel_trial.triton_is_older_than(3, 6) else 0}
"""Most bytes (registers on AMD's GPUs) that may be spilled."""


@pytest.mark.parametrize("target", PRODUCTS)
def test_the_kernel_compiles_to_matrix_products_without_spilling_registers(target: str, tmp_path: Path) -> None:
    """The compiler runs in a process of its own, because Triton may abort it."""
    command = [sys.executable, str(Path(__file__).with_name("compiled_kernel.py")), *target.split()]
    given = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": IMPORT_PATH}
    given["TRITON_HIP_LLD_PATH"] = "/bin/true"  # Triton before 3.5 needs AMD's linker; the test does not use its output
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kernels) == 18
    for kernel in kernels:
        if kernel["dtype"] != "float32":
            assert PRODUCTS[target] in kernel["products"], kernel
        assert kernel["spilled"] <= SPARE.get(target, 0), kernel
        assert kernel["shared"] < 48 * 2**10, kernel


FAKE = torch.device("cuda:0")


def served(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether attention on a GPU would use the kernel, if it is correct there."""
    trials: list[object] = []

    def right(*form: object) -> bool:
        trials.append(form)
        return True

    monkeypatch.setattr(attention, "kernel_is_correct", right)
    kernel_trial.has_matrix_units.cache_clear()
    with FakeTensorMode(), torch.inference_mode():
        part = torch.empty(1, 16, 16, 6, 30, dtype=torch.float16, device=FAKE)
        serves = attention.can_use_kernel([part] * 3, (8, 8), (0, 0), 0, None)
    kernel_trial.has_matrix_units.cache_clear()
    assert bool(trials) == serves  # where the GPU is none for it the kernel is not even tried
    return serves


OF_NVIDIA = {(5, 2): False, (6, 1): False, (7, 0): False, (7, 5): False}
OF_NVIDIA |= {(8, 0): True, (8, 9): True, (9, 0): True, (10, 0): True, (12, 0): True}


@pytest.mark.parametrize("version", ["3.2.0", "3.3.1", "3.7.1+git"])
@pytest.mark.parametrize(("capability", "serves"), OF_NVIDIA.items())
def test_nvidia_gpus_that_triton_does_not_support_do_not_use_the_kernel(
    capability: tuple[int, int], serves: bool, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triton.__version__", version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert served(monkeypatch) == (serves and (version != "3.2.0" or capability < (10, 0)))


OF_AMD = {"gfx906:sramecc+:xnack-": False, "gfx1030": False, "gfx90a:sramecc+:xnack-": True, "gfx942": True}
OF_AMD |= {"gfx1100": True, "gfx1201": True}


@pytest.mark.parametrize(("name", "serves"), OF_AMD.items())
def test_amd_gpus_without_matrix_units_do_not_use_the_kernel(
    name: str, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(gcnArchName=name))
    assert served(monkeypatch) == serves


def test_a_missing_c_compiler_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Triton compiles its interface to the driver when it is first used."""
    from triton.runtime.build import compile_module_from_src

    def built(*given: object) -> torch.Tensor:
        compile_module_from_src("int x;", "driver")
        raise AssertionError("there is a compiler")

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(attention, "triton_attention", built)
    kernel_trial.warn_without_kernel.cache_clear()
    for heads in (2, 6):
        form = (torch.device("cpu"), torch.float32, (3, heads, 10), (8, 8), True, 0, True)
        assert not attention.kernel_is_correct.__wrapped__(*form)
    assert [record.getMessage() for record in caplog.records] == [
        "the network runs without a fused kernel on cpu, and takes longer: "
        "Failed to find C compiler. Please specify via CC environment variable or set triton.knobs.build.impl."
    ]
