"""Odd and damaged files, made here: what each should come out as, or that it should be refused.

`python tests/image/corpus.py FOLDER` writes them for a look with other tools.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image

__all__ = ["good", "write_bad", "write_good"]

Array = NDArray[Any]
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, step down, step across of each pass (PNG, section 8.2)."""


def smooth(height: int, width: int, channels: int = 3, peak: int = 255) -> Array:
    """(h, w, c) slopes."""
    y, x = np.mgrid[:height, :width]
    planes = [(3 * x + 2 * y) % 256, (2 * y + x + 60) % 256, (200 - x + y) % 256, 255 - (x + y) % 200]
    kind = np.uint16 if peak > 255 else np.uint8
    return (np.stack(planes[:channels], 2).astype(np.uint32) * peak // 255).astype(kind)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: Array, colour: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A PNG without filters, of any depth, optionally interlaced."""
    height, width = samples.shape[:2]
    bits = 8 * samples.dtype.itemsize
    passes = [samples[y::down, x::across] for y, x, down, across in ADAM7] if interlaced else [samples]
    raw = b"".join(
        b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for part in passes if part.shape[1] for row in part
    )
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pillow(samples: Array, format: str, mode: str | None = None, options: dict[str, Any] | None = None) -> bytes:
    """What Pillow writes."""
    stream = io.BytesIO()
    image = Image.fromarray(samples.squeeze())
    (image.convert(mode) if mode else image).save(stream, format, **options or {})
    return stream.getvalue()


def vips(samples: Array, options: dict[str, Any]) -> bytes:
    """A TIFF as libtiff writes it."""
    data: bytes = pyvips.Image.new_from_array(np.ascontiguousarray(samples)).tiffsave_buffer(**options)
    return data


def good() -> dict[str, tuple[Callable[[], bytes], Array | None]]:
    """Name -> (its bytes, the colours and alpha that it holds; None where a lossy format does)."""
    rgb, deep, gray = smooth(40, 56), smooth(40, 56, 3, 65535), smooth(40, 56, 1)
    deep_alpha = smooth(40, 56, 2, 65535)
    bits = gray[..., 0] > 100
    palette = bytes(range(0, 240, 20)) * 3
    indices = (np.arange(40 * 56).reshape(40, 56, 1) % 12).astype(np.uint8)
    colours = np.frombuffer(palette, np.uint8).reshape(12, 3)[indices[..., 0]]
    clear = np.where(indices == 5, 0, 255).astype(np.uint8)
    plte = chunk(b"PLTE", palette) + chunk(b"tRNS", bytes([255] * 5 + [0]))
    return {
        "16-bit-rgb.png": (lambda: png(deep, 2), deep),
        "16-bit-gray-alpha.png": (lambda: png(deep_alpha, 4), deep_alpha),
        "interlaced.png": (lambda: png(rgb, 2, interlaced=True), rgb),
        "interlaced-16.png": (lambda: png(deep, 2, interlaced=True), deep),
        "palette-alpha.png": (lambda: png(indices, 3, extra=plte), np.concatenate([colours, clear], 2)),
        "1-bit.png": (lambda: pillow(bits, "PNG"), np.where(bits[..., None], 255, 0).astype(np.uint8)),
        "1-bit.tif": (lambda: pillow(bits, "TIFF"), np.where(bits[..., None], 255, 0).astype(np.uint8)),
        "1x1.png": (lambda: png(rgb[:1, :1], 2), rgb[:1, :1]),
        "65536x1.png": (lambda: png(smooth(1, 65536), 2), smooth(1, 65536)),
        "1x65536.tif": (lambda: vips(smooth(65536, 1), {"compression": "lzw"}), smooth(65536, 1)),
        "tiled-big.tif": (
            lambda: vips(deep, {"tile": True, "tile_width": 16, "tile_height": 16, "bigtiff": True}),
            deep,
        ),
        "lzw.tif": (lambda: vips(deep, {"compression": "lzw", "predictor": "horizontal"}), deep),
        "float.tif": (lambda: vips((rgb / np.float32(255)).astype(np.float32), {}), (rgb / np.float32(255))),
        "wrong-name.jpg": (lambda: png(rgb, 2), rgb),
        "progressive.jpg": (lambda: pillow(rgb, "JPEG", options={"progressive": True}), None),
        "adobe-cmyk.jpg": (lambda: pillow(rgb, "JPEG", "CMYK"), None),
        "ycbcr.tif": (lambda: pillow(rgb, "TIFF", "YCbCr"), None),
        "lab.tif": (lambda: lab(rgb), None),
        "broken-icc.png": (lambda: pillow(rgb, "PNG", options={"icc_profile": b"nonsense" * 30}), rgb),
        "broken-exif.jpg": (lambda: pillow(rgb, "JPEG", options={"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"}), None),
    }


def lab(rgb: Array) -> bytes:
    """Lab in 16 bits."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(rgb)).copy(interpretation="srgb")
    data: bytes = image.colourspace("labs").tiffsave_buffer()
    return data


def bad() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of files that must be refused."""
    rgb = smooth(40, 56)
    sound = {
        "png": png(rgb, 2),
        "jpg": pillow(rgb, "JPEG"),
        "webp": pillow(rgb, "WEBP", options={"lossless": True}),
        "tif": pillow(rgb, "TIFF", options={"compression": "tiff_deflate"}),
        "bmp": pillow(rgb, "BMP"),
        "avif": pillow(rgb, "AVIF"),
    }
    for suffix, data in sound.items():
        for tenth in range(1, 10):
            yield f"truncated-{tenth}.{suffix}", data[: len(data) * tenth // 10]
    yield "empty.png", b""
    yield "zeros.png", bytes(5000)
    yield "zeros.tif", b"II*\0" + bytes(5000)
    flipped = bytearray(sound["png"])
    flipped[len(flipped) // 2] ^= 4
    yield "flipped.png", bytes(flipped)
    yield "absurd.png", png(rgb[:1], 2).replace(struct.pack(">II", 56, 1), struct.pack(">II", 2**31 - 1, 2**31 - 1))
    header = struct.pack(">IIBBBBB", 40_000, 25_000, 16, 6, 0, 0, 0)
    claim = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    yield "bomb.png", b"\x89PNG\r\n\x1a\n" + claim


def write_good(folder: Path) -> dict[str, Array | None]:
    """Writes the sound files; name -> what they hold."""
    files = good()
    for name, (make, _) in files.items():
        (folder / name).write_bytes(make())
    return {name: held for name, (_, held) in files.items()}


def write_bad(folder: Path) -> list[str]:
    """Writes the damaged files; their names."""
    names = []
    for name, data in bad():
        (folder / name).write_bytes(data)
        names.append(name)
    return names


if __name__ == "__main__":
    (folder := Path(sys.argv[1])).mkdir(exist_ok=True)
    write_good(folder)
    write_bad(folder)
