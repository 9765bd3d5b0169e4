"""Pixels and metadata survive encoding and decoding."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, TiffImagePlugin

from restore_cli.errors import OutputError
from restore_cli.image.codec import decode, encode, probe
from restore_cli.image.formats import tiff_writer as tiff
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX
from restore_cli.image.picture import Metadata, Picture, Pixels

LOSSLESS = ["PNG", "TIFF", "WEBP", "BMP"]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


@cache
def profile() -> bytes:  # it contains the time of its creation
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def photo_exif(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Copyright] = "Somebody"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.ImageWidth] = 7  # some phones write layout tags here; they must not reach a TIFF's own
    exif[ExifTags.Base.Compression] = 6
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: 0.01, ExifTags.Base.MakerNote: b"note"}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (1.0, 2.0, 3.0)}
    return exif.tobytes()


def smooth(height: int = 24, width: int = 32, channels: int = 3) -> Pixels:
    y, x = np.mgrid[:height, :width]
    planes = [(4 * x + 2 * y) % 256, (3 * y + 40) % 256, (200 - 2 * x) % 256]
    return np.stack(planes[:channels], axis=2).astype(np.uint8)


def random_picture(height: int, width: int, channels: int, alpha: bool, seed: int = 0) -> Picture:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Picture(pixels, random.integers(0, 255, (height, width), dtype=np.uint8) if alpha else None)


def assert_same(found: Picture, expected: Picture) -> None:
    assert found.pixels.shape == expected.pixels.shape
    assert found.pixels.dtype == expected.pixels.dtype
    assert found.pixels.tobytes() == expected.pixels.tobytes()  # also the bits of NaN
    assert (found.alpha is None) == (expected.alpha is None)
    if found.alpha is not None and expected.alpha is not None:
        assert found.alpha.tobytes() == expected.alpha.tobytes()


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (65, 200), (2, 3000), (700, 401)])
def test_decoding_inverts_encoding(
    tmp_path: Path, format: str, channels: int, alpha: bool, height: int, width: int
) -> None:
    picture = random_picture(height, width, channels, alpha and format != "BMP")
    encode(picture, tmp_path / "out", format=format)
    found = decode(tmp_path / "out")
    assert probe(tmp_path / "out").format == format
    if format == "WEBP" and channels == 1:  # WebP has no gray
        assert np.array_equal(found.pixels, picture.pixels.repeat(3, axis=2))
    else:
        assert_same(found, picture)


KINDS = {"PNG": ("uint8", "uint16"), "TIFF": ("uint8", "uint16", "float32"), "WEBP": ("uint8",), "BMP": ("uint8",)}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), format=st.sampled_from(LOSSLESS), icc=st.booleans(), exif=st.booleans())
def test_decoding_inverts_encoding_for_arbitrary_pictures(
    tmp_path: Path, data: st.DataObject, format: str, icc: bool, exif: bool
) -> None:
    kind = data.draw(st.sampled_from(KINDS[format]))
    channels = data.draw(st.sampled_from([3] if format == "WEBP" else [1, 3]))  # WebP has no gray
    height, width = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    pixels = data.draw(nps.arrays(kind, (height, width, channels)))  # any floats, also infinite ones
    alpha = data.draw(st.just(None) if format == "BMP" else st.none() | nps.arrays(kind, (height, width)))
    metadata = Metadata(profile() if icc else None, photo_exif() if exif else None)
    encode(Picture(pixels, alpha, metadata), tmp_path / "out", format=format)
    found = decode(tmp_path / "out")
    opaque = alpha is not None and found.alpha is None and bool((alpha == np.iinfo(kind).max).all())
    assert_same(found, Picture(pixels, None if format == "WEBP" and opaque else alpha))
    assert found.metadata.icc == (None if format == "BMP" else metadata.icc)
    assert (found.metadata.exif is None) == (metadata.exif is None or format == "BMP")


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=st.dictionaries(
        st.text("abcXYZ ä", min_size=1, max_size=9).map(str.strip).filter(bool),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
        max_size=3,
    )
)
def test_any_png_text_survives(tmp_path: Path, text: dict[str, str]) -> None:
    encode(Picture(smooth(), None, Metadata(text=text)), tmp_path / "out.png")
    assert decode(tmp_path / "out.png").metadata.text == text


@pytest.mark.parametrize("suffix", FORMAT_BY_SUFFIX)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_suffix_is_written_in_its_format(tmp_path: Path, suffix: str, channels: int) -> None:
    path = tmp_path / f"out{suffix.upper()}"
    encode(Picture(smooth(channels=channels)), path)
    found = decode(path)
    assert probe(path).format == FORMAT_BY_SUFFIX[suffix]
    assert found.channels == (3 if suffix == ".webp" else channels)
    assert np.abs(found.pixels.astype(int) - smooth(channels=channels)).mean() < 2  # JPEG, AVIF


def test_jpeg_is_written_at_quality_95_without_subsampling(tmp_path: Path) -> None:
    encode(Picture(smooth()), tmp_path / "out.jpg")
    found = probe(tmp_path / "out.jpg")
    assert (found.jpeg_quality, found.subsampling) == (95, "4:4:4")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_metadata_survives(tmp_path: Path, suffix: str) -> None:
    metadata = Metadata(profile(), photo_exif(), XMP % 1, (300.0, 150.0), iptc=b"\x1c\x02\x19\x00\x03key")
    encode(Picture(smooth(), None, metadata), tmp_path / f"a{suffix}")
    first = decode(tmp_path / f"a{suffix}")
    encode(first, tmp_path / f"b{suffix}")  # a second copy keeps it too
    for found in (first.metadata, decode(tmp_path / f"b{suffix}").metadata):
        assert found.icc == metadata.icc
        assert found.xmp == metadata.xmp
        exif = Image.Exif()
        exif.load(found.exif or b"")
        assert exif[ExifTags.Base.Make] == "Maker"
        assert exif[ExifTags.Base.Copyright] == "Somebody"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == pytest.approx(0.01)
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] == b"note"
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (1.0, 2.0, 3.0)
        if suffix in (".png", ".jpg", ".tif"):
            assert found.iptc == metadata.iptc
            assert found.dpi == pytest.approx((300.0, 150.0), abs=0.02)


def test_metadata_moves_between_formats(tmp_path: Path) -> None:
    chain = [".tif", ".jpg", ".webp", ".avif", ".png", ".tif"]
    picture = Picture(smooth(), None, Metadata(profile(), photo_exif(), XMP % 1))
    for suffix in chain:
        encode(picture, tmp_path / f"out{suffix}")
        picture = decode(tmp_path / f"out{suffix}")
    assert picture.metadata.icc == profile()
    assert picture.metadata.xmp == XMP % 1
    assert b"Somebody" in (picture.metadata.exif or b"")


def test_jpeg_comment_becomes_png_text_and_back(tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "in.jpg", comment="Grüße")
    encode(decode(tmp_path / "in.jpg"), tmp_path / "out.png")
    found = decode(tmp_path / "out.png")
    assert found.metadata.text == {"Comment": "Grüße"}
    encode(found, tmp_path / "out.jpg")
    assert decode(tmp_path / "out.jpg").metadata.text == {"Comment": "Grüße"}


def test_gray_profile_is_not_written_to_three_channels(tmp_path: Path) -> None:
    icc = bytearray(profile())
    icc[16:20] = b"GRAY"
    encode(Picture(smooth(channels=1), None, Metadata(bytes(icc))), tmp_path / "out.webp")
    assert decode(tmp_path / "out.webp").metadata.icc is None
    encode(Picture(smooth(channels=1), None, Metadata(bytes(icc))), tmp_path / "out.png")
    assert decode(tmp_path / "out.png").metadata.icc == bytes(icc)


def test_metadata_too_long_for_a_jpeg_marker_is_left_out(tmp_path: Path) -> None:
    metadata = Metadata(profile(), photo_exif() + bytes(70_000), b"x" * 70_000, text={"Comment": "x" * 70_000})
    encode(Picture(smooth(), None, metadata), tmp_path / "out.jpg")
    found = decode(tmp_path / "out.jpg").metadata
    assert (found.icc, found.exif, found.xmp, found.text) == (profile(), None, None, {})


ORIENTATIONS: dict[int, Callable[[Pixels], Pixels]] = {  # the table in EXIF 2.3, section 4.6.4, written independently
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.rot90(np.fliplr(a), 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.fliplr(a), -1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, format: str) -> None:
    exif, parameters = photo_exif(orientation), {"lossless": True} if format == "WEBP" else {}
    if format == "TIFF":
        tags = Image.Exif()
        tags[ExifTags.Base.Orientation], tags[ExifTags.Base.Make] = orientation, "Maker"
        exif = tags.tobytes()
    elif format == "PNG":
        parameters = {}
    source = tmp_path / "in"
    image = Image.fromarray(smooth())
    image.save(source, format, exif=exif, xmp=XMP % orientation, **parameters)
    expected = Picture(np.ascontiguousarray(ORIENTATIONS[orientation](smooth())))
    header, first = probe(source), decode(source)
    assert (header.height, header.width) == (first.height, first.width)
    assert_same(first, expected)
    encode(first, tmp_path / "out", format=format)
    again = decode(tmp_path / "out")
    assert_same(again, expected)
    assert b"Maker" in (again.metadata.exif or b"")
    if format == "WEBP":
        assert again.metadata.xmp == XMP % 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_jpeg_and_avif(tmp_path: Path, orientation: int) -> None:
    expected = ORIENTATIONS[orientation](smooth()).astype(int)
    for format in ("JPEG", "AVIF"):
        Image.fromarray(smooth()).save(tmp_path / "in", format, exif=photo_exif(orientation), quality=95)
        found = decode(tmp_path / "in")
        assert np.abs(found.pixels - expected).mean() < 4
        exif = Image.Exif()
        exif.load(found.metadata.exif or b"")
        assert exif.get(ExifTags.Base.Orientation, 1) == 1


def test_orientation_is_applied_to_alpha(tmp_path: Path) -> None:
    rgba = np.dstack([smooth(), smooth(channels=1)])
    Image.fromarray(rgba).save(tmp_path / "in.png", exif=photo_exif(6))
    found = decode(tmp_path / "in.png")
    assert found.alpha is not None
    assert np.array_equal(np.dstack([found.pixels, found.alpha]), np.rot90(rgba, -1))


def test_thumbnail_is_dropped(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.load(photo_exif())
    exif.get_ifd(ExifTags.IFD.IFD1)[ExifTags.Base.ImageWidth] = 160
    Image.fromarray(smooth()).save(tmp_path / "in.jpg", exif=exif.tobytes())
    kept = Image.Exif()
    kept.load(decode(tmp_path / "in.jpg").metadata.exif or b"")
    assert kept[ExifTags.Base.Make] == "Maker"
    assert not kept.get_ifd(ExifTags.IFD.IFD1)


def palette_image(alpha: bytes | int | None) -> tuple[Image.Image, dict[str, bytes | int]]:
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    return image, {} if alpha is None else {"transparency": alpha}


@pytest.mark.parametrize(
    ("transparency", "alpha"),
    [(None, None), (1, [255, 0, 255, 255]), (bytes([0, 100, 200, 255]), [0, 100, 200, 255])],
)
def test_palette_becomes_rgb_and_alpha(
    tmp_path: Path, transparency: bytes | int | None, alpha: list[int] | None
) -> None:
    image, parameters = palette_image(transparency)
    image.save(tmp_path / "in.png", **parameters)  # type: ignore[arg-type]
    found = decode(tmp_path / "in.png")
    assert found.pixels.reshape(-1, 3).tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]
    assert (None if found.alpha is None else found.alpha.ravel().tolist()) == alpha
    assert probe(tmp_path / "in.png").alpha == (alpha is not None)


@pytest.mark.parametrize(("mode", "key"), [("L", 8), ("RGB", (8, 58, 186)), ("1", 0)])
def test_one_transparent_colour_becomes_alpha(tmp_path: Path, mode: str, key: int | tuple[int, int, int]) -> None:
    pixels = smooth(8, 8, 1 if mode != "RGB" else 3)
    if mode == "RGB":
        pixels[:2, :2] = key
    image = Image.fromarray(pixels if mode == "RGB" else pixels[:, :, 0])
    image = image.point(lambda v: 255 * (v > 20), "1") if mode == "1" else image
    image.save(tmp_path / "in.png", transparency=key)
    found = decode(tmp_path / "in.png")
    expected = np.array(Image.open(tmp_path / "in.png").convert("RGBA"))[:, :, 3]
    assert found.alpha is not None
    assert 0 in expected
    assert np.array_equal(found.alpha, expected)
    assert (found.channels == 1) == (mode != "RGB")


@pytest.mark.parametrize("bits", [2, 4])
def test_transparent_gray_of_2_and_4_bits_becomes_alpha(tmp_path: Path, bits: int) -> None:
    values = np.arange(2**bits, dtype=np.uint8)[None] * (255 // (2**bits - 1))
    Image.fromarray(values >> (8 - bits)).save(tmp_path / "in.png", bits=bits, transparency=1)
    found = decode(tmp_path / "in.png")
    assert found.pixels[0, :, 0].tolist() == values[0].tolist()
    assert found.alpha is not None
    assert np.flatnonzero(found.alpha[0] == 0).tolist() == [1]


def test_one_bit_becomes_gray(tmp_path: Path) -> None:
    bits = smooth(9, 11, 1)[:, :, 0] > 60
    for suffix in (".png", ".tif", ".bmp"):
        Image.fromarray(bits).save(tmp_path / f"in{suffix}")
        assert np.array_equal(decode(tmp_path / f"in{suffix}").pixels[:, :, 0], np.where(bits, 255, 0))


def test_rgb_with_equal_channels_stays_rgb(tmp_path: Path) -> None:
    Image.fromarray(smooth(channels=1).repeat(3, axis=2)).save(tmp_path / "in.png")
    assert decode(tmp_path / "in.png").channels == 3


def test_progressive_and_interlaced_files_are_read(tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "in.jpg", progressive=True, quality=95)
    assert np.abs(decode(tmp_path / "in.jpg").pixels.astype(int) - smooth()).mean() < 4


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff_is_read(tmp_path: Path, compression: str) -> None:
    Image.fromarray(smooth()).save(tmp_path / "in.tif", compression=compression, dpi=(72, 72))
    found = decode(tmp_path / "in.tif")
    assert np.array_equal(found.pixels, smooth())
    assert found.metadata.dpi == (72.0, 72.0)


def test_libtiff_reads_our_tiff(tmp_path: Path) -> None:
    picture = random_picture(300, 500, 3, alpha=True)  # several strips
    encode(picture, tmp_path / "out.tif")
    with Image.open(tmp_path / "out.tif") as image:
        assert image.info["compression"] == "tiff_adobe_deflate"
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image)[:, :, :3], picture.pixels)


def test_content_decides_the_format(tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "in.jpg", "PNG")
    found = decode(tmp_path / "in.jpg")
    assert probe(tmp_path / "in.jpg").format == "PNG"
    assert np.array_equal(found.pixels, smooth())


def test_streams_are_read_and_left_open() -> None:
    stream = BytesIO()
    Image.fromarray(smooth()).save(stream, "PNG")
    assert np.array_equal(decode(stream).pixels, smooth())
    assert np.array_equal(decode(stream).pixels, smooth())
    assert not stream.closed


def test_decoded_pixels_are_writable(tmp_path: Path) -> None:
    encode(random_picture(4, 5, 3, alpha=True), tmp_path / "a.png")
    found = decode(tmp_path / "a.png")
    assert found.pixels.flags.writeable
    assert found.pixels.flags.c_contiguous
    assert found.alpha is not None
    assert found.alpha.flags.writeable


def test_preview_after_a_photograph_is_ignored(tmp_path: Path) -> None:
    preview = Image.fromarray(smooth(6, 8))
    Image.fromarray(smooth()).save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[preview], quality=95)
    found = probe(tmp_path / "in.jpg")
    assert (found.format, found.height, found.width) == ("JPEG", 24, 32)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_probe_agrees_with_decode(tmp_path: Path, mode: str, format: str) -> None:
    Image.fromarray(smooth()).convert(mode).save(tmp_path / "in", format)
    header, picture = probe(tmp_path / "in"), decode(tmp_path / "in")
    assert (header.height, header.width, header.channels) == picture.pixels.shape
    assert header.alpha == (picture.alpha is not None)
    assert header.format == format


def test_pillow_settings_are_restored_after_decoding(tmp_path: Path) -> None:
    limit, truncated = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    encode(Picture(smooth()), tmp_path / "out.png")
    decode(tmp_path / "out.png")
    assert limit == Image.MAX_IMAGE_PIXELS
    assert truncated == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_transparency_is_not_dropped_silently(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with pytest.raises(OutputError, match=r"cannot store transparency; PNG, WebP, TIFF, AVIF, JPEG XL can.*out\.png"):
        encode(random_picture(3, 3, 3, alpha=True), path)
    assert not path.exists()
    opaque = Picture(smooth(), np.full((24, 32), 255, np.uint8))
    encode(opaque, path)
    assert decode(path).alpha is None


def test_impossible_output_is_refused(tmp_path: Path) -> None:
    wide = Picture(np.zeros((1, 16_384, 3), np.uint8))
    with pytest.raises(OutputError, match="has 16384×1 px; the limit of WebP is 16383 px per side"):
        encode(wide, tmp_path / "out.webp")
    with pytest.raises(OutputError, match=r"unknown suffix '\.xyz'; expected one of \.png"):
        encode(wide, tmp_path / "out.xyz")
    with pytest.raises(OutputError, match="has no suffix"):
        encode(wide, tmp_path / "out")
    with pytest.raises(ValueError, match="'GIF', expected one of PNG"):
        encode(wide, tmp_path / "out", format="GIF")
    assert not list(tmp_path.iterdir())


def test_invalid_pictures_are_refused() -> None:
    for pixels in (np.zeros((3, 3), np.uint8), np.zeros((3, 3, 2), np.uint8), np.zeros((0, 3, 3), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            Picture(pixels)
    with pytest.raises(ValueError, match="alpha is"):
        Picture(smooth(), np.zeros((3, 3), np.uint8))


def test_xmp_of_a_png_is_not_text(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP % 1)
    info.add_text("Title", "A picture")
    Image.fromarray(smooth()).save(tmp_path / "in.png", pnginfo=info)
    found = decode(tmp_path / "in.png").metadata
    assert (found.xmp, found.text) == (XMP % 1, {"Title": "A picture"})


def test_colour_chunks_of_a_png_survive(tmp_path: Path) -> None:
    chunks = {b"gAMA": (45455).to_bytes(4, "big"), b"cHRM": bytes(range(32)), b"cICP": bytes([12, 13, 0, 1])}
    encode(Picture(smooth(), None, Metadata(png=chunks)), tmp_path / "out.png")
    assert decode(tmp_path / "out.png").metadata.png == chunks


def test_iptc_of_type_long_in_a_tiff_is_read(tmp_path: Path) -> None:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory.tagtype[33723] = 4  # long integers, as most programs write it
    block = b"\x1c\x02\x19\x00\x04key1\x1c\x02\x05\0\x02ab"
    directory[33723] = int.from_bytes(block[:4], "little")
    Image.fromarray(smooth()).save(tmp_path / "in.tif", tiffinfo=directory)
    assert decode(tmp_path / "in.tif").metadata.iptc == block[:4]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("channels", "alpha"), [(1, False), (1, True), (3, False), (3, True)])
def test_every_depth_survives_in_tiff_and_png(tmp_path: Path, kind: str, channels: int, alpha: bool) -> None:
    random = np.random.default_rng(3)
    values = random.random((70, 90, channels + alpha), np.float32)
    samples = values if kind == "float32" else (values * np.iinfo(kind).max).astype(kind)
    picture = Picture(samples[..., :channels], samples[..., -1] if alpha else None)
    for suffix in (".tif",) if kind == "float32" else (".tif", ".png"):
        encode(picture, tmp_path / f"out{suffix}")
        found = decode(tmp_path / f"out{suffix}")
        assert found.pixels.dtype == kind
        assert_same(found, picture)


def test_large_tiff_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "_BIGTIFF_BYTES", 1000)
    picture = random_picture(300, 200, 3, alpha=True)
    encode(picture, tmp_path / "out.tif")
    assert (tmp_path / "out.tif").read_bytes()[:4] == b"II+\0"
    assert_same(decode(tmp_path / "out.tif"), picture)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_avif_is_read_in_16_bits(tmp_path: Path, bits: int, channels: int) -> None:
    samples = np.dstack([smooth(), smooth(channels=1)])[..., :channels].astype(np.uint16) * 256
    image = pyvips.Image.new_from_array(samples).copy(interpretation="rgb16")
    (tmp_path / "in.avif").write_bytes(
        image.heifsave_buffer(compression="av1", bitdepth=bits, Q=95, subsample_mode="off")
    )
    header, found = probe(tmp_path / "in.avif"), decode(tmp_path / "in.avif")
    assert (header.depth, header.alpha) == (16, channels == 4)
    assert found.pixels.dtype == np.uint16
    assert np.abs(found.pixels.astype(float) - samples[..., :3]).mean() < 900
    assert np.unique(found.pixels & 255).size > 1


@pytest.mark.parametrize("bits", [10, 12])
def test_white_and_opaque_stay_so_in_deep_avif(tmp_path: Path, bits: int) -> None:
    image = pyvips.Image.new_from_array(np.full((16, 16, 4), 65535, np.uint16)).copy(interpretation="rgb16")
    (tmp_path / "in.avif").write_bytes(image.heifsave_buffer(compression="av1", bitdepth=bits, lossless=True))
    found = decode(tmp_path / "in.avif")
    assert found.pixels.min() == 65535
    assert found.opaque
