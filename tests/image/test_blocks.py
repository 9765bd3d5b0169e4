"""Blocks of JPEG are found in any file, and not in images that were never compressed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from images import make_image
from numpy.typing import NDArray
from PIL import Image

from restore_cli.image.blocks import BlockDetector, describe_compression
from restore_cli.image.source import open_source

Bytes = NDArray[np.uint8]
EXAMPLE = Path(__file__).parents[2] / "examples/cat.png"


@pytest.fixture(scope="module")
def photo() -> Bytes:
    """A photograph without blocks of its own: the example made half as large."""
    with Image.open(EXAMPLE) as file:
        small = file.convert("RGB")
        return np.asarray(small.resize((small.width // 2, small.height // 2), Image.Resampling.BICUBIC))


def compress(image: Bytes, quality: int) -> Bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def has_blocks(image: NDArray[np.uint8] | NDArray[np.uint16], rows: int = 1000) -> bool:
    detector = BlockDetector(image.shape[2])
    for top in range(0, len(image), rows):
        detector.add(image[top : top + rows])
    return detector.found


def test_only_a_compressed_image_has_blocks(photo: Bytes) -> None:
    assert not has_blocks(photo)
    assert not has_blocks(compress(photo, 95))
    assert has_blocks(compress(photo, 40))


@pytest.mark.parametrize("left", range(0, 8, 3))
@pytest.mark.parametrize("top", [0, 5])
def test_blocks_are_found_after_cropping(top: int, left: int, photo: Bytes) -> None:
    assert has_blocks(compress(photo, 40)[top:, left:])


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64])
def test_the_size_of_the_strips_does_not_matter(rows: int, photo: Bytes) -> None:
    whole, strips = BlockDetector(3), BlockDetector(3)
    whole.add(photo)
    for top in range(0, len(photo), rows):
        strips.add(photo[top : top + rows])
    np.testing.assert_allclose(strips.sums, whole.sums, rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(strips.counts, whole.counts)


def test_depth_and_channels_do_not_matter(photo: Bytes) -> None:
    damaged = compress(photo, 40)
    assert has_blocks(damaged.astype(np.uint16) * 257)
    assert has_blocks(damaged[..., 1:2])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (9, 2), (3, 3)])
def test_small_images_have_none(height: int, width: int) -> None:
    assert not has_blocks(make_image(height, width))


def test_chance_makes_no_blocks_in_small_images(photo: Bytes) -> None:
    starts = [(top, left) for top in range(0, len(photo) - 32, 4) for left in range(0, photo.shape[1] - 40, 4)]
    assert len(starts) > 100
    assert not [start for start in starts if has_blocks(photo[start[0] :, start[1] :][:32, :40])]


@pytest.mark.parametrize(("quality", "expected"), [(95, None), (85, None), (75, "is a JPEG of quality 75")])
def test_a_jpeg_file_is_judged_by_its_quality(quality: int, expected: str | None, photo: Bytes, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "in.jpg", quality=quality)
    assert describe_compression(open_source(tmp_path / "in.jpg")) == expected


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_other_files_are_judged_by_their_pixels(suffix: str, photo: Bytes, tmp_path: Path) -> None:
    found = []
    for image in (photo, compress(photo, 40)):
        Image.fromarray(image).save(tmp_path / f"in.{suffix}", quality=100)
        found.append(describe_compression(open_source(tmp_path / f"in.{suffix}")))
    assert found == [None, "has visible blocks of JPEG compression"]
