"""Bundled checkpoints work without a network and without a cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from command import Run
from images import make_image, save_image
from PIL import Image
from safetensors import safe_open

from restore_cli.models.load import build_module, load_entry
from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.entry import Entry
from restore_cli.weights.store import BUNDLED

BUNDLED_ENTRIES = [entry for entry in read_catalogue().entries if entry.bundled]
CARDS = Path(__file__).parents[2] / "docs/model-cards"


def test_every_bundled_file_has_its_entry_and_is_small() -> None:
    files = sorted(BUNDLED.glob("*.safetensors"))
    assert [file.stem for file in files] == sorted(entry.name for entry in BUNDLED_ENTRIES)
    assert sum(file.stat().st_size for file in files) <= 25e6


@pytest.mark.parametrize("entry", BUNDLED_ENTRIES, ids=lambda entry: entry.name)
def test_the_catalogue_agrees_with_the_bundled_file(entry: Entry) -> None:
    data = (BUNDLED / f"{entry.name}.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry.sha256
    assert len(data) == entry.bytes
    load_entry(entry, BUNDLED / f"{entry.name}.safetensors", torch.device("cpu"), torch.float32)
    published = build_module(entry.architecture, entry.config)
    assert sum(p.numel() for p in published.parameters()) == entry.parameters
    assert len(data) <= 8e6
    assert (CARDS / f"{entry.name if entry.model == 'lite' else entry.model}.md").is_file()


@pytest.mark.parametrize("entry", [e for e in BUNDLED_ENTRIES if e.model != "lite"], ids=lambda entry: entry.name)
def test_a_bundled_file_of_other_authors_states_its_origin_and_licence(entry: Entry) -> None:
    assert entry.origin is not None
    with safe_open(BUNDLED / f"{entry.name}.safetensors", "pt") as file:
        about = file.metadata()
    assert (about["origin"], about["origin_sha256"]) == (entry.origin.url, entry.origin.sha256)
    assert (about["architecture"], json.loads(about["config"])) == (
        entry.architecture,
        json.loads(json.dumps(dict(entry.config))),
    )
    licence = (BUNDLED / f"LICENSE-{entry.model.upper()}").read_text(encoding="utf-8")
    assert licence.startswith(f"{entry.license} License\n\n{about['license'].removeprefix(f'{entry.license}, ')}\n")
    assert entry.origin.sha256 in (CARDS / f"{entry.model}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_sr_works_offline_and_names_the_larger_ones(scale: int, restore: Run) -> None:
    save_image(Path("in.png"), make_image(16, 24))
    save_image(Path("gray.png"), make_image(16, 24, 1))
    ran = restore("sr", "in.png", "gray.png", "-s", scale)
    assert ran.code == 0, ran.err
    assert f"emt-x{scale}" in ran.out
    assert ran.err.count("larger: ") == 1
    assert "--model swinir" in ran.err
    with Image.open(f"in_sr{scale}.png") as image:
        assert image.size == (24 * scale, 16 * scale)


@pytest.mark.parametrize("task", ["denoise", "dejpeg"])
def test_other_tasks_work_offline_too(task: str, restore: Run) -> None:
    Image.fromarray(make_image(40, 56)).save("in.jpg", quality=30)
    ran = restore(task, "in.jpg")
    assert ran.code == 0, ran.err
    assert f"lite-{task}" in ran.out
    assert "--model" in ran.err
    with Image.open(f"in_{task}.jpg") as image:
        assert image.size == (56, 40)


def test_a_model_that_is_named_is_not_replaced_by_a_bundled_one(restore: Run) -> None:
    save_image(Path("in.png"), make_image(16, 24))
    assert restore("sr", "in.png", "--model", "hat").code == 4
    assert not Path("in_sr4.png").exists()


def test_naming_a_bundled_model_prints_no_advice(restore: Run) -> None:
    save_image(Path("in.png"), make_image(16, 24))
    ran = restore("sr", "in.png", "--model", "emt")
    assert (ran.code, ran.err) == (0, "")


def test_an_unsafe_cache_is_one_line_and_bundled_models_work_without_it(restore: Run) -> None:
    Path(".cache").mkdir()
    Path(".cache").chmod(0o777)
    save_image(Path("in.png"), make_image(8, 8))
    for command in (("models", "pull", "hat-x4"), ("models", "path", "hat-x4"), ("sr", "--model", "hat", "in.png")):
        ran = restore(*command)
        assert (ran.code, ran.out) == (4, "")
        assert "every user of this machine may write to it (try: chmod o-w " in ran.err
        assert ran.err.count("\n") == 1
    assert restore("denoise", "--model", "lite", "in.png").code == 0
    assert restore("sr", "in.png").code == 0
    assert list(Path(".cache").iterdir()) == []
