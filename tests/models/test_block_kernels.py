"""The kernels of blocks without a GPU: interpreted and compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not here: it exists for Linux on x86-64")


def test_the_interpreted_kernels_equal_plain_blocks() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/models/interpreted_block_kernels.py"]
    given = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=given, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


PRODUCTS = {80: "mma.sync", 90: "wgmma", 120: "mma.sync"}
"""The instruction of the matrix units of each compute capability."""

SPARE = {(120, "float16"): 64, (80, "bfloat16"): 48, (90, "bfloat16"): 16, (120, "bfloat16"): 180}
"""Most bytes of registers that may be spilled."""

SHARED = 99 * 2**10
"""Bytes of shared memory that a program may use on every GPU from compute capability 8.0 on."""


@pytest.mark.parametrize("capability", PRODUCTS)
def test_the_kernel_compiles_to_matrix_products_without_spilling_registers(capability: int, tmp_path: Path) -> None:
    """The compiler runs in a process of its own, because Triton may abort it."""
    script = Path(__file__).with_name("compiled_block_kernels.py")
    given = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, str(script), str(capability)], env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kernels) == 8
    for kernel in kernels:
        assert PRODUCTS[capability] in kernel["products"], kernel
        assert kernel["spilled"] <= SPARE.get((capability, kernel["dtype"]), 0), kernel
        assert kernel["shared"] <= SHARED, kernel
