"""Tiles that overflow in half precision run again in float32, and one file does not end a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from images import make_checkpoint, make_image, save_image
from numpy.typing import NDArray
from PIL import Image
from systems import IMPORT_PATH
from torch import Tensor

from restore_cli.jobs.events import Event, ModelLoaded
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.run import run_job
from restore_cli.jobs.types import Job, ModelOptions
from restore_cli.weights.catalogue import Request, read_catalogue

BLOCK = "layers.0.residual_group.blocks.0"
PRECISIONS = {"fp16": "float16", "bf16": "bfloat16"}
HALVES = pytest.mark.parametrize("precision", ["fp16", "bf16"])
Change = Callable[[dict[str, Tensor]], None]


def only_float32_holds(weights: dict[str, Tensor]) -> None:
    """Give one feature a value beyond float16 and bfloat16. Its weight is zero, so float32 results do not change."""
    for name in ("norm2.weight", "norm2.bias", "mlp.fc1.weight"):
        weights[f"{BLOCK}.{name}"] = weights[f"{BLOCK}.{name}"].float()
    weights[f"{BLOCK}.norm2.weight"][0] = 0
    weights[f"{BLOCK}.norm2.bias"][0] = 3.4e38
    weights[f"{BLOCK}.mlp.fc1.weight"][:, 0] = 0


def nothing_holds(weights: dict[str, Tensor]) -> None:
    """Let a feature overflow in float32, too."""
    weights["conv_first.weight"] = weights["conv_first.weight"].float() * 1e38


def bright_is_too_much(weights: dict[str, Tensor]) -> None:
    """Give one feature 1.3e5 times the difference of red from its mean, which is beyond float16 for white."""
    first = weights["conv_first.weight"] = weights["conv_first.weight"].float()
    first[0] = 0
    first[0, 0, 1, 1] = 1.3e5
    weights["conv_first.bias"][0] = 0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Change], Path]:
    """Return a function that writes the changed weights of a small ×2 network."""
    folder = tmp_path_factory.mktemp("overflowing")
    return lambda change: make_checkpoint(folder / f"{change.__name__}.safetensors", "swinir_lightweight_x2", change)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Save three images, one with transparency, in the current folder, which is a temporary one."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        save_image(Path(f"photos/{name}.png"), make_image(40, 56, seed=ord(name)))
    save_image(Path("photos/c.png"), make_image(40, 56, 4))
    return Path("photos")


def pixels(path: Path | str) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


@HALVES
def test_one_file_has_the_pixels_of_float32(precision: str, restore: Run, weights: Callable[[Change], Path]) -> None:
    save_image(Path("in.png"), make_image(90, 100))
    command = ("sr", "in.png", "--weights", weights(only_float32_holds), "--device", "cpu", "--tile", "40")
    ran = restore(*command, "-o", "half.png", "--precision", precision)
    assert ran.code == 0, ran.err
    assert "; 4 of 25 tiles overflowed and were run again in float32)" in ran.out
    assert ran.err.startswith(f"most tiles overflow in {PRECISIONS[precision]}: going on in float32\n")
    assert restore(*command, "-o", "full.png", "--precision", "fp32").code == 0
    assert np.array_equal(pixels("half.png"), pixels("full.png"))


@HALVES
@pytest.mark.parametrize("batch", [1, 4])
def test_a_folder_is_finished_and_each_picture_has_its_line(
    precision: str, batch: int, restore: Run, photos: Path, weights: Callable[[Change], Path]
) -> None:
    command = ("sr", photos, "--weights", weights(only_float32_holds), "--device", "cpu", "--batch", batch)
    ran = restore(*command, "-o", "half", "--json", "--precision", precision)
    assert ran.code == 0, ran.err
    *each, last = objects(ran.out)
    assert last["summary"]["done"] == 3
    for one, tiles in zip(sorted(each, key=lambda one: str(one["input"])), (1, 1, 2), strict=True):
        assert one["notes"] == [f"{tiles} of {tiles} tiles overflowed and were run again in float32"]
    assert restore(*command, "-o", "full", "--precision", "fp32").code == 0
    for name in "abc":
        assert np.array_equal(pixels(f"half/{name}.png"), pixels(f"full/{name}.png"))


@HALVES
def test_a_folder_goes_on_in_float32_after_four_images_overflowed(
    precision: str, restore: Run, weights: Callable[[Change], Path]
) -> None:
    """A GPU whose float16 is broken would otherwise restore each image twice."""
    for i in range(8):
        save_image(Path(f"photos/{i}.png"), make_image(40, 56, seed=i))
    command = ("sr", "photos", "--weights", weights(only_float32_holds), "--device", "cpu")
    ran = restore(*command, "-o", "half", "--json", "--precision", precision)
    assert ran.code == 0, ran.err
    assert ran.err.count(f"most tiles overflow in {PRECISIONS[precision]}: going on in float32") == 1
    each = sorted(objects(ran.out)[:-1], key=lambda one: str(one["input"]))
    assert [bool(one["notes"]) for one in each] == [True] * 4 + [False] * 4
    assert [one["precision"] for one in each[4:]] == ["fp32"] * 4
    assert restore(*command, "-o", "full", "--precision", "fp32").code == 0
    for i in range(8):
        assert np.array_equal(pixels(f"half/{i}.png"), pixels(f"full/{i}.png"))


@pytest.mark.parametrize("batch", [1, 4])
def test_only_the_picture_that_overflowed_has_the_note(
    batch: int, restore: Run, weights: Callable[[Change], Path]
) -> None:
    for name, level in (("a", 110), ("b", 255), ("c", 120)):
        save_image(Path(f"photos/{name}.png"), np.full((40, 56, 3), level, np.uint8))
    command = ("sr", "photos", "--weights", weights(bright_is_too_much), "--device", "cpu", "--batch", batch)
    ran = restore(*command, "-o", "out", "--json", "--precision", "fp16")
    assert ran.code == 0, ran.err
    noted = {Path(one["input"]).stem: bool(one["notes"]) for one in objects(ran.out)[:-1]}
    assert noted == {"a": False, "b": True, "c": False}


def test_the_note_counts_every_page(restore: Run, weights: Callable[[Change], Path]) -> None:
    pages = [Image.fromarray(np.full((40, 56, 3), level, np.uint8)) for level in (255, 110, 255, 110)]
    pages[0].save("in.tif", save_all=True, append_images=pages[1:])
    command = ("sr", "in.tif", "--weights", weights(bright_is_too_much), "--device", "cpu", "--json")
    ran = restore(*command, "--precision", "fp16")
    assert ran.code == 0, ran.err
    assert objects(ran.out)[0]["notes"] == ["2 of 4 tiles overflowed and were run again in float32"]


@HALVES
@pytest.mark.parametrize("named", ["photos", "photos/a.png"])
def test_overflow_in_float32_fails_each_picture_in_one_line(
    precision: str, named: str, restore: Run, photos: Path, weights: Callable[[Change], Path]
) -> None:
    command = ("sr", named, "--weights", weights(nothing_holds), "--device", "cpu", "--precision", precision)
    ran = restore(*command, "-o", "out", "--json")
    assert ran.code == 1
    *each, last = objects(ran.out)
    assert last["summary"]["failed"] == len(each) == (3 if named == "photos" else 1)
    assert all("not finite, even in float32" in one["error"] for one in each)
    plain = restore(*command, "-o", "out")
    assert plain.code == 1
    assert "photos/a.png: the output of the model is not finite, even in float32" in plain.err
    assert not [path for path in Path("out").rglob("*") if path.suffix in (".png", ".part")]


def test_a_checkpoint_that_changes_during_a_run_fails_only_images_that_need_it_again(
    photos: Path, weights: Callable[[Change], Path], tmp_path: Path
) -> None:
    """bfloat16 keeps no float32 weights, so the checkpoint is read again for a tile that overflows."""
    file = Path(shutil.copy(weights(only_float32_holds), tmp_path / "own.safetensors"))

    def change(event: Event) -> None:
        if isinstance(event, ModelLoaded):
            file.touch()

    options = ModelOptions(Request("sr", scale=2), read_catalogue(), weights=file, device="cpu", precision="bf16")
    results = list(run_job(Job(options, InputSpec((str(photos),)), "out"), change))
    assert [result.status for result in results] == ["failed"] * 3
    for result in results:
        assert f"a tile overflows in bfloat16, and the weights cannot be loaded in float32: {file}" in str(result.error)


def test_the_command_goes_on_after_an_overflow(tmp_path: Path, weights: Callable[[Change], Path]) -> None:
    for name in "ab":
        save_image(tmp_path / f"photos/{name}.png", make_image(40, 56))
    command = [sys.executable, "-m", "restore_cli", "sr", "photos", "-o", "out", "--weights"]
    command += [str(weights(only_float32_holds)), "--device", "cpu", "--precision", "fp16"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": IMPORT_PATH}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 of 1 tiles overflowed and were run again in float32") == 2
    assert pixels(tmp_path / "out/b.png").shape == (80, 112, 3)


@HALVES
def test_published_weights_that_overflow_restore_a_picture(precision: str, restore: Run, shared: Path) -> None:
    state = torch.load(shared / "checkpoints/EMT_LSR_x2.pth", weights_only=True)["params"]
    state["head.weight"] *= 3e6
    torch.save(state, "emt.pth")
    save_image(Path("in.png"), make_image(64, 64))
    command = ("sr", "in.png", "--weights", "emt.pth", "--device", "cpu", "--precision")
    ran = restore(*command, precision, "-o", "half.png")
    assert ran.code == 0, ran.err
    assert ("overflowed and were run again in float32" in ran.out) == (precision == "fp16")
