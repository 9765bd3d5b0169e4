"""Training refuses benchmarks, starts as an interpolation, and a run cut in two is the run not cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

from restore_cli.degrade import imresize
from restore_cli.errors import UsageError
from restore_cli.metrics import psnr
from restore_cli.models.restormer import Restormer, RestormerConfig
from restore_cli.models.swinir import SwinIR, SwinIRConfig
from training.curve import draw
from training.data import Compression, Noise, Shrinking, as_floats, batch, read_photos, to_tensor
from training.export import export
from training.network import build, initialise, interpolate
from training.recipe import RECIPES, Recipe
from training.train import Plan, Run, train

TINY = SwinIRConfig(2, 3, 8, (1,), (2,), 8, 2, "pixelshuffledirect", "1conv", 1)


def tiny_sr() -> Recipe:
    return replace(RECIPES["lite-sr"], config=TINY, scales=(2, 3), patch=8, batch=2)


def picture(seed: int, side: int = 64) -> NDArray[np.uint8]:
    """Something with edges and gradients."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return imresize(coarse, (side, side))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        Image.fromarray(picture(i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "lite-sr", tiny_sr())
    monkeypatch.setitem(RECIPES, "lite-sr-x2", replace(tiny_sr(), scales=(2,), start="lite-sr"))


@pytest.mark.usefixtures("recipes")
def test_a_run_stopped_and_resumed_is_the_run_not_stopped(photos: Path, tmp_path: Path) -> None:
    whole = train(Plan("lite-sr", photos, tmp_path / "a", steps=4))
    train(Plan("lite-sr", photos, tmp_path / "b", steps=4, stop=2))
    resumed = train(Plan("lite-sr", photos, tmp_path / "b", steps=4))
    assert whole.step == resumed.step == 4
    for part in ("networks", "average"):
        expected, found = getattr(whole, part).state_dict(), getattr(resumed, part).state_dict()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert {path.name for path in (tmp_path / "b/lite-sr").iterdir()} == {"state.pt", "log.jsonl", "curve.svg"}


@pytest.mark.usefixtures("recipes")
def test_one_scale_starts_from_the_joint_run_and_is_exported_in_half_precision(photos: Path, tmp_path: Path) -> None:
    joint = train(Plan("lite-sr", photos, tmp_path, steps=1))
    run = Run(RECIPES["lite-sr-x2"], Plan("lite-sr-x2", photos, tmp_path, steps=1))
    run.begin(Shrinking(read_photos(photos), (2,), 8))
    expected = joint.average["x2"].state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in run.networks["x2"].state_dict().items())
    run.save()
    files = export("lite-sr-x2", tmp_path, tmp_path / "out") + export("lite-sr", tmp_path, tmp_path / "out")
    assert [file.name for file in files] == [f"{n}.safetensors" for n in ("lite-sr-x2", "lite-sr-x2", "lite-sr-x3")]
    with safe_open(files[-1], "pt") as file:
        config = json.loads(file.metadata()["config"])
        network = SwinIR(SwinIRConfig(**config))
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert config["scale"] == 3
    assert all(value.dtype == torch.float16 for value in tensors.values())
    network.load_state_dict(tensors)


def test_bench_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bench" / "Set5"
    folder.mkdir(parents=True)
    Image.fromarray(picture(0)).save(folder / "baby.png")
    with pytest.raises(UsageError, match="never trained on"):
        read_photos(folder)
    (tmp_path / "innocent").symlink_to(folder)
    with pytest.raises(UsageError, match="never trained on"):
        read_photos(tmp_path / "innocent")
    with pytest.raises(UsageError, match="no photographs"):
        read_photos(tmp_path / "nothing")


def test_scales_share_their_body_and_nothing_else() -> None:
    networks = build(tiny_sr())
    assert networks["x2"].layers is networks["x3"].layers
    assert networks["x2"].upsample is not networks["x3"].upsample
    alone = sum(p.numel() for p in SwinIR(TINY).parameters())
    third = networks["x3"]
    assert isinstance(third, SwinIR)
    heads = sum(p.numel() for p in third.upsample.parameters())
    assert sum(p.numel() for p in networks.parameters()) == alone + heads


def test_a_fresh_super_resolution_network_interpolates() -> None:
    large = np.stack([picture(i) for i in range(6)])
    small = np.stack([imresize(image, 0.5) for image in large])
    networks = build(replace(tiny_sr(), scales=(2,)))
    network = networks["x2"]
    assert isinstance(network, SwinIR)
    initialise(networks)
    interpolate(network, small, large)
    with torch.no_grad():
        out = network(to_tensor(as_floats(small[:1])))[0].permute(1, 2, 0).numpy()
    nearest = small[0].repeat(2, 0).repeat(2, 1)
    assert psnr(out, as_floats(large[0]), border=4, peak=1) > psnr(nearest, large[0], border=4) + 10


@pytest.mark.parametrize("kind", [Noise, Compression])
def test_restoration_batches_depend_on_the_step_alone(kind: type[Noise] | type[Compression]) -> None:
    source = kind(np.stack([picture(i) for i in range(4)]), 32)
    recipe = replace(RECIPES["lite-denoise"], patch=32, batch=3)
    one, again, other = (batch(recipe, source, step, 0) for step in (5, 5, 6))
    assert one.spoiled.shape == one.clean.shape == (3, 3, 32, 32)
    assert torch.equal(one.spoiled, again.spoiled)
    assert not torch.equal(one.spoiled, other.spoiled)
    assert (one.spoiled - one.clean).abs().mean() < 0.2


def test_super_resolution_patches_lie_over_each_other() -> None:
    source = Shrinking(np.stack([picture(i, 60) for i in range(4)]), (2, 3), 12)
    for scale in (2, 3):
        spoiled, clean = source.pair(np.random.default_rng(1), scale)
        assert clean.shape == (12 * scale, 12 * scale, 3)
        again = as_floats(imresize(np.rint(clean * 255).astype(np.uint8), 1 / scale))
        assert np.abs(again - spoiled)[3:-3, 3:-3].max() < 0.02


def test_what_is_bundled_keeps_to_its_size() -> None:
    limits = {"lite-sr-x2": 1e6, "lite-sr-x3": 1e6, "lite-sr-x4": 1e6, "lite-denoise": 2e6, "lite-dejpeg": 1e6}
    total = 0
    for name, limit in limits.items():
        config = RECIPES[name].config
        with torch.device("meta"):
            network = Restormer(config) if isinstance(config, RestormerConfig) else SwinIR(config)
        count = sum(p.numel() for p in network.parameters())
        assert count <= limit, name
        total += 2 * count
    assert total < 14e6


def test_the_curve_has_a_panel_per_measure(tmp_path: Path) -> None:
    lines = [{"step": 1, "seconds": 1, "loss": 0.5}, {"step": 2, "seconds": 60, "loss": 0.4}]
    log = "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 2, "seconds": 60, "q10": 30.1, "q40": 33}])
    (tmp_path / "log.jsonl").write_text(log)
    draw(tmp_path / "log.jsonl", tmp_path / "curve.svg")
    text = (tmp_path / "curve.svg").read_text()
    assert text.count("<polyline") == 3
    assert "q40" in text
