"""HEIC is read at its own depth, or the error names the missing extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from restore_cli.errors import ImageError, OutputError
from restore_cli.image.codec import decode, encode, probe
from restore_cli.image.picture import Picture

HEAD = b"\x00\x00\x00\x18ftyp%s\0\0\0\0%s" + bytes(50)


def smooth(channels: int) -> NDArray[np.uint16]:
    y, x = np.mgrid[:48, :64]
    planes = [x * 1040, y * 1394, 65535 - x * 500, 65535 - y * 700]
    return np.stack(planes[:channels], 2).clip(0, 65535).astype(np.uint16)


@pytest.mark.parametrize("head", [HEAD % (b"heic", b"mif1"), HEAD % (b"mif1", b"heic")])
def test_error_names_the_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "in.heic").write_bytes(head)
    with pytest.raises(
        ImageError, match=r"in\.heic: reading HEIC needs an optional package .*pip install '\.\[heic\]'"
    ):
        probe(tmp_path / "in.heic")


def test_heic_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"HEIC files can be read but not written .*out\.png"):
        encode(Picture(np.zeros((9, 9, 3), np.uint8)), tmp_path / "out.heic")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 10])
def test_heic_is_read_at_its_depth(tmp_path: Path, bits: int, channels: int) -> None:
    library: Any = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    samples = smooth(channels)
    stored = samples if bits > 8 else (samples >> 8).astype(np.uint8)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels] + (";16" if bits > 8 else "")
    image = library.from_bytes(mode=mode, size=(64, 48), data=stored.tobytes())
    image.save(tmp_path / "in.heic", quality=99, chroma=444)
    header, found = probe(tmp_path / "in.heic"), decode(tmp_path / "in.heic")
    assert (header.depth, header.alpha, header.channels) == (16 if bits > 8 else 8, channels == 4, min(channels, 3))
    assert found.pixels.dtype == stored.dtype
    assert np.abs(found.pixels.astype(float) - stored[..., :3]).mean() < (2 if bits == 8 else 400)
    with pytest.raises(ImageError, match="has 64×48 px; the limit is 1,000 px"):
        decode(tmp_path / "in.heic", max_pixels=1000)


@pytest.mark.parametrize("tenth", range(1, 10))
def test_truncated_heic_is_refused(tmp_path: Path, tenth: int) -> None:
    library: Any = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    library.from_bytes(mode="RGB;16", size=(64, 48), data=smooth(3).tobytes()).save(tmp_path / "in.heic")
    data = (tmp_path / "in.heic").read_bytes()
    (tmp_path / "in.heic").write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(ImageError):
        decode(tmp_path / "in.heic")
