"""Compiles the kernels of blocks for a GPU of NVIDIA: `python compiled_block_kernels.py 80` prints a line per form.

Written for Triton 3.3 and later. test_block_kernels.py runs this in a process of its own.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from compiled_kernel import NUMBERS, PRODUCTS, spilled_by_ptxas
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from restore_cli.models.ops.triton_block_kernels import block_tail_kernel
from restore_cli.models.ops.triton_blocks import block_tail_config

FORMS: dict[str, tuple[int, int, int, bool]] = {
    "SwinIR-M": (180, 184, 360, False),
    "HAT": (180, 184, 360, True),
    "SwinIR-S": (60, 64, 120, False),
    "SwinIR-L": (240, 240, 480, False),
}
"""Channels, width of rows, hidden channels, and whether a convolution branch is added, of the published models."""

DTYPES = {torch.float16: torch.float16, torch.bfloat16: torch.float32}
"""The dtype of products, with that of features."""


def main(capability: int) -> None:
    """Compile the end of a block in every form and dtype, and print what the compiler reports."""
    for form, (channels, width, hidden, gated) in FORMS.items():
        for dtype, features in DTYPES.items():
            words = block_tail_config(width)
            constants: dict[str, Any] = {key: value for key, value in words.items() if key.isupper()}
            constants |= {"GATED": gated, "CHANNELS": channels, "STRIDE": width, "HIDDEN": hidden}
            types = dict.fromkeys(block_tail_kernel.arg_names, f"*{NUMBERS[dtype]}")
            types |= dict.fromkeys(("x", "out", "norm_weight", "norm_bias"), f"*{NUMBERS[features]}")
            types |= {"rows": "i32", "pixels": "i32", "epsilon": "fp32"} | dict.fromkeys(constants, "constexpr")
            pointers = [i for i, kind in enumerate(types.values()) if kind.startswith("*")]
            aligned = {(i,): [["tt.divisibility", 16]] for i in pointers}
            source = ASTSource(fn=block_tail_kernel, signature=types, constexprs=constants, attrs=aligned)
            options = {key: value for key, value in words.items() if not key.isupper()}
            kernel = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            ptx = kernel.asm["ptx"]
            line = {
                "form": form,
                "dtype": str(dtype).removeprefix("torch."),
                "products": [product for product in PRODUCTS if product in ptx],
                "spilled": spilled_by_ptxas(ptx),
                "shared": kernel.metadata.shared,
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
