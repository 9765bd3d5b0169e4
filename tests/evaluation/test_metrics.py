"""The metrics agree with scikit-image and with closed forms, and refuse images that cannot be compared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restore_cli.evaluation.metrics import luma, psnr, psnr_b, ssim

Bytes = NDArray[np.uint8]


def make_pair(*shape: int) -> tuple[Bytes, Bytes]:
    """Return two random images that are close to each other."""
    random = np.random.default_rng(7)
    a = random.integers(0, 256, shape)
    return a.astype(np.uint8), np.clip(a + random.integers(-20, 21, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 57), (33, 32, 3), (11, 11, 1)])
def test_psnr_and_ssim_equal_those_of_scikit_image(shape: tuple[int, ...]) -> None:
    a, b = make_pair(*shape)
    expected = peak_signal_noise_ratio(b, a, data_range=255)  # type: ignore[no-untyped-call]
    assert psnr(a, b) == pytest.approx(expected, abs=1e-9)
    whole = structural_similarity(  # type: ignore[no-untyped-call]
        a.astype(np.float64),
        b.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2 if len(shape) == 3 else None,
        full=True,
    )[1]
    assert ssim(a, b) == pytest.approx(float(whole[5:-5, 5:-5].mean()), abs=1e-9)  # 5: half the window, 'valid'


def test_luma_is_bt601_studio_range() -> None:
    image = make_pair(9, 8, 3)[0]
    assert np.allclose(luma(image), rgb2ycbcr(image)[..., 0], atol=1e-3)
    corners = luma(np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8))
    assert np.allclose(corners, [[16, 235]])
    gray = image[..., :1]
    assert np.allclose(luma(gray), luma(np.repeat(gray, 3, axis=2)))
    assert np.allclose(luma(gray[..., 0]), luma(gray))


def test_closed_forms() -> None:
    black = np.zeros((32, 32))
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 255) == 0
    assert psnr(black, black + 0.1, peak=1) == pytest.approx(20)
    assert ssim(black + 9, black + 9) == pytest.approx(1)
    means = (2 * 100 * 120 + 6.5025) / (100**2 + 120**2 + 6.5025)  # flat images: only the luminance term is left
    assert ssim(black + 100, black + 120) == pytest.approx(means)


def test_the_border_is_not_measured() -> None:
    a = np.zeros((40, 40, 3))
    b = a.copy()
    b[:4], b[-4:], b[:, :4], b[:, -4:] = 255, 255, 255, 255
    assert psnr(a, b, border=4) == math.inf
    assert ssim(a, b, border=4) == pytest.approx(1)
    assert psnr(a, b, border=3) < 30


def test_psnr_b_counts_only_steps_on_block_edges() -> None:
    reference = np.zeros((32, 32))
    blocks = np.kron(np.indices((4, 4)).sum(0) % 2 * 4.0, np.ones((8, 8)))
    error, excess = 8.0, 16.0  # half of the samples are off by 4; each edge step is 4, there are none elsewhere
    expected = 10 * math.log10(255**2 / (error + math.log2(8) / math.log2(32) * excess))
    assert psnr_b(blocks, reference) == pytest.approx(expected)
    assert psnr_b(np.dstack([blocks] * 3), np.zeros((32, 32, 3))) == pytest.approx(expected)
    shifted = np.roll(blocks, 4, axis=(0, 1))
    assert psnr_b(shifted, reference) == pytest.approx(psnr(shifted, reference))
    assert psnr_b(reference, blocks) == pytest.approx(psnr(reference, blocks))  # blocks of the reference do not count


def test_images_that_cannot_be_compared_are_refused() -> None:
    image = np.zeros((20, 20, 3))
    for measure in (psnr, ssim, psnr_b):
        with pytest.raises(ValueError, match="differ in shape"):
            measure(image, image[:-1])
        with pytest.raises(ValueError, match="leaves nothing"):
            measure(image, image, border=10)
    with pytest.raises(ValueError, match="11 px"):
        ssim(image, image, border=5)
    with pytest.raises(ValueError, match="more than 8 px"):
        psnr_b(image, image, border=6)
    with pytest.raises(ValueError, match=r"expected \(h, w\)"):
        psnr(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"\(h, w, 3\)"):
        luma(np.zeros((4, 4, 2)))
