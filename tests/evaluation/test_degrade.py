"""The standard degradations: MATLAB's bicubic to the bit, numpy's legacy noise, libjpeg."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from restore_cli.evaluation.degrade import add_noise, compress_jpeg, imresize
from restore_cli.evaluation.metrics import psnr

SET5 = Path(__file__).parents[3] / "shared/bench/Set5"
Bytes = NDArray[np.uint8]


def make_ramp(height: int, width: int) -> Bytes:
    """Return a smooth colour image."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * y / height, 255 * x / width, 127 + 90 * np.sin(x / 9) * np.cos(y / 7)], 2).astype(np.uint8)


@pytest.mark.skipif(not SET5.is_dir(), reason="the Set5 images are not in ../shared/bench")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_imresize_makes_the_official_low_resolution_images_bit_for_bit(scale: int) -> None:
    files = sorted((SET5 / "HR").glob("*.png"))
    assert len(files) == 5
    for file in files:
        whole = np.asarray(Image.open(file).convert("RGB"))
        height, width = (side - side % scale for side in whole.shape[:2])
        official = SET5 / f"LR_bicubic/X{scale}/{file.stem}x{scale}.png"
        expected = np.asarray(Image.open(official).convert("RGB"))
        assert np.array_equal(imresize(whole[:height, :width], Fraction(1, scale)), expected), file.name


def test_imresize_by_half_uses_the_kernel_of_keys() -> None:
    row = np.array([[0, 0, 0, 200, 200, 200, 200, 200]], dtype=np.uint8)
    # The weights are −3, −9, 29, 111, 111, 29, −9, −3 of 256. Output 0 sees 200 through −9 and −3 only and is clipped,
    # output 1 through 111, 29, −9, −3, output 2 through all but −3 and −9, output 3 through all.
    expected = [0, round(200 * 128 / 256), round(200 * 268 / 256), 200]
    assert imresize(np.repeat(row, 8, axis=0), 0.5).tolist() == [expected] * 4
    assert imresize(np.repeat(row.T, 8, axis=1), 0.5).T.tolist() == [expected] * 4


@pytest.mark.parametrize("to", [0.5, 1 / 3, Fraction(1, 4), 2, 3.0, (5, 40)])
def test_a_flat_image_stays_flat_and_a_transposed_one_transposes(to: float | Fraction | tuple[int, int]) -> None:
    flat = np.full((24, 36, 3), 77, dtype=np.uint8)
    assert np.all(imresize(flat, to) == 77)
    if isinstance(to, tuple):
        assert imresize(flat, to).shape == (5, 40, 3)
    else:
        assert imresize(flat, to).shape == (round(24 * to), round(36 * to), 3)


def test_imresize_rounds_sides_up_and_refuses_other_types() -> None:
    assert imresize(make_ramp(256, 7), Fraction(1, 3)).shape == (86, 3, 3)
    assert imresize(make_ramp(255, 9), 1 / 3).shape == (85, 3, 3)
    assert imresize(make_ramp(3, 1)[..., 0], 2).shape == (6, 2)
    assert psnr(imresize(imresize(make_ramp(48, 60), 2), 0.5), make_ramp(48, 60)) > 45
    with pytest.raises(ValueError, match="uint8"):
        imresize(np.zeros((4, 4)), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 px"):
        imresize(make_ramp(4, 4), (0, 3))


def test_noise_comes_from_the_legacy_generator_and_is_not_clipped() -> None:
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    noisy = add_noise(image, 25.5)
    assert noisy.dtype == np.float32
    first = np.array([1.76405235, 0.40015721, 0.97873798, 2.2408932])  # of np.random.seed(0); np.random.normal(0, 1)
    assert np.allclose(noisy.ravel()[:4], 0.1 * first)
    assert np.array_equal(noisy, add_noise(image, 25.5, seed=0))
    assert not np.array_equal(noisy, add_noise(image, 25.5, seed=1))
    assert np.array_equal(add_noise(make_ramp(4, 4), 0), make_ramp(4, 4).astype(np.float32) / 255)
    assert noisy.min() < 0


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float64])
def test_only_8_bit_images_are_degraded(kind: type) -> None:
    deep: Any = np.zeros((16, 16, 3), kind)
    for degrade in (partial(imresize, to=0.5), partial(add_noise, sigma=25), partial(compress_jpeg, quality=50)):
        with pytest.raises(ValueError, match=f"expected uint8, found {kind.__name__}"):
            degrade(deep)


def test_noise_does_not_change_the_global_generator() -> None:
    np.random.seed(3)
    expected = np.random.normal()
    np.random.seed(3)
    add_noise(make_ramp(4, 4), 25)
    assert np.random.normal() == expected


@pytest.mark.parametrize("shape", [(17, 23, 3), (17, 23), (17, 23, 1)])
def test_jpeg_keeps_the_shape_and_loses_less_at_higher_quality(shape: tuple[int, ...]) -> None:
    image = make_ramp(17, 23).mean(axis=2).astype(np.uint8).reshape(17, 23, 1)
    image = np.repeat(image, 3, axis=2) if shape[-1] == 3 else image.reshape(shape)
    worse, better = compress_jpeg(image, 10), compress_jpeg(image, 95)
    assert worse.shape == better.shape == shape
    assert worse.dtype == np.uint8
    assert psnr(worse, image) < psnr(better, image)


def test_jpeg_subsampling_is_420_by_default() -> None:
    image = make_ramp(32, 32)
    assert np.array_equal(compress_jpeg(image, 50), compress_jpeg(image, 50, "4:2:0"))
    assert not np.array_equal(compress_jpeg(image, 50), compress_jpeg(image, 50, "4:4:4"))
    with pytest.raises(ValueError, match=r"1\.\.100"):
        compress_jpeg(image, 0)
