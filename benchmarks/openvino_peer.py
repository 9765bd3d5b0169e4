"""The peer's module in OpenVINO on a CPU: converted, compiled, called; and OpenVINO's product of two matrices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["build_product", "compile_file", "convert"]

HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


def convert(module: nn.Module, x: Tensor, file: Path) -> None:
    """Write the module, traced with x (b, c, h, w), as OpenVINO's XML file for the shape of x.

    Converted through torch.export instead, EMT takes 1.5 times as long.
    """
    import openvino

    with torch.inference_mode():
        model = openvino.convert_model(module, example_input=x, input=[openvino.PartialShape(list(x.shape))])
    openvino.save_model(model, file, compress_to_fp16=False)


def compile_file(file: Path, dtype: torch.dtype, threads: int) -> Callable[[Tensor], Tensor]:
    """Return a function (b, c, h, w) -> (b, c, h·scale, w·scale) float32 that runs the network of the file."""
    import openvino

    return make_call(openvino.Core().read_model(file), dtype, threads)


def build_product(dtype: torch.dtype, side: int, threads: int) -> Callable[[Tensor], Tensor]:
    """Return a function (side, side) float32 -> (side, side) that multiplies by a constant matrix in the dtype."""
    import openvino
    from openvino import opset13 as ops

    given = ops.parameter([side, side], np.float32)
    other = ops.constant(np.random.default_rng(0).standard_normal((side, side), np.float32))
    return make_call(openvino.Model([ops.matmul(given, other, False, False)], [given]), dtype, threads)


def make_call(model: object, dtype: torch.dtype, threads: int) -> Callable[[Tensor], Tensor]:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()

    def call(x: Tensor) -> Tensor:
        (out,) = request.infer([x.contiguous().numpy()], share_outputs=True).values()
        return torch.from_numpy(out)

    return call
