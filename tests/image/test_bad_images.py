"""Damaged and unsupported files give an error of one line, never a wrong picture."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from restore_cli.errors import ImageError
from restore_cli.image.codec import decode, encode, probe
from restore_cli.image.metadata.exif import reset_orientation
from restore_cli.image.picture import Metadata, Picture, Pixels

FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF"]


def smooth(height: int = 40, width: int = 48) -> Pixels:
    y, x = np.mgrid[:height, :width]
    return np.stack([(4 * x + 2 * y) % 256, (3 * y + 40) % 256, (200 - 2 * x) % 256], axis=2).astype(np.uint8)


def encoded(format: str, pixels: Pixels | None = None) -> bytes:
    stream = BytesIO()
    Image.fromarray(smooth() if pixels is None else pixels).save(stream, format)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(folder: TiffImagePlugin.ImageFileDirectory_v2, data: bytes) -> bytes:
    folder[TiffImagePlugin.STRIPOFFSETS], folder[TiffImagePlugin.STRIPBYTECOUNTS] = 0, len(data)
    stream = BytesIO()
    folder.save(stream)
    return stream.getvalue() + data


def tiff_of(photometric: int, bits: tuple[int, ...], kind: int = 1, extra: tuple[int, ...] = ()) -> bytes:
    folder = TiffImagePlugin.ImageFileDirectory_v2()
    folder[TiffImagePlugin.IMAGEWIDTH] = folder[TiffImagePlugin.IMAGELENGTH] = 4
    folder[TiffImagePlugin.BITSPERSAMPLE], folder[TiffImagePlugin.SAMPLESPERPIXEL] = bits, len(bits)
    folder[TiffImagePlugin.SAMPLEFORMAT] = (kind,) * len(bits)
    folder[TiffImagePlugin.COMPRESSION], folder[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1, photometric
    if extra:
        folder[TiffImagePlugin.EXTRASAMPLES] = extra
    return tiff(folder, bytes(range(16)) * (sum(bits) // 8))


def refused(data: bytes, tmp_path: Path, name: str = "in.png") -> str:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        decode(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert "object at 0x" not in line
    return line.removeprefix(f"{path}: ")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        decode(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder, not an image"):
        probe(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="Not a directory"):
        decode(tmp_path / "file" / "in.png")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "the file is empty"),
        (
            b"Dear diary, today",
            "not an image in a known format; supported formats: PNG, JPEG, WebP, TIFF, BMP, AVIF, HEIC, GIF, JPEG XL",
        ),
        (b"\x00" * 100, "not an image in a known format"),
        (b"GIF89a" + bytes(50), "damaged GIF: a block of unknown kind 0x00"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "damaged JPEG XL: it contains no image"),
        (b"\0\0\0\x0cjP  " + bytes(50), "JPEG 2000 files cannot be read; supported formats: PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG: the file ends inside its header"),
        (b"\xff\xd8\xff\xe0", "damaged JPEG"),
        (b"BM", "damaged BMP"),
        (b"II*\0\x08\0\0\0", "damaged TIFF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "damaged WebP"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "damaged AVIF"),
        (png(0, 5, 8, 2, b""), "damaged PNG: its header states 0×5 px"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, line: str) -> None:
    assert refused(data, tmp_path).startswith(line)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (tiff_of(1, (32,)), "32 bits per channel"),
        (tiff_of(1, (64,), kind=3), "64-bit floating-point samples"),
        (tiff_of(1, (8,), kind=2), "signed samples"),
        (tiff_of(9, (8,) * 3), "photometric interpretation 9"),
        (tiff_of(5, (8,) * 5, extra=(2,)), "transparency with a palette, CMYK"),
        (tiff_of(2, (8,) * 4, extra=(0,)), "extra channels"),
        (tiff_of(2, (8,) * 4), "extra channels"),
        (tiff_of(2, (8,) * 5, extra=(2, 0)), "extra channels"),
        (tiff_of(2, (8, 16, 8)), "channels have different depths"),
    ],
)
def test_unsupported_tiffs_are_refused_with_a_command(tmp_path: Path, data: bytes, line: str) -> None:
    found = refused(data, tmp_path, "a b.tif")
    assert found.startswith(line)
    assert "(try: magick '" in found
    with pytest.raises(ImageError):
        probe(tmp_path / "a b.tif")


@pytest.mark.parametrize(
    ("data", "kind", "shape"),
    [
        (png(2, 2, 16, 0, bytes(10)), "uint16", (2, 2, 1)),
        (png(2, 2, 16, 2, bytes(26)), "uint16", (2, 2, 3)),
        (png(2, 2, 16, 4, bytes(18)), "uint16", (2, 2, 1)),
        (png(2, 2, 16, 6, bytes(34)), "uint16", (2, 2, 3)),
        (tiff_of(1, (16,)), "uint16", (4, 4, 1)),
        (tiff_of(1, (16, 16), extra=(2,)), "uint16", (4, 4, 1)),
        (tiff_of(2, (16, 16, 16)), "uint16", (4, 4, 3)),
        (tiff_of(2, (32, 32, 32), kind=3), "float32", (4, 4, 3)),
        (tiff_of(1, (32,), kind=3), "float32", (4, 4, 1)),
        (tiff_of(5, (8,) * 4), "uint16", (4, 4, 3)),
        (tiff_of(5, (16,) * 4), "uint16", (4, 4, 3)),
        (tiff_of(6, (8,) * 3), "uint8", (4, 4, 3)),
        (tiff_of(8, (8,) * 3), "uint16", (4, 4, 3)),
        (tiff_of(8, (16,) * 3), "uint16", (4, 4, 3)),
    ],
)
def test_depths_and_colours_are_read(tmp_path: Path, data: bytes, kind: str, shape: tuple[int, ...]) -> None:
    (tmp_path / "in").write_bytes(data)
    found = decode(tmp_path / "in")
    assert (str(found.pixels.dtype), found.pixels.shape) == (kind, shape)


def test_tiff_with_alpha_is_read(tmp_path: Path) -> None:
    (tmp_path / "in.tif").write_bytes(tiff_of(2, (8, 8, 8, 8), extra=(2,)))
    found = decode(tmp_path / "in.tif")
    assert found.alpha is not None
    assert found.alpha[0].tolist() == [3, 7, 11, 15]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_converted(tmp_path: Path, format: str) -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:, 4:, :3] = 255
    inks[4:, :, 3] = 255
    Image.fromarray(inks, "CMYK").save(tmp_path / "c", format)
    found = decode(tmp_path / "c")
    assert found.metadata.icc is None
    assert found.pixels[0, 0].min() > 64000  # no ink: white
    assert found.pixels[7, 7].max() < 9000  # all inks: black


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_frames_are_read_by_number(tmp_path: Path, format: str) -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(255 - smooth())]
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(tmp_path / "a", format, save_all=True, append_images=frames[1:], **options)
    assert probe(tmp_path / "a").frames == 2
    for number, frame in enumerate(frames):
        found = decode(tmp_path / "a", frame=number).pixels[..., :3].astype(int)
        assert np.abs(found - np.asarray(frame)).mean() < (8 if format == "AVIF" else 0.01)
    with pytest.raises(ImageError, match="contains 2 pictures; --frame 3 does not exist"):
        decode(tmp_path / "a", frame=2)


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_files_never_give_a_picture(tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(format)
    ends = [len(data) * tenth // 10 for tenth in range(1, 10)] + [len(data) - 100, len(data) - 20, len(data) - 13]
    for end in ends:
        refused(data[:end], tmp_path)
    assert capfd.readouterr() == ("", "")  # no library prints anything


def test_truncated_tiff_of_our_writer_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encode(Picture(smooth()), tmp_path / "out.tif")
    data = (tmp_path / "out.tif").read_bytes()
    for end in (len(data) // 2, len(data) - 1):
        assert "damaged" in refused(data[:end], tmp_path)
    assert capfd.readouterr() == ("", "")


def test_each_flipped_byte_of_a_png_is_detected(tmp_path: Path) -> None:
    data = encoded("PNG", smooth(12, 12))
    for at in range(8, len(data) - 12):  # only the end chunk follows
        refused(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :], tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_flipped_bytes_never_crash(tmp_path: Path, format: str) -> None:
    data = np.frombuffer(encoded(format), np.uint8)
    random = np.random.default_rng(1)
    for _ in range(60):
        flipped = data.copy()
        flipped[random.integers(0, min(data.size, 700), 3)] ^= random.integers(1, 256, 3, dtype=np.uint8)
        (tmp_path / "in").write_bytes(flipped.tobytes())
        with suppress(ImageError):
            decode(tmp_path / "in", max_pixels=10**6)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(head=st.sampled_from([encoded(format)[:count] for format in FORMATS for count in (4, 12, 40)]), tail=st.binary())
def test_arbitrary_bytes_give_an_error(tmp_path: Path, head: bytes, tail: bytes) -> None:
    (tmp_path / "in").write_bytes(head + tail)
    with pytest.raises(ImageError):
        decode(tmp_path / "in", max_pixels=10**6)


def test_size_limit_applies_to_the_header(tmp_path: Path) -> None:
    bomb = png(40_000, 60_000, 8, 2, bytes(100_000))
    assert refused(bomb, tmp_path).startswith("has 40000×60000 px; the limit is 2,000,000,000 px")
    with pytest.raises(ImageError, match=r"has.*--max-pixels 2400000000"):
        probe(tmp_path / "in.png")
    assert refused(png(30_000, 30_000, 8, 2, bytes(100_000)), tmp_path).startswith("damaged")
    with pytest.raises(ImageError, match=r"has 48×40 px; the limit is 1,000 px"):
        decode(BytesIO(encoded("WEBP")), max_pixels=1000)
    # Pillow alone refuses 360 million px and warns about half as many; "truncated" is the better reason
    assert "truncated" in refused(png(20_000, 20_000, 8, 2, bytes(9))[:-20], tmp_path)


def test_damaged_exif_is_left_out(tmp_path: Path) -> None:
    for number, block in enumerate([b"nonsense", b"II*\0", b"II*\0\xff\xff\0\0", b"MM\0*\0\0\0\x08\xff\xff\1"]):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(smooth()).save(path, exif=b"Exif\0\0" + block)
        assert decode(path).metadata.exif is None


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_orientation_of_arbitrary_bytes_is_valid(block: bytes) -> None:
    for head in (b"", b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08"):
        stated, patched = reset_orientation(head + block)
        assert 1 <= stated <= 8
        assert reset_orientation(patched)[0] == 1


def test_damaged_exif_does_not_stop_tiff_and_avif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    block = bytearray(exif.tobytes())
    block[block.index(b"Maker") - 12 :] = b"\xff" * 40
    misfit = b"Exif\0\0II*\0\x08\0\0\0\2\0" + struct.pack("<HHI4sHHI4sI", 274, 3, 1, b"\1", 306, 7, 4, b"1234", 0)
    for exif_bytes in (bytes(block), b"Exif\0\0II*\0\xff\xff\xff\xff", misfit):
        encode(Picture(smooth(), None, Metadata(exif=exif_bytes)), tmp_path / "out.avif")
        encode(Picture(smooth(), None, Metadata(exif=exif_bytes)), tmp_path / "out.tif")
        assert np.array_equal(decode(tmp_path / "out.tif").pixels, smooth())


@pytest.mark.parametrize("icc", [b"broken", bytes(200), b"\xff" * 40 + bytes(200)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_damaged_profile_is_left_out(tmp_path: Path, icc: bytes, suffix: str) -> None:
    Image.fromarray(smooth()).save(tmp_path / f"in.{suffix}", icc_profile=icc)
    found = decode(tmp_path / f"in.{suffix}")
    assert found.metadata.icc is None
    encode(found, tmp_path / f"out.{suffix}")


def test_damaged_text_and_warnings_are_ignored(tmp_path: Path) -> None:
    twice = chunk(b"acTL", struct.pack(">II", 0, 0))  # Pillow warns of an animation of no frames
    odd = chunk(b"tEXt", b"no separator") + chunk(b"zTXt", b"k\0\0garbage")
    (tmp_path / "in.png").write_bytes(png(2, 1, 8, 2, bytes([0, 1, 2, 3, 4, 5, 6]), twice, odd))
    assert decode(tmp_path / "in.png").pixels.ravel().tolist() == [1, 2, 3, 4, 5, 6]
