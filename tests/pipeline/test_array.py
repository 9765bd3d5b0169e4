"""Arrays of any size and dtype are restored."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import GOLDEN, build_on_meta, convert_config
from images import make_checkpoint, make_image
from nearest_model import NearestModel
from numpy.typing import NDArray
from torch import Tensor

from restore_cli import load
from restore_cli.errors import OutOfMemory, UsageError
from restore_cli.evaluation.evaluate import find_tile_borders
from restore_cli.evaluation.metrics import luma, psnr, seam
from restore_cli.models.load import load_file
from restore_cli.models.network import Network
from restore_cli.pipeline.array import default_tiling, restore_array
from restore_cli.tiling.geometry import Tiling, padded_side, plan_axis

CPU = torch.device("cpu")


def enlarged(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_that_the_model_keeps_stay_equal_to_the_bit(dtype: str, channels: int) -> None:
    pixels = make_image(45, 70, channels).astype(dtype)
    pixels = pixels * 257 if dtype == "uint16" else pixels / np.float32(255) if dtype == "float32" else pixels
    out, _ = restore_array(NearestModel(), pixels, Tiling(32, 8))
    assert out.dtype == pixels.dtype
    ulp = 1e-7 if dtype == "float32" else 0  # the mean of three equal floats may differ from them in the last bit
    np.testing.assert_allclose(out, enlarged(pixels), rtol=0, atol=ulp)


@pytest.mark.parametrize("call", range(1, 20))
def test_memory_running_out_at_any_call_changes_no_pixel(call: int) -> None:
    pixels, model = make_image(60, 90), NearestModel(faults=(call,))
    out, trace = restore_array(model, pixels, Tiling(32, 8, batch=2))
    assert np.array_equal(out, enlarged(pixels))
    assert trace.tiling.batch == (1 if call < model.calls else 2)


def test_memory_running_out_halves_the_batch_then_the_tile() -> None:
    pixels, model = make_image(200, 200), NearestModel(most=3 * 40 * 40)
    out, trace = restore_array(model, pixels, Tiling(0, 0, batch=4))
    assert np.array_equal(out, enlarged(pixels))
    assert trace.tiling.batch == 1
    assert trace.tiling.tile <= 40
    again = NearestModel(most=3 * 40 * 40)
    restore_array(again, pixels, trace.tiling)
    assert max(again.sides) <= 40


def test_out_of_memory_at_the_smallest_tile_is_an_error() -> None:
    with pytest.raises(OutOfMemory, match="smallest tile, 8 px"):
        restore_array(NearestModel(most=1), make_image(100, 100), Tiling(64, 8))


def test_other_errors_of_the_model_are_not_lack_of_memory() -> None:
    class Broken(NearestModel):
        def __call__(self, x: Tensor) -> Tensor:
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        restore_array(Broken(), make_image(20, 20), Tiling(0, 0))


def test_a_gray_picture_stays_gray() -> None:
    gray = make_image(30, 40, 1)
    assert np.array_equal(restore_array(NearestModel(), gray, Tiling(0, 0))[0], enlarged(gray))


def test_a_gray_model_refuses_colour() -> None:
    with pytest.raises(UsageError, match="gray images; this image has 3 channels"):
        restore_array(NearestModel(channels=1), make_image(8, 8), Tiling(0, 0))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Network:
    path = make_checkpoint(tmp_path_factory.mktemp("tiny") / "x2.safetensors", "swinir_lightweight_x2")
    return load_file(path, CPU, torch.float32)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (3, 700), (50, 2), (33, 65)])
def test_any_size_through_a_real_network(height: int, width: int, tiny: Network) -> None:
    out, _ = restore_array(tiny, make_image(height, width), default_tiling(tiny.contract, 64))
    assert out.shape == (2 * height, 2 * width, 3)


def test_half_precision_differs_only_by_rounding(tiny: Network) -> None:
    pixels = make_image(40, 40)
    exact = restore_array(tiny, pixels, Tiling(0, 0))[0]
    for precision in (torch.bfloat16, torch.float16):
        half = restore_array(Network(tiny.module, CPU, precision), pixels, Tiling(0, 0))[0]
        assert psnr(half, exact) > 40


def test_a_colour_model_restores_gray_to_one_channel(tiny: Network) -> None:
    out, _ = restore_array(tiny, make_image(20, 20, 1), Tiling(0, 0))
    assert out.shape == (40, 40, 1)


@pytest.mark.parametrize("architecture", ["swinir", "hat", "restormer", "emt"])
@pytest.mark.parametrize("size", [(4000, 3000), (4032, 3024), (3464, 3464), (5000, 2400)])
def test_tiles_of_a_large_picture_add_at_most_a_quarter_of_its_px(architecture: str, size: tuple[int, int]) -> None:
    published = json.loads((GOLDEN / "fingerprints.json").read_text()).values()
    words = next(form["hyperparameters"] for form in published if form["architecture"] == architecture)
    contract = Network(build_on_meta(architecture, convert_config(architecture, words)), CPU, torch.float32).contract
    tiling = default_tiling(contract)
    axes = [
        plan_axis(padded_side(side, contract), tiling.tile, tiling.overlap, contract.tile_multiple) for side in size
    ]
    assert prod(len(axis.starts) * axis.tile for axis in axes) <= 1.25 * prod(size)


SET5 = ("baby", "bird", "butterfly", "head", "woman")


def low_resolution(shared: Path, name: str, scale: int) -> Path:
    return next((shared / f"bench/Set5/LR_bicubic/X{scale}").glob(f"{name}*"))


@pytest.mark.parametrize(("scale", "least"), [(2, 38.28), (3, 34.78), (4, 32.63)])
def test_the_bundled_weights_reach_the_published_psnr(scale: int, least: float, shared: Path) -> None:
    """EMT on Set5 (arXiv:2305.11403, table 3; Y of BT.601, `scale` px of border cut): whole, in tiles of 64 px, and
    with the authors' float32 weights instead of the bundled float16."""
    from restore_cli.image.codec import decode

    model = load(f"emt-x{scale}", device="cpu", precision="fp32")
    origin = load_file(shared / f"checkpoints/EMT_LSR_x{scale}.pth", CPU, torch.float32)
    ways = {"whole": (model, 0), "tiled": (model, 64), "origin": (origin, 0)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for image in SET5:
        reference = decode(shared / f"bench/Set5/HR/{image}.png").pixels
        pixels = decode(low_resolution(shared, image, scale)).pixels
        pixels = pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels
        for name, (network, tile) in ways.items():
            out = restore_array(network, pixels, default_tiling(network.contract, tile))[0]
            reference = reference[: out.shape[0], : out.shape[1]]
            found[name].append(psnr(luma(out), luma(reference), border=scale))
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    assert mean["whole"] >= least
    assert abs(mean["whole"] - mean["tiled"]) <= 0.02
    assert abs(mean["whole"] - mean["origin"]) <= 0.002


def test_tiles_of_real_weights_leave_no_seams(shared: Path) -> None:
    """At least 55 dB between tiled and whole, and no seam: gradients across tile borders equal those elsewhere."""
    from restore_cli.image.codec import decode

    model = load_file(shared / "checkpoints/EMT_LSR_x2.pth", CPU, torch.float32)
    tiled_seams, whole_seams = [], []
    for name in SET5:
        pixels = decode(low_resolution(shared, name, 2)).pixels.astype(np.float32) / 255  # out unrounded, too
        tiling = default_tiling(model.contract, 64)
        tiled = restore_array(model, pixels, tiling)[0]
        whole = restore_array(model, pixels, default_tiling(model.contract, 0))[0]
        assert psnr(tiled, whole, peak=1) >= 55
        across, down = (find_tile_borders(pixels.shape[axis], tiling, model) for axis in (1, 0))
        tiled_seams.append(seam(tiled, across, down))
        whole_seams.append(seam(whole, across, down))
    # what the pictures themselves show at those places is taken out by the untiled results
    assert np.mean(tiled_seams) / np.mean(whole_seams) == pytest.approx(1, abs=0.02)
