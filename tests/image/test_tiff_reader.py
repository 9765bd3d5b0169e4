"""TIFF with separate planes is read like interleaved channels, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from raw_tiff import HEIGHT, WIDTH, tiff

from restore_cli.errors import ImageError
from restore_cli.image.codec import decode, probe

KINDS = ["uint8", "uint16", "float32"]
GRAY, RGB, CMYK, YCBCR, LAB = 1, 2, 5, 6, 8
UNASSOCIATED = 2


def samples(kind: str, channels: int) -> NDArray[Any]:
    """Return random samples, (h, w, c)."""
    values = np.random.default_rng(2).random((HEIGHT, WIDTH, channels))
    return values.astype(kind) if kind == "float32" else (values * np.iinfo(kind).max).astype(kind)


@pytest.mark.parametrize(
    ("photometric", "channels", "extra", "kind"),
    [
        *((RGB, 3, None, kind) for kind in KINDS),
        *((RGB, 4, UNASSOCIATED, kind) for kind in KINDS),
        *((CMYK, 4, None, kind) for kind in KINDS[:2]),
        (LAB, 3, None, "float32"),
    ],
)
def test_planes_are_read_like_interleaved_channels(
    tmp_path: Path, photometric: int, channels: int, extra: int | None, kind: str
) -> None:
    pictures = []
    for planes in (False, True):
        (tmp_path / "in.tif").write_bytes(tiff(samples(kind, channels), photometric, extra=extra, planes=planes))
        pictures.append(decode(tmp_path / "in.tif"))
    interleaved, separate = pictures
    assert np.array_equal(interleaved.pixels, separate.pixels)
    if interleaved.alpha is not None and separate.alpha is not None:
        assert np.array_equal(interleaved.alpha, separate.alpha)
    assert (interleaved.alpha is None) == (separate.alpha is None) == (extra is None)


@pytest.mark.parametrize(
    ("photometric", "channels", "extra", "kind"),
    [
        *((GRAY, 2, UNASSOCIATED, kind) for kind in KINDS),
        (YCBCR, 3, None, "uint8"),
        *((LAB, 3, None, kind) for kind in KINDS[:2]),
    ],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_planes_that_libvips_misreads_are_refused(
    tmp_path: Path, photometric: int, channels: int, extra: int | None, kind: str, tiled: bool
) -> None:
    file = tmp_path / "in.tif"
    file.write_bytes(tiff(samples(kind, channels), photometric, extra=extra, planes=True, tiled=tiled))
    with pytest.raises(ImageError, match=r"in\.tif: gray with transparency, YCbCr or Lab in separate planes; RGB and"):
        probe(file)


def test_tiles_in_planes_are_refused_with_a_command(tmp_path: Path) -> None:
    file = tmp_path / "in.tif"
    file.write_bytes(tiff(samples("uint16", 3), RGB, planes=True, tiled=True))
    with pytest.raises(ImageError, match=r"tiles in separate planes; strips are supported \(try: magick "):
        probe(file)
