"""The choice of the checkpoint for an image."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from command import Run
from golden_files import read_golden
from images import make_checkpoint, make_image, save_image
from PIL import Image


def entry(name: str, toy: str, **facts: object) -> str:
    """Return a catalogue entry for a golden network. Its file is in the cache."""
    file = make_checkpoint(Path(".cache", f"{name}.safetensors"), toy)
    architecture, config, *_ = read_golden(toy)
    source = '{ url = "http://127.0.0.1:9/x.safetensors" }'
    lines = [f"[{name}]", f'title = "{name}"', 'model = "toy"', 'license = "none"', f"sources = [{source}]"]
    lines += [f'sha256 = "{hashlib.sha256(file.read_bytes()).hexdigest()}"', 'variant = "usual"']
    lines += [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
    lines += [f"[{name}.{architecture}]", *(f"{key} = {json.dumps(value)}" for key, value in config.items())]
    return "\n".join(lines) + "\n"


@pytest.fixture
def toys(restore: Run) -> Run:
    """Return the command with a catalogue of small networks that are all on disk."""
    Path(".cache").mkdir()
    Path("toys.toml").write_text(
        entry("toy-color", "swinir_color_denoise", task="denoise", noise="25")
        + entry("toy-gray", "swinir_gray_denoise", task="denoise", noise="25")
        + entry("toy-jpeg-10", "swinir_color_jpeg", task="dejpeg", quality=10)
        + entry("toy-jpeg-40", "swinir_color_jpeg", task="dejpeg", quality=40)
    )
    return lambda *argv: restore(*argv, "--model", "toy", "--catalogue", "toys.toml")


def test_gray_images_use_the_gray_checkpoint(toys: Run) -> None:
    save_image(Path("gray.png"), make_image(9, 9, 1))
    save_image(Path("color.png"), make_image(9, 9))
    ran = toys("denoise", "gray.png", "color.png")
    assert ran.code == 0, ran.err
    assert [line.split("(")[1].split(",")[0] for line in ran.out.splitlines()] == ["toy-gray", "toy-color"]
    with Image.open("gray_denoise.png") as image:
        assert image.mode == "L"


@pytest.mark.parametrize(("quality", "taken"), [(5, 10), (18, 10), (30, 40), (95, 40)])
def test_jpeg_repair_uses_the_checkpoint_nearest_to_the_quality_of_the_file(
    quality: int, taken: int, toys: Run
) -> None:
    Image.fromarray(make_image(40, 40)).save("in.jpg", quality=quality)
    assert f"toy-jpeg-{taken}" in toys("dejpeg", "in.jpg").out


def test_quality_overrides_the_quality_of_the_file(toys: Run) -> None:
    Image.fromarray(make_image(40, 40)).save("in.jpg", quality=95)
    assert "toy-jpeg-10" in toys("dejpeg", "in.jpg", "--quality", "12").out


@pytest.mark.parametrize("size", ["1.5", "G", "0G", "-1G", "1.5X", "nanG", "infG", f"{10**400}G"])
def test_memory_must_be_a_size(size: str, restore: Run, x1: Path) -> None:
    ran = restore("denoise", "--weights", x1, "in.png", "--memory", size)
    assert (ran.code, ran.out) == (2, "")
    assert "expected a size (try: --memory 1.5G)" in ran.err


def test_a_model_stays_within_memory(restore: Run, x1: Path) -> None:
    save_image(Path("in.png"), make_image(700, 700))
    tiles = []
    for words in (("--memory", "30M"), ()):
        ran = restore("denoise", "--weights", x1, "in.png", "--json", "--overwrite", *words)
        assert ran.code == 0, ran.err
        tiles.append(json.loads(ran.out.splitlines()[0])["tile"])
    assert tiles[0] < tiles[1] == 512
