"""Pixels are rounded on the device of the model, as on the CPU, and only whole results are copied from a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import CUDA, fake_gpu
from nearest_model import NearestModel
from torch import Tensor
from torch.nn import functional as F

from restore_cli.contract import Contract
from restore_cli.image.picture import PEAK
from restore_cli.pinned import PinnedMemory
from restore_cli.pipeline.array import open_samples, restore_array
from restore_cli.pipeline.output import quantise_rows, round_on_device
from restore_cli.tiling import batches, host_copy
from restore_cli.tiling.engine import Trace, restore_rows
from restore_cli.tiling.geometry import Tiling

DTYPES = [np.dtype(np.uint8), np.dtype(np.uint16)]


class Smooth(NearestModel):
    """Enlarges by interpolation, beyond the range of the input, and sees the whole tile."""

    def __call__(self, x: Tensor) -> Tensor:
        out = F.interpolate(x, scale_factor=self.contract.scale, mode="bicubic")
        return 1.2 * out - 0.1 + x.mean((1, 2, 3), keepdim=True) / 50


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_devices_round_as_quantise_rows_does(dtype: np.dtype[Any]) -> None:
    peak = PEAK[str(dtype)]
    halves = (np.arange(2 * peak + 3, dtype=np.float32) / 2 - 1) / np.float32(peak)
    values = np.concatenate([halves, np.nextafter(halves, np.float32(9)), np.nextafter(halves, np.float32(-9))])
    values = np.concatenate([values, np.array([-0.0, 1e30, -1e30], np.float32)])[None, :, None]
    (expected,) = quantise_rows(iter([values]), dtype, alpha=False, dither=False)
    assert np.array_equal(round_on_device(torch.from_numpy(values), dtype).numpy().view(dtype), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("tiling", [Tiling(0, 0), Tiling(32, 8), Tiling(24, 12, batch=3)])
def test_tiles_that_are_rounded_where_they_are_final_equal_a_rounded_picture(
    dtype: np.dtype[Any], channels: int, tiling: Tiling
) -> None:
    pixels = np.random.default_rng(0).integers(0, int(PEAK[str(dtype)]), (83, 70, channels), dtype, endpoint=True)
    found, _ = restore_array(Smooth(), pixels, tiling)
    floats, _ = restore_array(Smooth(), pixels.astype(np.float32) / np.float32(PEAK[str(dtype)]), tiling)
    expected = np.rint((floats * np.float32(PEAK[str(dtype)])).clip(0, PEAK[str(dtype)])).astype(dtype)
    assert np.array_equal(found, expected)


class OnGpu:
    """A model whose results are on a simulated GPU."""

    fp32_fallback = None
    contract = Contract(4, 3, 8, 1, 8, overlap=8, tile=None, activation_floats_per_px=192)

    def __call__(self, x: Tensor) -> Tensor:
        return x.new_empty(*x.shape[:2], 4 * x.shape[2], 4 * x.shape[3], device=CUDA)


class BlankRows:
    """A picture without values."""

    height, width = 250, 300

    def read(self, top: int, bottom: int) -> Tensor:
        return torch.empty(3, bottom - top, self.width)


@pytest.mark.parametrize("dtype", [*DTYPES, np.dtype(np.float32)], ids=str)
@pytest.mark.parametrize("tiling", [Tiling(128, 32, batch=4), Tiling(0, 0)])
def test_a_gpu_sends_each_final_sample_once(
    dtype: np.dtype[Any], tiling: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "find_overflows", lambda finite: [])  # tensors of a simulated GPU have no values
    monkeypatch.setattr(host_copy, "PINNED", PinnedMemory(0))  # events need a driver
    picture = open_samples((BlankRows.height, BlankRows.width, 3), dtype, lambda: lambda top, bottom: np.zeros(0))
    trace = Trace(tiling)
    with fake_gpu() as recorded:
        blocks = list(restore_rows(OnGpu(), BlankRows(), trace, picture.choose_finish(dtype)))
    assert sum(block.shape[1] for block in blocks) == 4 * BlankRows.height
    sent = [
        given["self"]
        for operator, given in recorded.calls
        if "to" in operator.overloadpacket.__name__
        and given.get("device") == torch.device("cpu")
        and given["self"].is_cuda
    ]
    flags = sum(part.nbytes for part in sent if part.dtype == torch.bool)
    assert flags == trace.tiles
    assert sum(part.nbytes for part in sent) - flags == 16 * BlankRows.height * BlankRows.width * 3 * dtype.itemsize
