"""JPEG XL keeps depth, transparency and metadata, or one line says what cannot be kept or is not installed."""

from __future__ import annotations

import random
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from command import Run
from corpus import smooth
from icc_profiles import GRAY_22, LINEAR, P3
from PIL import Image

from restore_cli.errors import ImageError
from restore_cli.image.codec import decode, encode, probe
from restore_cli.image.formats.jxl_header import read_header
from restore_cli.image.picture import Metadata, Picture, Samples
from restore_cli.image.reasons import UnreadableImage, UnsupportedImage

# Files that libjxl 0.11.2 has made through another library.
ANIMATION = b64decode("/wpBBE0AICYIBAEAPABLGIsVgB3U/wAY0K+a0AAIBAUAPABLGIsVgF3U/wAYkq6aYAA=")
GRAY_AND_TWO_CHANNELS = b64decode("/wpBQIEOoANQ3AgIQAABADwASxiLFYAd1P8AGNCvmtAA")
TURNED_JPEG = b64decode(
    "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAASanhscAAAAAD/CsEtEBMAAABPamJyZMBw2wCCIAgtAwJAIgChRoEkAAAAIPv/"
    "RAAAAADwvyIAAAAA+H8RAAAAAPwv8AMAlQUACwiA4AAQSkZJRgABAQAAAQABAAADAAAAJ2Jyb2JFeGlmGx0AAARxYzuCmC3R1C1ZLIo04N9h"
    "JKsogA0AAAAAvWp4bHCAAAAB4FsAEACoAoh4CHiIeP7/DgAAGAAIAAEAAAAAAICAJYnkiLu5HgIAQJmsxT0BCoUhKSiQXDIyNkbGGBkjY4xS"
    "jDEyxkhTmaoJBADgwZAH0OkGwAkgBp0zjUFoLUYrO1MpksRM7D5CwYh7BESL/NAlV5nsik2odF6JTAIvt4EGkixOZFNQdLMKkj+R069KLZBs"
    "QZP6BreOX2gqn1AFjZHg/gRgvaPYSBqCAAAAAAAAShIA"
)
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\1\0\0\0\0\0\0"
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
NO_EXTRA = r"JPEG XL needs an optional package \(try: pip install '\.\[jxl\]'"


def draw(kind: str, channels: int) -> Samples:
    """Return every value that is hard to keep: the ends of the range, and for floats values beyond it."""
    if kind == "float32":
        return (smooth(24, 31, channels).astype(np.float32) - 100) / 77
    return smooth(24, 31, channels, np.iinfo(kind).max).astype(kind)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_samples_stay_the_same(tmp_path: Path, kind: str, channels: int, alpha: bool) -> None:
    picture = Picture(draw(kind, channels), draw(kind, 1)[..., 0] if alpha else None)
    encode(picture, tmp_path / "out.jxl")
    header, found = probe(tmp_path / "out.jxl"), decode(tmp_path / "out.jxl")
    assert (header.format, header.width, header.height, header.channels) == ("JXL", 31, 24, channels)
    assert (header.depth, header.alpha) == (8 * picture.pixels.itemsize, alpha)
    assert np.array_equal(found.pixels, picture.pixels)
    assert np.array_equal(found.alpha, picture.alpha) if alpha else found.alpha is None  # type: ignore[arg-type]
    assert found.metadata.icc is None


@pytest.mark.parametrize(("channels", "icc"), [(3, P3), (3, LINEAR), (1, GRAY_22)])
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_profile_exif_and_xmp_stay_the_same(tmp_path: Path, channels: int, icc: bytes, kind: str) -> None:
    encode(Picture(draw(kind, channels), None, Metadata(icc, EXIF, XMP)), tmp_path / "out.jxl")
    found = decode(tmp_path / "out.jxl").metadata
    assert (found.icc, found.exif, found.xmp) == (icc, EXIF, XMP)


def test_the_command_keeps_16_bits(tmp_path: Path, restore: Run, x1: Path) -> None:
    picture = Picture(draw("uint16", 3), draw("uint16", 1)[..., 0], Metadata(P3, EXIF, XMP))
    encode(picture, tmp_path / "in.png")
    encode(picture, tmp_path / "in.jxl")
    for source in ("in.png", "in.jxl"):
        assert restore("denoise", source, "-o", f"{source}.jxl", "--weights", x1).code == 0
    assert restore("denoise", "in.png", "-o", "out.png", "--weights", x1).code == 0
    expected = decode(tmp_path / "out.png")
    assert expected.pixels.dtype == np.uint16
    for name in ("in.png.jxl", "in.jxl.jxl"):
        found = decode(tmp_path / name)
        assert np.array_equal(found.pixels, expected.pixels)
        assert np.array_equal(found.alpha, expected.alpha)  # type: ignore[arg-type]
        assert (found.metadata.icc, found.metadata.exif) == (P3, expected.metadata.exif)
        assert found.metadata.xmp == expected.metadata.xmp


def test_error_names_the_missing_extra(tmp_path: Path, restore: Run, x1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(Picture(draw("uint8", 3)), tmp_path / "in.jxl")
    encode(Picture(draw("uint8", 3)), tmp_path / "in.png")
    monkeypatch.setitem(sys.modules, "pyjpegxl", None)
    with pytest.raises(ImageError, match=rf"in\.jxl: {NO_EXTRA}"):
        probe(tmp_path / "in.jxl")
    ran = restore("denoise", "in.png", "-o", "out.jxl", "--weights", x1)
    assert ran.code == 1
    assert "out.jxl: writing JPEG XL needs an optional package (try: pip install '.[jxl]'" in ran.err
    assert not (tmp_path / "out.jxl").exists()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (ANIMATION, "animated JPEG XL files cannot be read"),
        (GRAY_AND_TWO_CHANNELS, "has extra channels that are not transparency"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path: Path, data: bytes, line: str) -> None:
    (tmp_path / "in.jxl").write_bytes(data)
    with pytest.raises(ImageError, match=line):
        probe(tmp_path / "in.jxl")


def test_orientation_is_applied_once(tmp_path: Path) -> None:
    """The file is a JPEG of 16×8 px, dark on its left, that is shown after a quarter turn to the right."""
    (tmp_path / "in.jxl").write_bytes(TURNED_JPEG)
    header, found = probe(tmp_path / "in.jxl"), decode(tmp_path / "in.jxl")
    assert (header.width, header.height) == (8, 16)
    assert found.pixels[:6].max() < 60
    assert found.pixels[10:].min() > 190
    assert found.metadata.exif == EXIF


def test_premultiplied_colours_are_divided(tmp_path: Path) -> None:
    alpha = np.full((24, 31), 1 << 15, np.uint16)
    encode(Picture(draw("uint16", 3) // 4, alpha), tmp_path / "in.jxl")
    data = (tmp_path / "in.jxl").read_bytes()
    found = [picture for bit in range(8 * 80) if (picture := decode_premultiplied(flip_bit(data, bit), tmp_path))]
    assert len(found) == 1, "one bit of the header says that colours are multiplied by alpha"
    expected = (draw("uint16", 3) // 4).astype(int) * 65535 / (1 << 15)
    assert np.abs(found[0].pixels.astype(int) - expected).max() <= 1


def flip_bit(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def decode_premultiplied(data: bytes, folder: Path) -> Picture | None:
    """Return the picture of a sound file whose colours are multiplied by alpha, None for other files."""
    try:
        if not read_header(data).premultiplied:
            return None
        (folder / "changed.jxl").write_bytes(data)
        return decode(folder / "changed.jxl", max_pixels=24 * 31)
    except (ImageError, UnreadableImage, UnsupportedImage):
        return None


def test_a_size_beyond_the_limit_takes_no_memory(tmp_path: Path) -> None:
    """The header states 2³⁰ px on each side: no small size, 30 bits for the height, the ratio 1:1, all defaults."""
    bits = 0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33 | 1 << 36
    (tmp_path / "in.jxl").write_bytes(b"\xff\x0a" + bits.to_bytes(5, "little") + bytes(9))
    with pytest.raises(ImageError, match=r"has 1073741824×1073741824 px; the limit is 2,000,000,000 px"):
        probe(tmp_path / "in.jxl")


def test_damaged_files_are_decoded_or_refused(tmp_path: Path) -> None:
    encode(Picture(draw("uint16", 3), None, Metadata(P3, EXIF, XMP)), tmp_path / "in.jxl")
    sound, chance = (tmp_path / "in.jxl").read_bytes(), random.Random(0)
    cut = [sound[: len(sound) * tenth // 10] for tenth in range(1, 10)]
    lines = [try_to_decode(data, tmp_path) for data in (*cut, *(flip_bits(sound, chance) for _ in range(200)))]
    assert all(lines[: len(cut)]), "a file without its end is not decoded"
    assert len([line for line in lines if line]) > 100
    assert not any("\n" in line for line in lines)


def try_to_decode(data: bytes, folder: Path) -> str:
    """Return the error of a file, empty if it can be decoded."""
    (folder / "damaged.jxl").write_bytes(data)
    try:
        decode(folder / "damaged.jxl", max_pixels=1_000_000)
    except ImageError as error:
        return str(error)
    return ""


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    """Flip one to four bits, half of them in the first bytes."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        out[chance.randrange(chance.choice((80, len(out))))] ^= 1 << chance.randrange(8)
    return bytes(out)


def test_nothing_is_registered_and_other_files_need_no_import(tmp_path: Path) -> None:
    encode(Picture(draw("uint8", 3)), tmp_path / "in.jxl")
    decode(tmp_path / "in.jxl")
    assert "JXL" not in {name.upper() for name in (*Image.OPEN, *Image.SAVE)}
    assert ".jxl" not in Image.EXTENSION
    encode(Picture(draw("uint8", 3)), tmp_path / "in.png")
    lines = (
        "import sys; from pathlib import Path",
        "from restore_cli.image.codec import decode; decode(Path(sys.argv[1]))",
        "assert 'pyjpegxl' not in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines), str(tmp_path / "in.png")], check=True)
