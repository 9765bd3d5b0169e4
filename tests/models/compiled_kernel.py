"""Compiles the attention kernel for any GPU: `python compiled_kernel.py cuda 80` prints a line per form.

Written for Triton 3.3 and later. test_kernel.py runs this in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from restore_cli.models.ops.triton_attention import launch_config
from restore_cli.models.ops.triton_kernel import window_attention_kernel

if TYPE_CHECKING:
    from triton.compiler import CompiledKernel

FORMS: dict[str, tuple[tuple[int, int], int, int, int]] = {
    "SwinIR-M": ((8, 8), 0, 30, 4),
    "SwinIR-S": ((8, 8), 0, 10, 4),
    "SwinIR JPEG": ((7, 7), 0, 30, 1),
    "HAT": ((16, 16), 0, 30, 4),
    "HAT, surroundings": ((16, 16), 4, 30, 1),
    "EMT": ((32, 8), 0, 10, 0),
}
"""Window, margin, channels of a head, and kinds of window with a bias, of the published models."""

NUMBERS = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
HEADS = 6
PRODUCTS = ("mma.sync", "wgmma", "tcgen05.mma", "v_mfma", "v_wmma")


def main(kind: str, name: str) -> None:
    """Compile every form in every dtype, and print what the compiler reports."""
    if kind == "hip":
        torch.version.hip = "here"  # as in a PyTorch for AMD's GPUs
    target = GPUTarget("cuda", int(name), 32) if kind == "cuda" else GPUTarget("hip", name, lanes(name))
    for form in FORMS:
        for dtype in NUMBERS:
            kernel = compiled(form, dtype, target)
            found = kernel.asm["ptx"] if kind == "cuda" else kernel.asm["amdgcn"]
            line = {
                "form": form,
                "dtype": str(dtype).removeprefix("torch."),
                "products": [product for product in PRODUCTS if product in found],
                "spilled": spilled_by_ptxas(found) if kind == "cuda" else spilled_by_llvm(found),
                "shared": kernel.metadata.shared,
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def lanes(name: str) -> int:
    """Return the threads of a wavefront: 64 on CDNA, 32 on RDNA."""
    return 32 if name.startswith("gfx1") else 64


def compiled(form: str, dtype: torch.dtype, target: GPUTarget) -> CompiledKernel:
    """Return the kernel as Triton compiles it."""
    window, margin, d, kinds = FORMS[form]
    words = launch_config(window, margin, d, dtype)
    constants: dict[str, Any] = {key: value for key, value in words.items() if key.isupper()}
    constants |= {"BIASED": kinds > 0, "KINDS": max(1, kinds), "MARGIN": margin}
    constants |= {"HEADS": HEADS, "D": d, "PIXEL": 3 * HEADS * d}
    types = dict.fromkeys(window_attention_kernel.arg_names, "i32") | {"factor": "fp32"}
    types |= dict.fromkeys(("q", "k", "v", "out"), f"*{NUMBERS[dtype]}")
    types |= {"bias": "*fp16" if dtype == torch.float16 else "*fp32"} | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(fn=window_attention_kernel, signature=types, constexprs=constants, attrs=aligned)
    options = {key: value for key, value in words.items() if not key.isupper()}
    return compile(source, target=target, options=options)


def spilled_by_ptxas(ptx: str) -> int:
    """Return the bytes of spilled registers that NVIDIA's assembler reports."""
    named = re.search(r"\.target (sm_(\d+)\w?)", ptx)
    assert named, ptx[:500]
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    newer = tools / "ptxas-blackwell"
    assembler = newer if int(named[2]) >= 100 and newer.exists() else tools / "ptxas"
    with TemporaryDirectory() as folder:
        (Path(folder) / "kernel.ptx").write_text(ptx)
        command = [str(assembler), "-v", f"--gpu-name={named[1]}", "kernel.ptx", "-o", "kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stderr
    found = re.search(r"(\d+) bytes spill stores", said)
    assert found, said
    return int(found[1])


def spilled_by_llvm(assembly: str) -> int:
    """Return the number of spilled registers that LLVM reports for AMD GPUs."""
    found = re.search(r"\.vgpr_spill_count:\s+(\d+)", assembly)
    assert found, assembly[-2000:]
    return int(found[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
