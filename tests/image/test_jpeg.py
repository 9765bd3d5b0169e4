"""The quality of a JPEG is estimated from its quantisation tables."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from restore_cli.image.codec import probe
from restore_cli.image.formats.jpeg import compute_luminance_table, estimate_quality


def jpeg(quality: int | str, mode: str = "RGB", subsampling: int = 0) -> BytesIO:
    stream = BytesIO()
    Image.new(mode, (16, 16)).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return stream


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_quality_of_libjpeg_is_found_exactly(mode: str) -> None:
    for quality in range(1, 101):
        assert probe(jpeg(quality, mode)).jpeg_quality == quality


def test_each_quality_has_its_own_table() -> None:
    assert len({tuple(compute_luminance_table(quality)) for quality in range(1, 101)}) == 100


@pytest.mark.parametrize("quality", [10, 25, 40, 60, 90])
def test_estimate_tolerates_small_differences(quality: int) -> None:
    table = compute_luminance_table(quality) + np.random.default_rng(quality).integers(-1, 2, 64)
    assert abs(estimate_quality({0: np.maximum(table, 1).tolist()}) - quality) <= 2


def test_estimates_for_other_encoders_are_ordered() -> None:
    names = ("web_low", "low", "medium", "high", "maximum")
    found = [probe(jpeg(name)).jpeg_quality or 0 for name in names]
    assert found == sorted(found)
    assert found[0] < 50
    assert found[-1] > 90


@pytest.mark.parametrize(("code", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_subsampling_is_read(code: int, name: str) -> None:
    assert probe(jpeg(80, subsampling=code)).subsampling == name


def test_only_a_jpeg_has_a_quality() -> None:
    stream = BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    assert probe(stream).jpeg_quality is None
    assert probe(stream).subsampling is None


def test_invalid_arguments_raise_value_error() -> None:
    with pytest.raises(ValueError, match="no quantisation table"):
        estimate_quality({})
    with pytest.raises(ValueError, match="3 entries, expected 64"):
        estimate_quality({0: [1, 2, 3]})
    with pytest.raises(ValueError, match="quality is 0, expected 1-100"):
        compute_luminance_table(0)
