"""A cascade restores with its first network, then enlarges with its second one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from images import make_image
from safetensors.torch import save_file

from restore_cli.evaluation.metrics import psnr
from restore_cli.models.cascade import Cascade
from restore_cli.models.load import load_file
from restore_cli.models.network import Network
from restore_cli.pipeline.array import default_tiling, restore_array
from restore_cli.tiling.geometry import Tiling
from restore_cli.weights.architectures import CascadeConfig
from restore_cli.weights.store import BUNDLED
from training.network import load_start

CPU = torch.device("cpu")
CONFIG = CascadeConfig(2, 24, (0, 5, 4, 2), (1, 2, 4, 8))


@pytest.fixture
def published() -> Cascade:
    """Bundled checkpoints of the two parts."""
    network = Cascade(CONFIG).eval()
    load_start(network, [BUNDLED / "lite-dejpeg.safetensors", BUNDLED / "emt-x2.safetensors"])
    return network


@pytest.fixture
def file(published: Cascade, tmp_path: Path) -> Path:
    about = {"architecture": "cascade", "config": json.dumps(asdict(CONFIG))}
    save_file(published.state_dict(), tmp_path / "cascade.safetensors", about)
    return tmp_path / "cascade.safetensors"


def test_the_second_network_gets_the_output_of_the_first(published: Cascade, file: Path) -> None:
    """The loaded network has the inference forms of both."""
    loaded = load_file(file, CPU, torch.float32)
    x = torch.from_numpy(make_image(48, 40)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        expected = published.enlarger(published.restorer(x))
    found = loaded(x)
    assert loaded.architecture == "cascade"
    assert found.shape == (1, 3, 96, 80)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_both_networks_keep_their_first_and_last_convolutions_in_float32(file: Path) -> None:
    exact, half = (load_file(file, CPU, precision) for precision in (torch.float32, torch.bfloat16))
    pixels = make_image(40, 48)
    assert psnr(restore_array(half, pixels, Tiling(0, 0))[0], restore_array(exact, pixels, Tiling(0, 0))[0]) > 45


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (17, 40), (33, 64)])
def test_images_of_any_size_are_enlarged(file: Path, height: int, width: int) -> None:
    out, _ = restore_array(load_file(file, CPU, torch.float32), make_image(height, width), Tiling(0, 0))
    assert out.shape == (2 * height, 2 * width, 3)


def test_tiles_fit_both_networks(file: Path) -> None:
    network: Network = load_file(file, CPU, torch.float32)
    contract = network.contract
    assert contract.tile_multiple % 32 == contract.pad_multiple % 8 == 0
    assert default_tiling(contract) == Tiling(512, contract.overlap)
    pixels = make_image(100, 230)
    whole, tiled = (restore_array(network, pixels, tiling)[0] for tiling in (Tiling(0, 0), Tiling(160, 80)))
    assert psnr(whole, tiled) > 45
