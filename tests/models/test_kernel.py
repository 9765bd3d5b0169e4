"""The kernel of a GPU, as far as it can be judged without one: interpreted, and compiled for two generations."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from restore_cli.models.fused import layout

if TYPE_CHECKING:
    from triton.compiler import CompiledKernel

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not here: it exists for Linux on x86-64")

FORMS: dict[str, tuple[tuple[int, int], int, int, int]] = {
    "SwinIR-M": ((8, 8), 0, 30, 4),
    "SwinIR-S": ((8, 8), 0, 10, 4),
    "SwinIR JPEG": ((7, 7), 0, 30, 1),
    "HAT": ((16, 16), 0, 30, 4),
    "HAT, surroundings": ((16, 16), 4, 30, 1),
    "EMT": ((32, 8), 0, 10, 0),
}
"""Window, margin, channels of a head, and kinds of window with a bias, of the published models."""


def test_interpreted_on_a_cpu_it_computes_what_the_plain_way_does() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/models/interpreted_kernel.py"]
    given = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=given, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_compiles_without_spilling_registers(
    form: str, capability: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    window, margin, d, kinds = FORMS[form]
    kernel = compiled(layout(window, margin, d, dtype), margin, d, kinds, dtype, capability)
    products = {80: "mma.sync", 90: "wgmma"}[capability]
    assert (products in kernel.asm["ptx"]) == (dtype != torch.float32)
    assert spilled(kernel.asm["ptx"], capability, tmp_path / "kernel.ptx") == 0
    assert kernel.metadata.shared < 48 * 2**10


def compiled(
    words: dict[str, int], margin: int, d: int, kinds: int, dtype: torch.dtype, capability: int
) -> CompiledKernel:
    """The kernel for NVIDIA's GPUs of that compute capability, as Triton gives it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from restore_cli.models.kernel import window_attention

    heads = 6
    constants: dict[str, Any] = {key: value for key, value in words.items() if key.isupper()}
    constants |= {"BIASED": kinds > 0, "KINDS": max(1, kinds), "MARGIN": margin}
    constants |= {"HEADS": heads, "D": d, "PIXEL": 3 * heads * d}
    number = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    types = dict.fromkeys(window_attention.arg_names, "i32") | {"factor": "fp32"}
    types |= dict.fromkeys("qkv", f"*{number}") | {"out": f"*{number}"}
    types |= {"bias": "*fp16" if dtype == torch.float16 else "*fp32"} | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(fn=window_attention, signature=types, constexprs=constants, attrs=aligned)
    options = {key: value for key, value in words.items() if not key.isupper()}
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def spilled(ptx: str, capability: int, path: Path) -> int:
    """Bytes of registers that do not fit, as NVIDIA's assembler says."""
    import triton

    path.write_text(ptx)
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    kind = f"sm_{capability}a" if capability == 90 else f"sm_{capability}"
    command = [str(assembler), "-v", f"--gpu-name={kind}", str(path), "-o", str(path.with_suffix(".cubin"))]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"(\d+) bytes spill stores", said)
    assert found, said
    return int(found[1])
