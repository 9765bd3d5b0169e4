"""Every part of the metadata that is missing from the result is named in a note, and nothing else is."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Run
from corpus import chunk, pillow, png, smooth, tiff, write_good
from icc_profiles import P3
from PIL import Image

from restore_cli.image.codec import decode

RGB = smooth(24, 32)
PROFILE, EXIF = "its colour profile is damaged and left out", "its EXIF is damaged and left out"
BROKEN_EXIF = b"Exif\0\0II*\0\xff\xff\xff\xff"
SHORT_PROFILE = P3[: len(P3) - 40]
BOMB = zlib.compress(bytes(17 << 20))


def with_chunk(kind: bytes, data: bytes) -> Callable[[], bytes]:
    return lambda: png(RGB, 2, extra=chunk(kind, data))


def saved(format: str, **options: Any) -> Callable[[], bytes]:  # noqa: ANN401  # of Pillow's writers
    return lambda: pillow(RGB, format, options=options)


def jpeg_without_a_part() -> bytes:
    """Return a JPEG without the second of its profile's two parts."""
    data = pillow(RGB, "JPEG", options={"icc_profile": P3 + bytes(70_000)})
    start = data.rindex(b"ICC_PROFILE\0") - 4
    (length,) = struct.unpack_from(">H", data, start + 2)
    return data[:start] + data[start + 2 + length :]


def tiff_with(tag: int, value: bytes, kind: int = 7) -> bytes:
    """Return a TIFF whose entry of `tag` states more bytes than the file has."""
    made = tiff(RGB, 2, {tag: value})
    place = made.index(struct.pack("<HH", tag, kind))
    return made[: place + 4] + struct.pack("<II", 10**6, 8) + made[place + 12 :]


def tiff_with_odd_exif() -> bytes:
    """Return a TIFF whose EXIF directory begins beyond the end of the file."""
    made = tiff(RGB, 2, {34665: 7})
    place = made.index(struct.pack("<HH", 34665, 4))
    return made[: place + 8] + struct.pack("<I", 10**6) + made[place + 12 :]


def tiff_with_rational(tag: int) -> bytes:
    """Return a TIFF with a number where text is expected."""
    made = tiff(RGB, 2, {tag: "2026:01:01 00:00:00"})
    place = made.index(struct.pack("<HH", tag, 2))
    return made[: place + 2] + struct.pack("<HI", 5, 1) + made[place + 8 :]


def tiff_with_empty_folder() -> bytes:
    """Return a TIFF with an empty EXIF directory after the pixels."""
    made = tiff(RGB, 2, {34665: 7})
    place = made.index(struct.pack("<HH", 34665, 4))
    return made[: place + 8] + struct.pack("<I", len(made)) + made[place + 12 :] + bytes(6)


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "iccp-garbage.png": (with_chunk(b"iCCP", b"name\0\0garbage"), PROFILE),
    "iccp-short.png": (with_chunk(b"iCCP", b"name\0\0" + zlib.compress(SHORT_PROFILE)), PROFILE),
    "iccp-cut.png": (with_chunk(b"iCCP", b"name\0\0" + zlib.compress(P3)[:-9]), PROFILE),
    "iccp-bomb.png": (
        with_chunk(b"iCCP", b"name\0\0" + BOMB),
        "its colour profile unpacks to more than 16 MiB and is left out",
    ),
    "iccp-large.png": (
        with_chunk(b"iCCP", bytes((64 << 20) + 1)),
        "its colour profile is larger than 64 MiB and left out",
    ),
    "ztxt-garbage.png": (with_chunk(b"zTXt", b"Comment\0\0garbage"), "its text 'Comment' is damaged and left out"),
    "ztxt-bomb.png": (
        with_chunk(b"zTXt", b"a\x1b[2Jb\0\0" + BOMB),
        r"its text 'a\x1b[2Jb' unpacks to more than 16 MiB and is left out",
    ),
    "itxt-garbage.png": (
        with_chunk(b"iTXt", b"Title\0\1\0\0\0garbage"),
        "its text 'Title' is damaged and left out",
    ),
    "itxt-ends.png": (with_chunk(b"iTXt", b"Title\0\0\0de"), "a text is damaged and left out"),
    "text-ends.png": (with_chunk(b"tEXt", b"no separator"), "a text is damaged and left out"),
    "text-large.png": (with_chunk(b"tEXt", bytes((64 << 20) + 1)), "a text is larger than 64 MiB and left out"),
    "text-twice.png": (
        lambda: png(RGB, 2, extra=chunk(b"tEXt", b"Author\0A") + chunk(b"tEXt", b"Author\0B")),
        "its text 'Author' occurs several times, the last one is kept",
    ),
    "raw-damaged.png": (
        with_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n       9\nxyz\n"),
        "its text 'Raw profile type exif' is damaged and left out",
    ),
    "raw-unknown.png": (
        with_chunk(b"tEXt", b"Raw profile type else\0\nelse\n       2\n1234\n"),
        "its text 'Raw profile type else' has an unknown type and is left out",
    ),
    "exif.png": (with_chunk(b"eXIf", b"nonsense"), EXIF),
    "icc.jpg": (saved("JPEG", icc_profile=SHORT_PROFILE), PROFILE),
    "icc-part.jpg": (jpeg_without_a_part, PROFILE),
    "exif.jpg": (saved("JPEG", exif=BROKEN_EXIF), EXIF),
    "icc.webp": (saved("WEBP", icc_profile=SHORT_PROFILE, lossless=True), PROFILE),
    "exif.webp": (saved("WEBP", exif=BROKEN_EXIF, lossless=True), EXIF),
    "icc.avif": (saved("AVIF", icc_profile=SHORT_PROFILE), PROFILE),
    "icc.tif": (lambda: tiff(RGB, 2, {34675: SHORT_PROFILE}), PROFILE),
    "icc-cut.tif": (lambda: tiff_with(34675, P3), PROFILE),
    "xmp-cut.tif": (lambda: tiff_with(700, b"<x:xmpmeta/>", 1), "its XMP is damaged and left out"),
    "artist-cut.tif": (lambda: tiff_with(315, b"somebody", 2), "its tag Artist is damaged and left out"),
    "exif.tif": (tiff_with_odd_exif, EXIF),
    "exif-date.tif": (lambda: tiff_with_rational(306), EXIF),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_metadata_is_left_out_with_a_note(tmp_path: Path, name: str) -> None:
    make, expected = DAMAGED[name]
    (tmp_path / name).write_bytes(make())
    found = decode(tmp_path / name)
    assert found.metadata.left_out == (expected,)
    assert found.metadata.icc is None
    assert found.pixels.shape == RGB.shape


def test_valid_files_have_no_notes(tmp_path: Path) -> None:
    noted = {name for name in write_good(tmp_path) if decode(tmp_path / name).metadata.left_out}
    assert noted == {"broken-icc.png", "broken-exif.jpg"}
    assert decode(io.BytesIO(tiff_with_empty_folder())).metadata.left_out == ()


@pytest.mark.parametrize("name", ["iccp-garbage.png", "ztxt-bomb.png", "icc-part.jpg", "exif.webp", "icc-cut.tif"])
def test_note_is_in_the_result(name: str, restore: Run, x1: Path) -> None:
    make, expected = DAMAGED[name]
    Path(name).write_bytes(make())
    asked = ["denoise", "--weights", x1, name, "-o", "out.png"]
    ran = restore(*asked)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0].endswith(f" s; {expected})")
    assert json.loads(restore(*asked, "--json", "--overwrite").out.splitlines()[0])["notes"] == [expected]


def photo(**parts: int) -> bytes:
    """Return a PNG with metadata blocks of the given sizes in bytes."""
    exif = Image.Exif()
    exif[270] = "x" * parts.get("exif", 10)
    extra = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    extra += chunk(b"tEXt", b"Comment\0" + b"y" * parts.get("comment", 10))
    packet = b"<x:xmpmeta>" + b" " * parts.get("xmp", 10) + b"</x:xmpmeta>"
    extra += chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet)
    iptc = b"\x1c\x02\x78" + struct.pack(">H", 0) + bytes(parts.get("iptc", 10))
    text = "\n".join(["", "iptc", f"{len(iptc):8d}", iptc.hex(), ""]).encode()
    extra += chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text))
    extra += chunk(b"pHYs", struct.pack(">IIB", parts.get("density", 5000), parts.get("density", 5000), 1))
    return png(RGB, 2, extra=extra)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, []),
        ({"exif": 70_000}, ["its EXIF is left out: a JPEG can store 65533 bytes of it"]),
        ({"xmp": 70_000}, ["its XMP is left out: a JPEG can store 65504 bytes of it"]),
        ({"iptc": 70_000}, ["its IPTC is left out: a JPEG can store 65493 bytes of it"]),
        ({"comment": 70_000}, ["its text 'Comment' is left out: a JPEG can store 65533 bytes of it"]),
        ({"density": 2**23}, ["its resolution is left out: a JPEG can store at most 65535 dpi"]),
    ],
)
def test_metadata_too_large_for_a_jpeg_is_noted(
    parts: dict[str, int], expected: list[str], restore: Run, x1: Path
) -> None:
    Path("in.png").write_bytes(photo(**parts))
    ran = restore("denoise", "--weights", x1, "in.png", "-o", "out.jpg", "--json")
    assert (ran.code, json.loads(ran.out.splitlines()[0])["notes"]) == (0, expected)
    found = decode(Path("out.jpg")).metadata
    density = found.dpi if found.dpi != (72, 72) else None  # Pillow's default without a value in EXIF
    held = {"exif": found.exif, "xmp": found.xmp, "iptc": found.iptc, "comment": found.text, "density": density}
    assert [name for name, value in held.items() if not value] == list(parts)


@pytest.mark.parametrize("suffix", ["tif", "avif"])
def test_exif_that_cannot_be_rewritten_is_noted(suffix: str, restore: Run, x1: Path) -> None:
    rational_date = struct.pack("<HHII", 306, 5, 1, 26)
    misfit = b"II*\0\x08\0\0\0\1\0" + rational_date + struct.pack("<III", 0, 1, 2)
    resolution = chunk(b"pHYs", struct.pack(">IIB", 5000, 5000, 1))
    Path("in.png").write_bytes(png(RGB, 2, extra=chunk(b"eXIf", misfit) + resolution))
    ran = restore("denoise", "--weights", x1, "in.png", "-o", f"out.{suffix}", "--json")
    title = {"tif": "TIFF", "avif": "AVIF"}[suffix]
    note = f"its EXIF is left out: it cannot be written to {title}"
    assert (ran.code, json.loads(ran.out.splitlines()[0])["notes"]) == (0, [note])
    assert decode(Path(f"out.{suffix}")).metadata.dpi == pytest.approx((127, 127))
