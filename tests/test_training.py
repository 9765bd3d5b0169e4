"""Training refuses benchmarks and starts from checkpoints. A resumed run equals an uninterrupted one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import restore_cli
from restore_cli.errors import UsageError, WeightsError
from restore_cli.evaluation.degrade import imresize
from restore_cli.evaluation.metrics import psnr
from restore_cli.models.cascade import Cascade
from restore_cli.models.restormer import Restormer
from restore_cli.weights.architectures import CascadeConfig, RestormerConfig
from training.camera import add_camera_noise, demosaic, gaussian_blur
from training.curve import draw
from training.data import as_bytes, as_floats, make_batch, read_photos
from training.degradations import Compression, Degradation, LowResolution, Noise, SmallImages
from training.export import export
from training.network import MODULES, build, initialise, load_start
from training.recipe import RECIPES, Recipe
from training.train import Plan, find_loss, train

WEIGHTS = Path(restore_cli.__file__).parent / "weights/bundled"

TINY = RestormerConfig(3, 3, 8, (0, 1, 1, 1), 0, (1, 1, 1, 1), 2.0, False, False)
TINY_CASCADE = CascadeConfig(4, 8, (0, 1, 1, 1), (1, 1, 1, 1))
DEGRADATIONS: list[Degradation] = [
    Noise(32),
    Compression(32),
    LowResolution(2, 16, Recipe.strong),
    LowResolution(4, 8, Recipe.strong),
]


def make_photo(seed: int, side: int = 64) -> NDArray[np.uint8]:
    """Return an image with edges and gradients."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return imresize(coarse, (side, side))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        Image.fromarray(make_photo(i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a recipe that trains quickly."""
    recipe = replace(RECIPES["lite-denoise"], config=TINY, patch=16, batch=2)
    monkeypatch.setitem(RECIPES, "lite-denoise", recipe)
    return "lite-denoise"


def test_a_resumed_run_equals_an_uninterrupted_one(tiny: str, photos: Path, tmp_path: Path) -> None:
    whole = train(Plan(tiny, photos, tmp_path / "a", steps=4))
    train(Plan(tiny, photos, tmp_path / "b", steps=4, stop=2))
    resumed = train(Plan(tiny, photos, tmp_path / "b", steps=4))
    assert whole.step == resumed.step == 4
    for part in ("network", "average"):
        expected, found = getattr(whole, part).state_dict(), getattr(resumed, part).state_dict()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert {path.name for path in (tmp_path / "b" / tiny).iterdir()} == {"state.pt", "log.jsonl", "curve.svg"}


def test_a_gradient_that_explodes_changes_no_weight(
    tiny: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = train(Plan(tiny, photos, tmp_path / "a", steps=4, stop=0)).network.state_dict()
    monkeypatch.setattr("training.train.EXPLODED", 0.0)
    after = train(Plan(tiny, photos, tmp_path / "b", steps=4, stop=2)).network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 here")
@pytest.mark.parametrize("name", sorted(file.stem for file in WEIGHTS.glob("lite-*")))
def test_the_gradient_in_bfloat16_points_where_the_exact_one_does(name: str) -> None:
    recipe = RECIPES[name]
    network = build(recipe).eval()
    load_start(network, [WEIGHTS / f"{name}.safetensors"])
    pixels = torch.from_numpy(as_floats(make_photo(0, recipe.patch))).permute(2, 0, 1)[None]

    def find_gradient(bfloat16: bool) -> torch.Tensor:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            network(pixels).float().square().mean().sqrt().backward()
        return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])

    exact, found = find_gradient(bfloat16=False), find_gradient(bfloat16=True)
    assert float(exact @ found / (exact.norm() * found.norm())) > 0.99


def test_an_export_is_half_precision_and_states_its_configuration(tiny: str, photos: Path, tmp_path: Path) -> None:
    run = train(Plan(tiny, photos, tmp_path, steps=1))
    with safe_open(export(tiny, tmp_path, tmp_path / "out"), "pt") as file:
        about, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert json.loads(about["config"]) == json.loads(json.dumps(asdict(TINY)))
    assert all(torch.equal(tensors[key], value.half()) for key, value in run.average.state_dict().items())


def test_a_larger_network_starts_with_the_output_of_the_smaller_checkpoint(tmp_path: Path) -> None:
    small, large = Restormer(TINY), Restormer(replace(TINY, blocks=(0, 2, 1, 3)))
    initialise(small, 1)
    initialise(large, 2)
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    load_start(large, [tmp_path / "small.safetensors"])
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(large(x), small(x), atol=1e-6)
        assert not torch.equal(small(x), x)


def test_a_start_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_file(Restormer(TINY).state_dict(), tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match="not a start"):
        load_start(Restormer(replace(TINY, dim=16)), [tmp_path / "small.safetensors"])
    with pytest.raises(WeightsError, match="not a start"):
        load_start(Restormer(replace(TINY, expansion=3.0)), [tmp_path / "small.safetensors"])


def test_blocks_that_the_network_lacks_are_left_out(tmp_path: Path) -> None:
    large, small = Restormer(replace(TINY, blocks=(0, 2, 1, 2))), Restormer(TINY)
    save_file(large.state_dict(), tmp_path / "large.safetensors")
    load_start(small, [tmp_path / "large.safetensors"])
    assert all(torch.equal(value, large.state_dict()[key]) for key, value in small.state_dict().items())


def test_a_cascade_starts_from_one_file_or_from_one_for_each_part(tmp_path: Path) -> None:
    expected, found = Cascade(TINY_CASCADE), Cascade(TINY_CASCADE)
    whole, first, second = (tmp_path / f"{name}.safetensors" for name in ("whole", "first", "second"))
    for part, file in ((expected, whole), (expected.restorer, first), (expected.enlarger, second)):
        save_file(part.state_dict(), file)
    for files in ([whole], [first, second]):
        initialise(found)
        load_start(found, files)
        assert all(torch.equal(value, found.state_dict()[key]) for key, value in expected.state_dict().items())
    with pytest.raises(UsageError, match="found 3 files"):
        load_start(found, [first, second, whole])


def test_the_loss_adds_the_error_of_the_lightness() -> None:
    gray, colour = torch.full((2, 3, 4, 4), 0.1), torch.zeros(2, 3, 4, 4)
    colour[:, 0], colour[:, 2] = 0.114, -0.299  # red and blue that leave the lightness as it is
    assert find_loss(gray, 2).item() == pytest.approx(0.3, rel=1e-3)
    assert find_loss(colour, 2).item() == pytest.approx(find_loss(colour, 0).item() + 2e-3, rel=1e-3)


def test_small_images_are_the_inputs_of_super_resolution() -> None:
    photo, random = make_photo(0, 256), np.random.default_rng
    small, clean = SmallImages(32, Recipe.strong).make_pair(photo, random(0))
    same, large = LowResolution(4, 32, Recipe.strong).make_pair(photo, random(0))
    assert np.array_equal(small, same)
    assert clean.shape == small.shape
    assert psnr(clean * 255, imresize(as_bytes(large), (32, 32))) > 45


def test_benchmarks_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bench" / "Set5"
    folder.mkdir(parents=True)
    Image.fromarray(make_photo(0)).save(folder / "baby.png")
    with pytest.raises(UsageError, match="never trained on"):
        read_photos(folder)
    (tmp_path / "innocent").symlink_to(folder)
    with pytest.raises(UsageError, match="never trained on"):
        read_photos(tmp_path / "innocent")
    with pytest.raises(UsageError, match="no photographs"):
        read_photos(tmp_path / "nothing")


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_batches_depend_only_on_the_step(degradation: Degradation) -> None:
    photos = np.stack([make_photo(i) for i in range(4)])
    one, again, other = (make_batch(photos, degradation.make_pair, 3, step, 0) for step in (5, 5, 6))
    scale = getattr(degradation, "scale", 1)
    assert one.clean.shape == (3, 3, 32, 32)
    assert one.degraded.shape == (3, 3, 32 // scale, 32 // scale)
    assert torch.equal(one.degraded, again.degraded)
    assert not torch.equal(one.degraded, other.degraded)
    assert one.degraded.min() > -2
    assert one.degraded.max() < 3


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_degraded_and_clean_patches_show_the_same_place(degradation: Degradation) -> None:
    """A shift by a pixel between the two would teach a network to move images."""
    photos = np.stack([make_photo(i) for i in range(4)])
    batch = make_batch(photos, degradation.make_pair, 40, 0, 0)
    clean = torch.nn.functional.interpolate(batch.clean, batch.degraded.shape[-2:], mode="area")
    inner = (..., slice(2, -2), slice(2, -2))
    here = (clean - batch.degraded)[inner].abs().mean()
    for axis in (-1, -2):
        for shift in (-1, 1):
            assert here < (clean.roll(shift, axis) - batch.degraded)[inner].abs().mean()


def test_validation_always_degrades_a_photograph_in_the_same_way() -> None:
    photo = make_photo(3)
    for degradation in DEGRADATIONS[:3]:
        for level in degradation.levels:
            first, again = (degradation.degrade_whole(photo, level)[0] for _ in range(2))
            assert np.array_equal(first, again), level


def test_camera_noise_is_coarse_and_has_every_strength() -> None:
    photo = as_floats(make_photo(1, 128)) * np.float32(0.6) + np.float32(0.2)
    noises = [add_camera_noise(photo, np.random.default_rng(seed)) - photo for seed in range(40)]
    strengths = [psnr(noise, np.zeros_like(noise), peak=1) for noise in noises]
    assert min(strengths) < 28
    assert max(strengths) > 42
    assert abs(np.mean(noises)) < 0.01  # the tone curve is not linear, so strong noise darkens a little
    neighbours = [np.corrcoef(n[:, :-1].ravel(), n[:, 1:].ravel())[0, 1] for n in noises]
    assert np.median(neighbours) > 0.3


def test_a_bayer_sensor_keeps_flat_colours_and_smooths_noise() -> None:
    flat = np.full((12, 12, 3), (0.2, 0.5, 0.7), np.float32)
    noise = np.random.default_rng(0).standard_normal((64, 64, 3)).astype(np.float32)
    for by_difference in (False, True):
        assert np.allclose(demosaic(flat, by_difference=by_difference)[1:-1, 1:-1], flat[1:-1, 1:-1], atol=1e-6)
        assert demosaic(noise, by_difference=by_difference)[..., 1].std() < 0.95
    assert np.allclose(gaussian_blur(flat, 2.0), flat, atol=1e-6)


def test_bundled_networks_stay_within_their_size() -> None:
    for name, recipe in RECIPES.items():
        with torch.device("meta"):
            network = MODULES[type(recipe.config)](recipe.config)
        assert 2 * sum(p.numel() for p in network.parameters()) <= 8e6, name


def test_the_curve_has_a_panel_for_each_measure(tmp_path: Path) -> None:
    lines = [{"step": 1, "seconds": 1, "loss": 0.5}, {"step": 2, "seconds": 60, "loss": 0.4}]
    log = "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 2, "seconds": 60, "q10": 30.1, "q40": 33}])
    (tmp_path / "log.jsonl").write_text(log)
    draw(tmp_path / "log.jsonl", tmp_path / "curve.svg")
    text = (tmp_path / "curve.svg").read_text()
    assert text.count("<polyline") == 3
    assert "q40" in text
