"""Files pass through a pipeline: whatever the model does not change stays as it was."""

from __future__ import annotations

import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from icc_profiles import GRAY_22, LINEAR, P3, make_gray_profile, make_rgb_profile
from images import make_image
from nearest_model import NearestModel
from numpy.typing import NDArray
from run_worker import JOB, restore_files
from torch import Tensor
from torch.nn.functional import interpolate

from restore_cli.errors import ImageError, OutputError, UsageError
from restore_cli.image.codec import decode, encode, probe
from restore_cli.image.colour import ColourConversion, decode_srgb, encode_srgb, make_conversion
from restore_cli.image.picture import PEAK, Metadata, Picture
from restore_cli.jobs.types import Task
from restore_cli.pipeline import picture as picture_pipeline
from restore_cli.pipeline.file import FileOptions, srgb_profile
from restore_cli.pipeline.output import OutputOptions
from restore_cli.tiling.geometry import Tiling


def through(
    model: NearestModel, source: Path, output: Path, options: FileOptions | None = None, tiling: Tiling | None = None
) -> None:
    """Restore a file into another, whose suffix states its format. Raises the error of the Result."""
    options = options or FileOptions()
    job = replace(JOB, file=options)
    (result,) = restore_files(model, [Task(str(source), str(output))], tiling or Tiling(32, 8), job)
    if result.error is not None:
        raise result.error


def deep(height: int, width: int, channels: int, kind: str, seed: int = 0) -> NDArray[Any]:
    """Return an image in which all values of a sample type may occur."""
    random = np.random.default_rng(seed)
    if kind == "float32":
        return random.random((height, width, channels), np.float32)
    return random.integers(0, int(PEAK[kind]) + 1, (height, width, channels), dtype=kind)


def test_profiles_are_converted_or_kept() -> None:
    assert all(make_conversion(icc, 3) is not None for icc in (P3, LINEAR))
    assert make_conversion(GRAY_22, 1) is not None
    assert make_conversion(srgb_profile(), 3) is None  # which it is already
    assert make_conversion(b"broken", 3) is None


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["uint8", "uint16", "float32"]),
    channels=st.sampled_from([1, 3]),
    alpha=st.booleans(),
    icc=st.sampled_from([None, P3, LINEAR]),
    suffix=st.sampled_from([".png", ".tif"]),
    scale=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(1, 90), st.integers(1, 70)),
)
def test_values_that_the_model_keeps_stay_equal_to_the_bit(
    tmp_path: Path,
    kind: str,
    channels: int,
    alpha: bool,
    icc: bytes | None,
    suffix: str,
    scale: int,
    size: tuple[int, int],
) -> None:
    suffix = ".tif" if kind == "float32" else suffix
    icc = GRAY_22 if icc and channels == 1 else icc
    transparency = np.maximum(deep(*size, 1, kind, 1)[..., 0], 1 if kind != "float32" else 0.1) if alpha else None
    pixels = deep(*size, channels, kind)
    if icc in (P3, LINEAR) and scale > 1:  # light outside of sRGB (by rounding, in LINEAR) is enlarged smoothly
        least = np.asarray(PEAK[kind] * 0.05, pixels.dtype)  # black beside a full channel magnifies float32's rounding
        pixels = np.broadcast_to(np.maximum(pixels[:1, :1], least), pixels.shape)
    picture = Picture(pixels, transparency, Metadata(icc))
    encode(picture, tmp_path / f"in{suffix}")
    through(NearestModel(scale), tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")
    found = decode(tmp_path / f"out{suffix}")
    assert found.metadata.icc == icc
    same(found.pixels, picture.pixels.repeat(scale, 0).repeat(scale, 1))
    assert (found.alpha is None) == (transparency is None)
    if found.alpha is not None and transparency is not None:
        same(found.alpha, transparency.repeat(scale, 0).repeat(scale, 1))


def same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 if found.dtype == np.float32 else 0)


class Ringing(NearestModel):
    """A model that overshoots in both directions."""

    def __call__(self, x: Tensor) -> Tensor:
        out = super().__call__(x)
        return out + 0.2 * torch.cos(torch.arange(out.shape[-1]) * 2.0)


def test_transparency_does_not_ring(tmp_path: Path) -> None:
    alpha = np.zeros((40, 40), np.uint8)
    alpha[12:28, 12:28] = 255
    encode(Picture(make_image(40, 40), alpha), tmp_path / "in.png")
    through(Ringing(), tmp_path / "in.png", tmp_path / "out.png")
    found = decode(tmp_path / "out.png").alpha
    assert found is not None
    near = np.zeros((80, 80), bool)
    near[23:57, 23:57] = True
    near[25:55, 25:55] = False  # between the centres of the px on either side of the edge
    assert np.array_equal(found[~near], alpha.repeat(2, 0).repeat(2, 1)[~near])
    assert len(np.unique(found[near])) > 2


@pytest.mark.parametrize("scale", [1, 2])
def test_constant_alpha_stays_equal_to_the_bit(tmp_path: Path, scale: int) -> None:
    encode(Picture(make_image(40, 40), np.full((40, 40), 77, np.uint8)), tmp_path / "in.png")
    through(Ringing(scale), tmp_path / "in.png", tmp_path / "out.png")
    found = decode(tmp_path / "out.png").alpha
    assert found is not None
    assert np.array_equal(found, np.full((40 * scale, 40 * scale), 77))


@pytest.mark.parametrize(("low", "high"), [(0.0, 65504.0), (-3.0, 0.5), (1000.0, 1001.0), (2.0, 2.0)])
def test_floating_point_files_keep_their_range(tmp_path: Path, low: float, high: float) -> None:
    pixels = deep(40, 30, 3, "float32") * np.float32(high - low) + np.float32(low)
    encode(Picture(pixels), tmp_path / "in.tif")
    through(NearestModel(), tmp_path / "in.tif", tmp_path / "out.tif")
    found = decode(tmp_path / "out.tif").pixels
    np.testing.assert_allclose(found, pixels.repeat(2, 0).repeat(2, 1), atol=(high - low) * 1e-6 + 1e-4 * (low > 9))
    if low != high:
        with pytest.raises(ImageError, match=r"its values range from .* integer samples hold only 0 to 1"):
            through(NearestModel(), tmp_path / "in.tif", tmp_path / "out.png")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    pixels = deep(8, 8, 3, "float32")
    pixels[3, 3] = np.nan
    encode(Picture(pixels), tmp_path / "in.tif")
    with pytest.raises(ImageError, match="not finite"):
        through(NearestModel(), tmp_path / "in.tif", tmp_path / "out.tif")


def test_the_depth_is_that_of_the_input_unless_requested(tmp_path: Path) -> None:
    encode(Picture(deep(20, 20, 3, "uint16")), tmp_path / "in.png")
    for wish, kind in (("auto", "uint16"), ("8", "uint8"), ("16", "uint16")):
        through(NearestModel(), tmp_path / "in.png", tmp_path / "out.png", FileOptions(OutputOptions(bit_depth=wish)))
        assert decode(tmp_path / "out.png").pixels.dtype == kind
    through(NearestModel(), tmp_path / "in.png", tmp_path / "out.jpg")
    assert decode(tmp_path / "out.jpg").pixels.dtype == np.uint8
    with pytest.raises(OutputError, match="JPEG holds no 16-bit samples"):
        through(NearestModel(), tmp_path / "in.png", tmp_path / "out.jpg", FileOptions(OutputOptions(bit_depth="16")))
    with pytest.raises(UsageError, match="--bit-depth 12: expected auto, 8, 16"):
        OutputOptions(bit_depth="12")


def test_halves_are_rounded_to_even(tmp_path: Path) -> None:
    halves = ((np.arange(0, 250)[:, None, None].repeat(3, 2) + 0.5) / 255).astype(np.float32)
    encode(Picture(halves), tmp_path / "in.tif")
    through(NearestModel(1), tmp_path / "in.tif", tmp_path / "out.png", FileOptions(OutputOptions(bit_depth="8")))
    exact = (halves * np.float32(255)).astype(np.float32)
    assert np.array_equal(decode(tmp_path / "out.png").pixels, np.rint(exact).astype(np.uint8))


def test_dither_keeps_means_between_two_8_bit_values(tmp_path: Path) -> None:
    level = np.full((64, 64, 3), round(100.25 * 257), np.uint16)
    encode(Picture(level), tmp_path / "in.png")
    means = {}
    for dither in (False, True):
        through(
            NearestModel(1),
            tmp_path / "in.png",
            tmp_path / "out.png",
            FileOptions(OutputOptions(bit_depth="8", dither=dither)),
        )
        means[dither] = float(decode(tmp_path / "out.png").pixels.mean())
    assert means[False] == 100
    assert means[True] == pytest.approx(100.25, abs=0.05)


def edge() -> Picture:
    """A bright disc, with black stored where it is transparent, as many programs do."""
    y, x = np.mgrid[:80, :80]
    inside = (y - 40) ** 2 + (x - 40) ** 2 < 30**2
    pixels = np.where(inside[..., None], np.array([250, 200, 40]), 0).astype(np.uint8)
    return Picture(pixels, np.where(inside, 255, 0).astype(np.uint8))


def test_colours_spread_under_transparent_pixels(tmp_path: Path) -> None:
    encode(edge(), tmp_path / "in.png")
    through(NearestModel(), tmp_path / "in.png", tmp_path / "out.png")
    found, original = decode(tmp_path / "out.png"), edge()
    assert found.alpha is not None
    assert original.alpha is not None
    near = np.hypot(*(np.mgrid[:160, :160] - 79.5)) < 2 * (30 + 20)
    assert np.array_equal(np.unique(found.pixels[near].reshape(-1, 3), axis=0), [[250, 200, 40]])
    assert np.array_equal(found.alpha, original.alpha.repeat(2, 0).repeat(2, 1))


def test_tiles_leave_no_seams_in_spread_colours(tmp_path: Path) -> None:
    encode(edge(), tmp_path / "in.png")
    results = []
    for tile in (16, 0):
        through(NearestModel(), tmp_path / "in.png", tmp_path / "out.png", tiling=Tiling(tile, 8))
        results.append(decode(tmp_path / "out.png").pixels)
    assert np.array_equal(results[0], results[1])


@pytest.mark.parametrize("alpha", ["model", "lanczos", "drop"])
def test_alpha_is_restored_resampled_or_dropped(tmp_path: Path, alpha: str) -> None:
    encode(edge(), tmp_path / "in.png")
    model = NearestModel()
    through(model, tmp_path / "in.png", tmp_path / "out.png", FileOptions(OutputOptions(alpha=alpha)))
    found = decode(tmp_path / "out.png").alpha
    assert (found is None) == (alpha == "drop")
    if found is not None:
        assert (found.min(), found.max(), found.shape) == (0, 255, (160, 160))
        assert (len(np.unique(found)) > 2) == (alpha == "lanczos")


def test_colours_outside_of_srgb_are_not_clipped(tmp_path: Path) -> None:
    vivid = np.zeros((16, 16, 3), np.uint8)
    vivid[:8, :, 1] = vivid[8:, :, 0] = 255  # of Display P3: far outside of sRGB
    encode(Picture(vivid, None, Metadata(P3)), tmp_path / "in.png")
    seen = []

    class Watching(NearestModel):
        def __call__(self, x: Tensor) -> Tensor:
            seen.append((float(x.min()), float(x.max())))
            return super().__call__(x)

    through(Watching(), tmp_path / "in.png", tmp_path / "out.png")
    difference = decode(tmp_path / "out.png").pixels - vivid.repeat(2, 0).repeat(2, 1)
    assert not difference[:10].any()  # away from the edge, over which Lanczos swings
    assert not difference[22:].any()
    assert min(low for low, _ in seen) == 0
    assert max(high for _, high in seen) == 1
    through(NearestModel(), tmp_path / "in.png", tmp_path / "srgb.png", FileOptions(OutputOptions(icc="srgb")))
    converted = decode(tmp_path / "srgb.png")
    assert converted.metadata.icc != P3
    assert converted.pixels[0, 0].tolist() == [0, 255, 0]  # the nearest that sRGB has


def test_light_outside_of_srgb_is_resampled_smoothly(tmp_path: Path) -> None:
    ramp = np.zeros((16, 64, 3), np.uint16)
    ramp[..., 0] = np.linspace(20_000, 60_000, 64)  # red of Display P3
    encode(Picture(ramp, None, Metadata(P3)), tmp_path / "in.png")

    class Smooth(NearestModel):
        def __call__(self, x: Tensor) -> Tensor:
            return interpolate(x, scale_factor=4, mode="bilinear")

    through(Smooth(4), tmp_path / "in.png", tmp_path / "out.png", tiling=Tiling(0, 0))
    steps = np.diff(decode(tmp_path / "out.png").pixels[32, 8:-8, 0].astype(int))
    assert steps.min() > 80
    assert steps.max() < 250  # a ramp of 635 in four steps


@pytest.mark.parametrize(
    ("suffix", "icc", "channels"),
    [(".bmp", P3, 3), (".bmp", GRAY_22, 1), (".bmp", P3, 1), (".webp", make_gray_profile(1.0), 1), (".webp", P3, 3)],
)
def test_colours_become_srgb_if_the_format_holds_no_profile(
    tmp_path: Path, suffix: str, icc: bytes, channels: int
) -> None:
    picture = Picture(make_image(40, 30, channels) // 4 + 90, None, Metadata(icc))  # nothing outside of sRGB
    encode(picture, tmp_path / "in.png")
    through(NearestModel(1), tmp_path / "in.png", tmp_path / f"out{suffix}")
    found = decode(tmp_path / f"out{suffix}")
    srgb = ColourConversion(((decode_srgb, encode_srgb),) * found.channels, None)
    before, after = make_conversion(icc, channels), make_conversion(found.metadata.icc, found.channels) or srgb
    assert before is not None
    linear = before.to_linear(picture.pixels / 255)
    assert np.abs(after.to_linear(found.pixels / 255) - linear).max() < 0.005
    assert (found.metadata.icc == P3) == (suffix == ".webp" and icc == P3)


@pytest.mark.parametrize(("code", "foreign"), [((12, 13), True), ((9, 16), True), ((1, 13), False), ((2, 2), False)])
def test_colours_of_a_cicp_chunk_stay_in_a_png_or_are_refused(
    tmp_path: Path, code: tuple[int, int], foreign: bool
) -> None:
    from PIL import Image

    plain, chunk = BytesIO(), bytes([*code, 0, 1])
    Image.fromarray(make_image(16, 16)).save(plain, "AVIF")
    at = plain.getvalue().index(b"nclx") + 4
    numbered = plain.getvalue()[:at] + struct.pack(">HH", *code) + plain.getvalue()[at + 4 :]
    (tmp_path / "in.avif").write_bytes(numbered)
    encode(Picture(make_image(16, 16), None, Metadata(png={b"cICP": chunk})), tmp_path / "in.png")
    for name in ("in.avif", "in.png"):
        through(NearestModel(), tmp_path / name, tmp_path / "out.png")
        if name == "in.png" or foreign:
            assert decode(tmp_path / "out.png").metadata.png == {b"cICP": chunk}
        if foreign:
            with pytest.raises(ImageError, match="its colours are defined by a cICP chunk"):
                through(NearestModel(), tmp_path / name, tmp_path / "out.webp")
        else:
            through(NearestModel(), tmp_path / name, tmp_path / "out.webp")


def test_a_profile_that_cannot_be_converted_is_kept_or_refused(tmp_path: Path) -> None:
    table = make_rgb_profile([[0.4, 0.2, 0.0], [0.4, 0.2, 0.0], [0.1, 0.1, 0.7]], 2.2)  # a matrix without an inverse
    encode(Picture(make_image(20, 20), None, Metadata(table)), tmp_path / "in.png")
    through(NearestModel(1), tmp_path / "in.png", tmp_path / "out.png")
    assert np.array_equal(decode(tmp_path / "out.png").pixels, make_image(20, 20))
    assert decode(tmp_path / "out.png").metadata.icc == table
    for name, output_options in (("out.bmp", OutputOptions()), ("other.png", OutputOptions(icc="srgb"))):
        with pytest.raises(ImageError, match="its colour profile cannot be converted to sRGB"):
            through(NearestModel(1), tmp_path / "in.png", tmp_path / name, FileOptions(output_options))


@pytest.mark.parametrize(
    ("wish", "size"),
    [("1x", (60, 40)), ("0.5x", (30, 20)), ("90x70", (90, 70)), ("30x", (30, 20)), ("x100", (150, 100))],
)
def test_final_size(tmp_path: Path, wish: str, size: tuple[int, int]) -> None:
    even = Picture(np.full((40, 60, 3), 12345, np.uint16), np.full((40, 60), 54321, np.uint16))
    encode(even, tmp_path / "in.png")
    through(NearestModel(), tmp_path / "in.png", tmp_path / "out.png", FileOptions(OutputOptions(resize=wish)))
    found = decode(tmp_path / "out.png")
    assert (found.width, found.height) == size
    assert found.alpha is not None
    assert np.unique(found.pixels).tolist() == [12345]
    assert np.unique(found.alpha).tolist() == [54321]


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".avif"])
def test_every_frame_is_restored_if_the_format_holds_several(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    frames = [Image.fromarray(make_image(24, 32, seed=i)) for i in range(3)]
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(
        tmp_path / f"in{suffix}", save_all=True, append_images=frames[1:], duration=[40, 80, 120], loop=0, **options
    )
    through(NearestModel(), tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")
    for number in range(3):
        before, after = (decode(tmp_path / f"{name}{suffix}", frame=number) for name in ("in", "out"))
        difference = after.pixels[..., :3].astype(int) - before.pixels[..., :3].repeat(2, 0).repeat(2, 1)
        assert np.abs(difference).mean() < (6 if suffix == ".avif" else 0.01)
        if suffix != ".tif":
            assert after.metadata.duration == before.metadata.duration
    with pytest.raises(ImageError, match=r"has 3 pictures, but JPEG holds only one \(try: --frame 1"):
        through(NearestModel(), tmp_path / f"in{suffix}", tmp_path / "out.jpg")
    through(NearestModel(), tmp_path / f"in{suffix}", tmp_path / "out.jpg", FileOptions(frame=2))
    assert decode(tmp_path / "out.jpg").height == 48


def test_metadata_names_the_model_and_strip_removes_all(tmp_path: Path) -> None:
    metadata = Metadata(P3, None, None, (300.0, 300.0), {"Title": "A picture"})
    encode(Picture(make_image(20, 20), None, metadata), tmp_path / "in.png")
    through(NearestModel(), tmp_path / "in.png", tmp_path / "out.png")
    found = decode(tmp_path / "out.png").metadata
    assert b'restore:Model="nearest"' in (found.xmp or b"")
    assert b'restore:Scale="2"' in (found.xmp or b"")
    assert found.text["Title"] == "A picture"
    assert found.text["Software"].startswith("restore")
    through(NearestModel(), tmp_path / "in.png", tmp_path / "bare.png", FileOptions(OutputOptions(strip=True)))
    assert decode(tmp_path / "bare.png").metadata == Metadata(P3)


def test_a_jpeg_of_an_opaque_picture_drops_alpha(tmp_path: Path) -> None:
    opaque = Picture(make_image(20, 20), np.full((20, 20), 255, np.uint8))
    encode(opaque, tmp_path / "in.png")
    through(NearestModel(), tmp_path / "in.png", tmp_path / "out.jpg")
    encode(replace(opaque, alpha=make_image(20, 20, 1)[..., 0]), tmp_path / "in.png")
    with pytest.raises(OutputError, match="JPEG cannot hold the transparency"):
        through(NearestModel(), tmp_path / "in.png", tmp_path / "out.jpg")


def test_a_jpeg_keeps_its_quality_and_subsampling(tmp_path: Path) -> None:
    from PIL import Image

    for quality, expected in ((97, 97), (50, 90)):
        Image.fromarray(make_image(32, 32)).save(tmp_path / "in.jpg", quality=quality, subsampling="4:2:0")
        through(NearestModel(1), tmp_path / "in.jpg", tmp_path / "out.jpg")
        found = probe(tmp_path / "out.jpg")
        assert (found.jpeg_quality, found.subsampling) == (expected, "4:2:0")
    through(NearestModel(1), tmp_path / "in.jpg", tmp_path / "out.jpg", FileOptions(jpeg_quality=60))
    assert probe(tmp_path / "out.jpg").jpeg_quality == 60


@pytest.mark.parametrize("icc", [None, P3])
@pytest.mark.parametrize("alpha", [False, True])
def test_the_number_of_columns_per_chunk_changes_nothing(
    alpha: bool, icc: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = (deep(60, 150, 1, "uint16", 1) > 2**15)[..., 0] * np.uint16(2**16 - 1)  # half of it transparent
    hidden[20:50, 30:120] = 0
    picture = Picture(deep(60, 150, 3, "uint16"), hidden if alpha else None, Metadata(icc=icc))
    encode(picture, tmp_path / "in.png")
    found = []
    for columns in (1000, 40, 7):
        monkeypatch.setattr(picture_pipeline, "CHUNK_COLUMNS", columns)
        through(NearestModel(scale=2), tmp_path / "in.png", tmp_path / "out.png")
        found.append(decode(tmp_path / "out.png"))
    for other in found[1:]:
        np.testing.assert_array_equal(other.pixels, found[0].pixels)
