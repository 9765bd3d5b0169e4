"""`--tta`: the mean of eight passes over flipped and rotated tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from images import make_checkpoint, make_image
from numpy.typing import NDArray
from PIL import Image

import restore_cli
from restore_cli.errors import UsageError
from restore_cli.image.codec import decode
from restore_cli.jobs.manifest import MANIFEST_NAME, parse_lines
from restore_cli.models.network import Network
from restore_cli.models.self_ensemble import SelfEnsemble
from restore_cli.pipeline.memory import measure_demand
from restore_cli.tiling.geometry import padded_side

Pixels = NDArray[Any]
TURNS = [(turns, flipped) for turns in range(4) for flipped in (False, True)]


@pytest.fixture(scope="module")
def model(x2: Path) -> Network:
    return restore_cli.load(x2, device="cpu", precision="fp32")


def turn(pixels: Pixels, turns: int, flipped: bool) -> Pixels:
    """Return the pixels rotated by quarter turns, then flipped."""
    turned = np.rot90(pixels, turns)
    return np.ascontiguousarray(turned[:, ::-1] if flipped else turned)


def turn_back(pixels: Pixels, turns: int, flipped: bool) -> Pixels:
    """Invert `turn`."""
    return np.rot90(pixels[:, ::-1] if flipped else pixels, -turns)


def largest_difference(a: Pixels, b: Pixels) -> int:
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("name", ["swinir_gray_denoise", "emt_x4", "hat_window16_x2", "restormer_withbias"])
def test_it_is_the_mean_of_the_eight_restorations(name: str, tmp_path: Path) -> None:
    """The image is one tile that is not square."""
    path = make_checkpoint(tmp_path / "small.safetensors", name)
    network = restore_cli.load(path, device="cpu", precision="fp32")
    height = padded_side(20, network.contract)
    width = padded_side(height + 1, network.contract)
    pixels = make_image(height, width, network.contract.channels) / np.float32(255)
    parts = [turn_back(restore_cli.restore(network, turn(pixels, *how), tile=0), *how) for how in TURNS]
    found = restore_cli.restore(network, pixels, tile=0, tta=True)
    largest = float(np.abs(parts).max())
    np.testing.assert_allclose(found, np.mean(parts, 0), rtol=0, atol=1e-5 * largest)
    assert max(float(np.abs(part - found).max()) for part in parts) > 1e-3 * largest


@pytest.mark.parametrize("how", [(0, True), (1, False), (2, False), (3, True)])
@pytest.mark.parametrize("tile", [0, 24])
def test_a_turned_image_becomes_the_turned_result(how: tuple[int, bool], tile: int, x2: Path, restore: Run) -> None:
    """The sides are such that tiles and windows of the image are those of its mirror image."""
    pixels = make_image(40, 24)
    Image.fromarray(turn(pixels, *how)).save("turned.png")
    Image.fromarray(pixels).save("plain.png")
    words = ("--weights", x2, "--precision", "fp32", "--tile", tile, "--overlap", 8, "--tta", "-o", "out")
    ran = restore("sr", *words, "plain.png", "turned.png")
    assert ran.code == 0, ran.err
    plain, turned = (decode(Path("out", name)).pixels for name in ("plain.png", "turned.png"))
    assert largest_difference(turn_back(turned, *how), plain) <= 1


def test_one_pass_has_no_such_symmetry(model: Network) -> None:
    pixels = make_image(80, 56)
    turned = turn_back(restore_cli.restore(model, turn(pixels, 1, True), tile=0), 1, True)
    assert largest_difference(turned, restore_cli.restore(model, pixels, tile=0)) > 1


def test_alpha_and_streams_are_restored_as_the_whole(model: Network) -> None:
    pixels = make_image(24, 16, 4)
    whole = restore_cli.restore(model, pixels, tile=16, tta=True)
    blocks = restore_cli.restore_stream(model, iter([pixels[:10], pixels[10:]]), 24, tile=16, tta=True)
    assert np.array_equal(np.concatenate(list(blocks)), whole)
    assert not np.array_equal(whole[..., -1], restore_cli.restore(model, pixels, tile=16)[..., -1])


def test_the_command_and_the_library_write_the_same_bytes(model: Network, x2: Path, restore: Run) -> None:
    Image.fromarray(make_image(40, 30)).save("in.png")
    words = ("sr", "--weights", x2, "--precision", "fp32", "--tile", 32)
    assert restore(*words, "--tta", "in.png", "-o", "by.png").code == 0
    restore_cli.restore_file("in.png", "own.png", model, tile=32, tta=True)
    assert Path("own.png").read_bytes() == Path("by.png").read_bytes()
    assert b'restore:Tta="True"' in Path("by.png").read_bytes()
    assert restore(*words, "in.png", "-o", "once.png").code == 0
    assert b"restore:Tta" not in Path("once.png").read_bytes()


def test_tiles_that_overflow_run_again_in_float32(model: Network) -> None:
    half = Network(model.module, torch.device("cpu"), torch.float16)
    fallback = SelfEnsemble(half).fp32_fallback
    assert fallback is not None
    tile = torch.rand(1, 3, 24, 16)
    assert torch.equal(fallback(tile), SelfEnsemble(model)(tile))
    assert SelfEnsemble(model).fp32_fallback is None


def test_the_estimate_of_memory_counts_the_copies(model: Network) -> None:
    once, eight = (measure_demand(each, model.device)[1] for each in (model, SelfEnsemble(model)))
    assert eight - once == 4 * 3 * (1 + 2 * 2)  # bytes per px: a turned tile, and the sum


def test_a_pair_of_views_is_refused(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "dual.safetensors", "restormer_dual_pixel")
    model = restore_cli.load(path, device="cpu")
    with pytest.raises(UsageError, match="--tta flips and rotates"):
        restore_cli.restore(model, make_image(16, 16, 6), tta=True)


def test_a_folder_is_restored_again_if_the_option_changes(x2: Path, restore: Run) -> None:
    """A manifest without the option is that of a run without it, as earlier versions wrote it."""
    for seed in range(2):
        Image.fromarray(make_image(20, 24, seed=seed)).save(f"{seed}.png")
    words = ("sr", "--weights", x2, "--json", "0.png", "1.png", "-o", "out")

    def count_done(*more: str) -> int:
        ran = restore(*words, *more)
        return int(json.loads(ran.out.splitlines()[-1])["summary"]["done"])

    assert [count_done(), count_done("--tta"), count_done("--tta"), count_done()] == [2, 2, 0, 2]
    asked = [event["asked"] for _, event in parse_lines(Path("out", MANIFEST_NAME)) if "asked" in event]
    assert ["tta" in options for options in asked] == [False, True, False]


def test_eval_measures_what_the_command_writes(x2: Path, restore: Run) -> None:
    for folder, image in (("large", make_image(60, 48)), ("small", make_image(30, 24))):
        Path(folder).mkdir()
        Image.fromarray(image).save(f"{folder}/a.png")
    words = ("--weights", x2, "--precision", "fp32", "--tta")
    assert restore("sr", *words, "small/a.png", "-o", "made/").code == 0
    measured = restore("eval", "--restored", "made", "--reference", "large", "--border", 2, "--json")
    evaluated = restore("eval", "sr", *words, "--reference", "large", "--input", "small", "--json")
    once = restore("eval", "sr", *words[:-1], "--reference", "large", "--input", "small", "--json")
    figures = [json.loads(ran.out.splitlines()[0])["psnr"] for ran in (measured, evaluated, once)]
    assert figures[0] == figures[1] != figures[2]


def test_it_gains_on_a_benchmark(shared: Path, restore: Run) -> None:
    folder = shared / "bench/Set5"
    words = ("--reference", folder / "HR/butterfly.png", "--input", folder / "LR_bicubic/X4/butterflyx4.png")
    once, eight = (
        json.loads(restore("eval", "sr", "-s", 4, *words, "--json", *more).out.splitlines()[0])["psnr_y"]
        for more in ((), ("--tta",))
    )
    assert eight > once + 0.05
