"""Reproducibly damaged files of every format, for fuzzing."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from corpus import good, smooth
from icc_profiles import P3
from PIL import Image

from restore_cli.image.codec import encode
from restore_cli.image.picture import Metadata, Picture

__all__ = ["FORMATS", "damaged_files"]

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP"}
FORMATS |= {"avif": "AVIF", "heic": "AVIF", "gif": "GIF"}
"""The format of the files made for each suffix. A HEIC is an AVIF with another brand."""

EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
NAMES = [
    b"IHDR",
    b"IDAT",
    b"tRNS",
    b"acTL",
    b"\xff\xd8\xff",
    b"\xff\xda",
    b"\xff\xe1",
    b"VP8X",
    b"ispe",
    b"meta",
    b"II*\0",
]


def sound_files(suffix: str, folder: Path) -> list[bytes]:
    """Return several valid files of a format, with metadata."""
    format, rgb = FORMATS[suffix], smooth(24, 31)
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHHI", 274, 3, 1, 6, 0, 0)
    metadata = Metadata(P3, exif, b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", (300.0, 300.0), {"Title": "mutated"})
    pictures = [Picture(rgb, None, metadata)]
    if format not in ("JPEG", "BMP"):
        pictures.append(Picture(rgb, smooth(24, 31, 1)[..., 0]))
    found = []
    for picture in pictures if format != "GIF" else []:
        encode(picture, folder / "sound", format=format)
        found.append((folder / "sound").read_bytes())
    if format not in ("JPEG", "BMP"):
        frames = [Image.fromarray(smooth(12, 12)), Image.fromarray(255 - smooth(12, 12))]
        frames[0].save(stream := io.BytesIO(), format, save_all=True, append_images=frames[1:])
        found.append(stream.getvalue())
    Image.fromarray(rgb).convert("L").save(stream := io.BytesIO(), format)
    found.append(stream.getvalue())
    names = [name for name in good() if name.endswith(f".{suffix}") and not name.startswith(("1x6", "655", "pyramid"))]
    found += [good()[name][0]() for name in names]
    return [data.replace(b"ftypavif", b"ftypheic") for data in found] if suffix == "heic" else found


def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Damage a file in one to four ways. Half of the PNGs get correct checksums afterwards."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = chance.choice(DAMAGES)(data, other, chance)
    return with_checksums(data) if data.startswith(b"\x89PNG") and chance.random() < 0.5 else data


Damage = Callable[[bytes, bytes, random.Random], bytes]


def flip_bits(data: bytes, other: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 3, 30)) if out else 0):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def set_number(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Set a number near the start, where headers are, to an extreme value."""
    size, order = chance.choice((1, 2, 4)), chance.choice("<>")
    form = f"{order}{ {1: 'B', 2: 'H', 4: 'I'}[size] }"
    at = chance.randrange(max(1, min(len(data) - size, chance.choice((64, 512, 1 << 20)))))
    return data[:at] + struct.pack(form, chance.choice(EXTREMES) % 256**size) + data[at + size :]


def cut(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def remove_part(data: bytes, other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.choice((1, 2, 16, 200)) :]


def repeat_part(data: bytes, other: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data) + 1), chance.choice((1, 8, 100, 1000))
    return data[: at + size] + data[at : at + size] * chance.choice((1, 3)) + data[at + size :]


def insert_name(data: bytes, other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(NAMES) + data[at:]


def clear_part(data: bytes, other: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data) + 1), min(chance.choice((4, 64, 1024)), len(data))
    return data[:at] + bytes([chance.choice((0, 255))]) * size + data[at + size :]


def join_another(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


DAMAGES: list[Damage] = [flip_bits, set_number, cut, remove_part, repeat_part, insert_name, clear_part, join_another]


def with_checksums(data: bytes) -> bytes:
    """Correct the checksum of each chunk of a PNG, as far as the chunk lengths are valid."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def damaged_files(suffix: str, folder: Path, count: int) -> list[bytes]:
    """Return `count` damaged files of a format, the same in every run. `folder` is for temporary files."""
    files = sound_files(suffix, folder)
    chance = random.Random(suffix)
    return [mutated(files[i % len(files)], chance.choice(files), chance) for i in range(count)]
