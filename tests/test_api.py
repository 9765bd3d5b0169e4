"""The library, as the README shows it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from images import make_checkpoint, make_image

import restore_cli
from restore_cli.errors import UsageError

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_lines_in_readme_run(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    block = re.search(r"## Library\n\n```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    assert '"emt-x4"' in block[1]
    scope = {"image": make_image(10, 12)}
    exec(block[1].replace("emt-x4", path.as_posix()), scope)
    assert scope["large"].shape == (20, 24, 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3)])
def test_dtype_and_axes_are_kept(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    model = restore_cli.load(make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2"), device="cpu")
    out = restore_cli.restore(model, np.zeros(shape, dtype), tile=0)
    assert out.dtype == dtype
    assert out.shape == (18, 14, *shape[2:])


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(image: np.ndarray, tmp_path: Path) -> None:
    model = restore_cli.load(make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2"), device="cpu")
    with pytest.raises(ValueError, match="not uint8, uint16 or float32"):
        restore_cli.restore(model, image)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="emt-x4"):
        restore_cli.load("emt-x44")
