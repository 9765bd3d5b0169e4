"""Enlarging a compressed image adds a note that names the command for such images."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from command import Run
from PIL import Image

from restore_cli.jobs.model_cache import suggest_for_compressed
from restore_cli.weights.catalogue import read_catalogue

EXAMPLE = Path(__file__).parents[2] / "examples/cat.png"


def save_example(path: Path, quality: int) -> None:
    """Save the example, 96×64 px, as a JPEG, or as another file of the pixels that such a JPEG has."""
    with Image.open(EXAMPLE) as file:
        file.convert("RGB").resize((96, 64)).save(stream := io.BytesIO(), "JPEG", quality=quality)
    if path.suffix == ".jpg":
        path.write_bytes(stream.getvalue())
    else:
        Image.open(stream).save(path)


@pytest.mark.parametrize(
    ("name", "quality", "found"),
    [
        ("in.jpg", 75, "is a JPEG of quality 75"),
        ("in.jpg", 90, None),
        ("in.png", 30, "has visible blocks of JPEG compression"),
        ("in.png", 95, None),
    ],
)
def test_the_result_of_a_compressed_image_has_a_note(name: str, quality: int, found: str | None, restore: Run) -> None:
    save_example(Path(name), quality)
    ran = restore("sr", "-s", "3", "--tile", "96", name, "-o", "out.png")
    assert ran.code == 0, ran.err
    note = f"the input {found}, and its artefacts are enlarged too (try: restore dejpeg, then restore sr)"
    assert ran.out.rstrip().endswith(f"; {note})") == (found is not None)
    assert ("artefacts" in ran.out) == (found is not None)


def test_a_checkpoint_file_gets_no_note(restore: Run, x2: Path) -> None:
    """What it was trained for is not known."""
    save_example(Path("in.jpg"), 40)
    ran = restore("sr", "--weights", x2, "in.jpg", "-o", "out.png")
    assert (ran.code, ran.err) == (0, "")
    assert "artefacts" not in ran.out


def test_models_for_real_images_get_no_note() -> None:
    catalogue = read_catalogue()
    suggested = {entry.name for entry in catalogue.entries if entry.task == "sr"}
    suggested = {name for name in suggested if suggest_for_compressed(catalogue, name)}
    assert {"emt-x2", "emt-x4", "swinir-classical-x4", "hat-x4"} <= suggested
    assert not [name for name in suggested if "real" in name]
