"""Metadata survives conversion to every format that can store it, and stays correct."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from restore_cli.image.codec import decode, encode, write_streams
from restore_cli.image.formats import tiff_writer as tiff
from restore_cli.image.metadata.collect import encode_raw_profile, update_size
from restore_cli.image.metadata.exif import add_resolution, read_resolution, reset_orientation, set_size
from restore_cli.image.picture import Metadata, Picture
from restore_cli.image.stream import stream_picture
from restore_cli.image.writers import EncoderOptions

FORMATS = (".png", ".jpg", ".tif", ".webp", ".avif", ".bmp")
IPTC = b"\x1c\x02\x19\x00\x04key1"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a exif:PixelXDimension="%d" tiff:ImageLength="%d"/></x:xmpmeta>'
PLAIN = Picture(np.full((16, 24, 3), 99, np.uint8))


def exif_of(tags: dict[int, object], inner: dict[int, object] | None = None) -> bytes:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    if inner:
        exif[ExifTags.IFD.Exif] = inner
    return exif.tobytes()


def loaded(exif: bytes | None) -> Image.Exif:
    found = Image.Exif()
    found.load(exif or b"")
    return found


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_resolution_survives_between_all_formats(tmp_path: Path, first: str, second: str) -> None:
    encode(Picture(PLAIN.pixels, None, Metadata(dpi=(300.0, 150.0))), tmp_path / f"a{first}")
    encode(decode(tmp_path / f"a{first}"), tmp_path / f"b{second}")
    assert decode(tmp_path / f"b{second}").metadata.dpi == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_resolution_is_invented(tmp_path: Path, suffix: str) -> None:
    encode(PLAIN, tmp_path / f"a{suffix}")
    assert decode(tmp_path / f"a{suffix}").metadata.dpi is None


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_very_high_resolution_survives(tmp_path: Path, suffix: str) -> None:
    fine = (254_000.0, 254_000.0)  # one px is a tenth of a micrometre; a JPEG cannot store this
    encode(Picture(PLAIN.pixels, None, Metadata(dpi=fine)), tmp_path / f"a{suffix}")
    found = decode(tmp_path / f"a{suffix}")
    assert found.metadata.dpi == fine
    encode(found, tmp_path / "b.jpg")
    assert decode(tmp_path / "b.jpg").metadata.dpi is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_adding_a_resolution_to_exif_moves_no_other_data(order: str) -> None:
    head = b"II*\0" if order == "<" else b"MM\0*"
    body = struct.pack(order + "IHHHIIHHI4sI", 8, 2, 271, 2, 6, 38, 34665, 4, 1, struct.pack(order + "I", 44), 0)
    block = b"Exif\0\0" + head + body + b"Maker\0" + struct.pack(order + "HHHI4sI", 1, 0x9003, 2, 4, b"2020", 0)
    found = add_resolution(block, (300.0, 72.5))
    assert found is not None
    assert found[10 + 4 :].startswith(block[10 + 4 :])
    assert read_resolution(found) == (300.0, 72.5)
    assert loaded(found)[271] == "Maker"
    assert 0x9003 in loaded(found).get_ifd(ExifTags.IFD.Exif)
    assert add_resolution(found, (1.0, 1.0)) == found
    assert read_resolution(add_resolution(None, (96.0, 96.0))) == (96.0, 96.0)


def test_stated_sizes_are_updated() -> None:
    block = exif_of({256: 24, 257: 16, 271: "Maker"}, {0xA002: 24, 0xA003: 16, 0x9003: "2020:01:02 03:04:05"})
    found = update_size(Metadata(exif=block, xmp=XMP % (24, 16)), 100_000, 32)
    tags = loaded(found.exif)
    assert (tags[256], tags[257], tags[271]) == (100_000, 32, "Maker")
    inner = tags.get_ifd(ExifTags.IFD.Exif)
    assert (inner[0xA002], inner[0xA003], inner[0x9003]) == (100_000, 32, "2020:01:02 03:04:05")
    assert found.xmp == XMP % (100_000, 32)
    bare = exif_of({271: "Maker"})
    assert set_size(bare, 5, 5) == bare  # no size is added
    assert update_size(Metadata(), 5, 5) == Metadata()


@pytest.mark.parametrize("tail", [b"", b"what stands behind it"])
def test_thumbnail_is_erased(tail: bytes) -> None:
    thumbnail = b"\xff\xd8" + b"the face that was cropped away" + b"\xff\xd9"
    first = struct.pack("<IHHHI4sI", 8, 1, 271, 2, 4, b"Mak\0", 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x201, 4, 1, 56, 0x202, 4, 1, len(thumbnail), 0)
    block = b"Exif\0\0II*\0" + first + second + thumbnail + tail
    assert block[6 + 56 :].startswith(thumbnail)
    _, found = reset_orientation(block)
    assert found is not None
    assert b"cropped" not in found
    assert found.endswith(tail)
    assert loaded(found)[271] == "Mak"
    assert not loaded(found).get_ifd(ExifTags.IFD.IFD1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_exif_directories_keep_their_types_in_a_tiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, big: bool
) -> None:
    if big:
        monkeypatch.setattr(tiff, "_BIGTIFF_BYTES", 100)
    main = struct.pack(order + "HHHIIHHIII", 2, 34665, 4, 1, 38, 34853, 4, 1, 76, 0)  # from 8 on
    photo = struct.pack(order + "HHHI4sHHIII", 2, 0x9000, 7, 4, b"0232", 0x829A, 5, 1, 68, 0)  # from 38 on
    place = struct.pack(order + "HHHI4sI", 1, 1, 2, 2, b"N\0\0\0", 0)  # from 76 on
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    block = b"Exif\0\0" + head + main + photo + struct.pack(order + "II", 1, 80) + place
    encode(Picture(PLAIN.pixels, None, Metadata(exif=block)), tmp_path / "out.tif")
    found = loaded(decode(tmp_path / "out.tif").metadata.exif)
    assert found.get_ifd(ExifTags.IFD.Exif) == {0x9000: b"0232", 0x829A: pytest.approx(1 / 80)}
    assert found.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N"}
    encode(decode(tmp_path / "out.tif"), tmp_path / "again.tif")
    for name in ("out.tif", "again.tif"):
        assert struct.pack("<HHQ" if big else "<HHI", 0x9000, 7, 4) + b"0232" in (tmp_path / name).read_bytes()


def test_animated_png_keeps_all_metadata(tmp_path: Path) -> None:
    metadata = Metadata(
        None, exif_of({271: "Maker"}), XMP % (24, 16), (300.0, 300.0), {"Title": "Größe", "A": "b"}, IPTC
    )
    frames = [stream_picture(Picture(PLAIN.pixels + i, None, metadata)) for i in range(2)]
    write_streams(iter(frames), 2, tmp_path / "out.png", "PNG", EncoderOptions())
    found = decode(tmp_path / "out.png", frame=1).metadata
    assert replace(found, duration=None, loop=None) == metadata


@pytest.mark.parametrize("name", ["iptc", "8bim"])
@pytest.mark.parametrize("before", [b"", b"8BIM\x03\xed\0\0\0\0\0\x03abc\0", b"8BIM\x03\xed\x03abc\0\0\0\x02ab"])
def test_iptc_inside_photoshop_resources_of_a_png_is_read(tmp_path: Path, name: str, before: bytes) -> None:
    wrapped = before + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
    info = PngImagePlugin.PngInfo()
    info.add_text(f"Raw profile type {name}", encode_raw_profile(name, wrapped).decode())
    Image.fromarray(PLAIN.pixels).save(tmp_path / "in.png", pnginfo=info)
    for suffix in (".tif", ".jpg", ".png"):
        encode(decode(tmp_path / "in.png"), tmp_path / f"out{suffix}")
        assert decode(tmp_path / f"out{suffix}").metadata.iptc == IPTC


def test_exif_and_xmp_in_png_texts_are_read(tmp_path: Path) -> None:
    blocks = {"APP1": exif_of({271: "Maker"}), "xmp": XMP % (24, 16)}
    info = PngImagePlugin.PngInfo()
    for name, block in blocks.items():
        info.add_text(f"Raw profile type {name}", encode_raw_profile(name, block).decode())
    Image.fromarray(PLAIN.pixels).save(tmp_path / "in.png", pnginfo=info)
    found = decode(tmp_path / "in.png").metadata
    assert (found.exif, found.xmp, found.text) == (blocks["APP1"], blocks["xmp"], {})


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png", ".webp", ".avif"])
def test_windows_tags_of_a_tiff_survive(tmp_path: Path, suffix: str) -> None:
    tags: dict[int, object] = {0x4746: 4, 0x9C9B: "Titel".encode("utf-16-le"), 269: "Folio 3"}
    encode(Picture(PLAIN.pixels, None, Metadata(exif=exif_of(tags))), tmp_path / "in.tif")
    encode(decode(tmp_path / "in.tif"), tmp_path / f"out{suffix}")
    found = loaded(decode(tmp_path / f"out{suffix}").metadata.exif)
    assert {tag: found[tag] for tag in tags} == tags
