"""The script makes the bundled EMT checkpoints from the authors' files, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from restore_cli.errors import UsageError
from restore_cli.weights.store import BUNDLED
from training.convert_emt import convert, main
from training.export import serialize


def test_equal_contents_give_equal_bytes() -> None:
    about = {name: name for name in "abcdefgh"}
    tensors = {"b": torch.arange(3.0), "a": torch.arange(4).half()}
    backwards = dict(reversed(list(about.items()))), dict(reversed(list(tensors.items())))
    files = {serialize(tensors, about) for _ in range(5)} | {serialize(backwards[1], backwards[0])}
    assert len(files) == 1


def test_the_bundled_files_are_made_again_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    main([*(str(shared / f"checkpoints/EMT_LSR_x{scale}.pth") for scale in (2, 3, 4)), "--to", str(tmp_path)])
    for scale in (2, 3, 4):
        name = f"emt-x{scale}.safetensors"
        assert (tmp_path / name).read_bytes() == (BUNDLED / name).read_bytes()


def test_a_file_that_is_not_an_origin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(UsageError, match=r"other\.pth: its sha256 d9298a10d1b0… is not the origin of any entry"):
        convert(tmp_path / "other.pth")
