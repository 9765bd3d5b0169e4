"""Premultiplied colours are divided by alpha exactly once, with every version of libvips."""

from __future__ import annotations

import io
import json
import struct
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from command import Run
from numpy.typing import NDArray
from PIL import Image
from raw_tiff import HEIGHT, SHORT, WIDTH, Order, tiff

from restore_cli.errors import ImageError
from restore_cli.image.codec import decode
from restore_cli.image.formats.patched import Patch, PatchedFile

Array = NDArray[Any]
PEAK = {"uint8": 255, "uint16": 65535, "float32": 1}


def premultiplied(kind: str, channels: int) -> Array:
    """Return (h, w, c + alpha) with all 8-bit alpha values, and some colours brighter than alpha allows."""
    random = np.random.default_rng(1)
    alpha = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 256 / 255
    values = np.concatenate([random.random((HEIGHT, WIDTH, channels)) * np.minimum(1, alpha * 1.1), alpha], 2)
    return values.astype(kind) if kind == "float32" else np.rint(values * PEAK[kind]).astype(kind)


def straight(stored: Array, white_is_zero: bool = False) -> Array:
    """Divide colours by alpha in exact arithmetic, rounded once, half to even."""
    peak = PEAK[str(stored.dtype)]

    def colour(value: Any, alpha: Any) -> Any:  # noqa: ANN401  # a number of the kind
        divided = Fraction(float(value)) * peak / Fraction(float(alpha)) if alpha else Fraction(0)
        found = peak - divided if white_is_zero else divided
        return float(found) if stored.dtype == np.float32 else round(min(max(found, Fraction(0)), Fraction(peak)))

    colours = [[[colour(v, px[-1]) for v in px[:-1]] for px in row] for row in stored]
    return np.concatenate([np.array(colours).astype(stored.dtype), stored[..., -1:]], 2)


def read(file: Path | io.BytesIO) -> Array:
    """Decode a file to (h, w, c + alpha)."""
    picture = decode(file)
    assert picture.alpha is not None
    return np.dstack([picture.pixels, picture.alpha])


@pytest.mark.parametrize("tiled", [False, True], ids=["strips", "tiles"])
@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "rgb"])
@pytest.mark.parametrize("kind", PEAK)
def test_associated_alpha_of_a_tiff_is_divided_once(tmp_path: Path, kind: str, channels: int, tiled: bool) -> None:
    stored, file = premultiplied(kind, channels), tmp_path / "in.tif"
    expected, photometric = straight(stored), 2 if channels == 3 else 1
    orders: tuple[Order, ...] = "<", ">"
    for order, big in product(orders, (False, True)):
        file.write_bytes(tiff(stored, photometric, extra=1, tiled=tiled, order=order, big=big))
        assert np.array_equal(tifffile.imread(file), stored)  # another reader agrees
        assert np.array_equal(read(file), expected)
        assert np.array_equal(read(io.BytesIO(file.read_bytes())), expected)
    file.write_bytes(tiff(stored, photometric, extra=2, tiled=tiled))
    assert np.array_equal(read(file), stored)


def test_one_pixel_is_divided_as_computed_by_hand(tmp_path: Path) -> None:
    stored = np.broadcast_to(np.array([65, 60, 70, 129], np.uint8), (HEIGHT, WIDTH, 4))
    (tmp_path / "in.tif").write_bytes(tiff(stored, 2, extra=1))
    assert read(tmp_path / "in.tif")[0, 0].tolist() == [128, 119, 138, 129]  # 65 · 255 / 129 = 128.49


@pytest.mark.parametrize("kind", PEAK)
def test_planes_and_rotated_pictures_are_divided_once(tmp_path: Path, kind: str) -> None:
    stored, file = premultiplied(kind, 3), tmp_path / "in.tif"
    file.write_bytes(tiff(stored, 2, extra=1, planes=True))
    assert np.array_equal(read(file), straight(stored))
    file.write_bytes(tiff(stored, 2, extra=1, orientation=6))
    assert np.array_equal(read(file), np.rot90(straight(stored), -1))


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_inverted_gray_is_divided_as_stored(tmp_path: Path, kind: str) -> None:
    stored = premultiplied(kind, 1)
    (tmp_path / "in.tif").write_bytes(tiff(stored, 0, extra=1))
    assert np.array_equal(read(tmp_path / "in.tif"), straight(stored, white_is_zero=True))


def test_command_reads_divided_colours(restore: Run) -> None:
    stored = premultiplied("uint8", 3)
    Path("in.tif").write_bytes(tiff(stored, 2, extra=1))
    Image.fromarray(straight(stored)[..., :3]).save("reference.png")
    ran = restore("eval", "--restored", "in.tif", "--reference", "reference.png", "--json")
    assert (ran.code, json.loads(ran.out.splitlines()[0])["psnr"]) == (0, None)  # equal


@pytest.mark.parametrize("bits", [10, 12])
def test_premultiplied_colours_of_a_deep_avif_are_divided_once(tmp_path: Path, bits: int) -> None:
    colours = np.full((32, 32, 3), (52000, 20000, 8000))
    alpha = np.linspace(20000, 65535, 32 * 32).reshape(32, 32, 1)
    stored = np.concatenate([colours * alpha / 65535, alpha], 2).astype(np.uint16)
    image = pyvips.Image.new_from_array(stored).copy(interpretation="rgb16")
    image.set_type(pyvips.GValue.blob_type, "xmp-data", b"<x/>")
    data = bytearray(image.heifsave_buffer(compression="av1", bitdepth=bits, lossless=True))
    auxiliary, described = data.index(b"auxl"), data.index(b"cdsc")
    alpha_item, _, main_item = struct.unpack_from(">HHH", data, auxiliary + 4)
    data[described : described + 10] = b"prem" + struct.pack(">HHH", main_item, 1, alpha_item)
    (tmp_path / "in.avif").write_bytes(data)
    found = read(tmp_path / "in.avif")
    assert found.dtype == np.uint16
    assert np.abs(found[..., :3].astype(float) - colours).max() < 4 * 65535 / 2**bits


@pytest.mark.parametrize("offset", [0, 3, 9, 10, 12])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_patch_replaces_bytes_for_any_read_size(offset: int, size: int) -> None:
    whole = bytes(range(12))
    file = PatchedFile(io.BytesIO(whole), Patch(offset, b"xyz"))
    found = b"".join(iter(lambda: file.read(size), b""))
    assert found == (whole[:offset] + b"xyz" + whole[offset + 3 :])[:12]
    assert file.seek(offset) == offset
    assert file.read(2) == b"xyz"[: max(0, 12 - offset)][:2]


def test_invalid_offset_gives_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole, kinds = tiff(premultiplied("uint8", 3), 2, extra=1, big=True), struct.pack("<HHQ", 339, SHORT, 4)
    many = struct.pack("<HHQ", 339, SHORT, 50_000)  # the four sample formats are then read as an offset
    (tmp_path / "in.tif").write_bytes(whole.replace(kinds, many))
    with pytest.raises(ImageError, match=r"in\.tif: damaged"):
        decode(tmp_path / "in.tif")
    assert capfd.readouterr() == ("", "")
    with (tmp_path / "in.tif").open("rb") as stream:
        assert [PatchedFile(file, Patch(0, b"")).seek(-5) for file in (stream, io.BytesIO())] == [-1, -1]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that cannot be read")
def test_read_error_ends_the_file() -> None:
    with Path("/proc/self/mem").open("rb") as stream:  # its first page is never mapped
        assert PatchedFile(stream, Patch(0, b"x")).read(10) == b""
