"""Unusual and damaged image files, with the pixels expected of each. Damaged files must be refused.

`python tests/image/corpus.py FOLDER` writes them to a folder for inspection.
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
from PIL import Image, TiffImagePlugin

__all__ = ["good", "write_bad", "write_good"]

Array = NDArray[Any]
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, step down, step across of each pass (PNG, section 8.2)."""


def smooth(height: int, width: int, channels: int = 3, peak: int = 255) -> Array:
    """Return smooth gradients, (h, w, c)."""
    y, x = np.mgrid[:height, :width]
    planes = [(3 * x + 2 * y) % 256, (2 * y + x + 60) % 256, (200 - x + y) % 256, 255 - (x + y) % 200]
    kind = np.uint16 if peak > 255 else np.uint8
    return (np.stack(planes[:channels], 2).astype(np.uint32) * peak // 255).astype(kind)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: Array, colour: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """Return a PNG without filters, of any depth, optionally interlaced."""
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
    """Encode samples with Pillow."""
    stream = io.BytesIO()
    image = Image.fromarray(samples.squeeze())
    (image.convert(mode) if mode else image).save(stream, format, **options or {})
    return stream.getvalue()


def vips(samples: Array, options: dict[str, Any]) -> bytes:
    """Encode samples as TIFF with libtiff."""
    data: bytes = pyvips.Image.new_from_array(np.ascontiguousarray(samples)).tiffsave_buffer(**options)
    return data


def tiff(samples: Array, photometric: int, tags: dict[int, Any] | None = None) -> bytes:
    """Return a TIFF of one strip with any tags. Samples are (h, w, c), or raw bytes for 56×40 px in three channels."""
    folder = TiffImagePlugin.ImageFileDirectory_v2()
    height, width, channels = samples.shape if samples.ndim == 3 else (40, 56, 3)
    folder[256], folder[257], folder[258] = width, height, (8 * samples.dtype.itemsize,) * channels
    folder[259], folder[262], folder[277], folder[278] = 1, photometric, channels, height
    for tag, value in (tags or {}).items():
        folder[tag] = value
    folder[273], folder[279] = 0, samples.nbytes
    stream = io.BytesIO()
    folder.save(stream)
    return stream.getvalue() + samples.tobytes()


def chroma(rgb: Array, across: int, down: int) -> Array:
    """Convert RGB to YCbCr with one chroma sample for `across`×`down` px, in the data units of TIFF."""
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    height, width, _ = ycc.shape
    cells = ycc.reshape(height // down, down, width // across, across, 3).transpose(0, 2, 1, 3, 4)
    luma = cells[..., 0].reshape(*cells.shape[:2], -1)
    chromas = np.rint(cells[..., 1:].mean((2, 3))).astype(np.uint8)
    units: Array = np.concatenate([luma, chromas], 2).ravel()
    return units


def good() -> dict[str, tuple[Callable[[], bytes], Array | None]]:
    """Return, by file name, a function that makes the bytes, and the exact pixels (None: about `smooth(40, 56)`)."""
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
        "16-bit-gray-alpha.tif": (lambda: tiff(deep_alpha, 1, {338: 2}), deep_alpha),
        "fax.tif": (
            lambda: pillow(bits, "TIFF", options={"compression": "group4"}),
            np.where(bits[..., None], 255, 0).astype(np.uint8),
        ),
        "pyramid.tif": (
            lambda: vips(smooth(300, 400), {"tile": True, "pyramid": True}),
            smooth(300, 400),
        ),
        "progressive.jpg": (lambda: pillow(rgb, "JPEG", options={"progressive": True}), None),
        "adobe-cmyk.jpg": (lambda: pillow(rgb, "JPEG", "CMYK"), None),
        "ycbcr.tif": (lambda: pillow(rgb, "TIFF", "YCbCr"), None),
        "ycbcr-4:2:0.tif": (lambda: tiff(chroma(rgb, 2, 2), 6, {530: (2, 2)}), None),
        "ycbcr-levels.tif": (lambda: tiff(studio(rgb), 6, {530: (1, 1), 532: STUDIO}), None),
        "jpeg-in.tif": (lambda: vips(rgb, {"compression": "jpeg", "Q": 95}), None),
        "lab.tif": (lambda: lab(rgb, "labs"), None),
        "lab-float.tif": (lambda: lab(rgb, "lab"), None),
        "lab-8.tif": (lambda: tiff(lab_bytes(rgb), 8), None),
        "broken-icc.png": (lambda: pillow(rgb, "PNG", options={"icc_profile": b"nonsense" * 30}), rgb),
        "broken-exif.jpg": (lambda: pillow(rgb, "JPEG", options={"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"}), None),
    }


STUDIO = (16, 235, 128, 240, 128, 240)
"""ReferenceBlackWhite of television: luma 16 to 235, chroma 128 ± 112."""


def studio(rgb: Array) -> Array:
    """Convert RGB to YCbCr in the STUDIO levels, (h, w, 3)."""
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr")).astype(float)
    levels: Array = (ycc - [0, 128, 128]) * [219 / 255, 112 / 127, 112 / 127] + [16, 128, 128]
    return np.rint(levels).astype(np.uint8)


def lab(rgb: Array, space: str) -> bytes:
    """Return a TIFF of Lab in 16 bits ("labs") or floating point ("lab")."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(rgb)).copy(interpretation="srgb")
    data: bytes = image.colourspace(space).tiffsave_buffer()
    return data


def lab_bytes(rgb: Array) -> Array:
    """Convert RGB to 8-bit Lab as TIFF stores it, (h, w, 3): L scaled to 255, a and b signed."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(rgb)).copy(interpretation="srgb").colourspace("lab")
    values = np.rint(image.numpy() * np.array([255 / 100, 1, 1]))
    return np.concatenate([values[..., :1].astype(np.uint8), values[..., 1:].astype(np.int8).view(np.uint8)], 2)


def bad() -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of files that must be refused."""
    rgb = smooth(40, 56)
    sound = {
        "png": png(rgb, 2),
        "jpg": pillow(rgb, "JPEG"),
        "webp": pillow(rgb, "WEBP", options={"lossless": True}),
        "tif": pillow(rgb, "TIFF", options={"compression": "tiff_deflate"}),
        "bmp": pillow(rgb, "BMP"),
        "avif": pillow(rgb, "AVIF"),
        "gif": pillow(rgb, "GIF"),
    }
    for suffix, data in sound.items():
        for tenth in range(1, 10):
            yield f"truncated-{tenth}.{suffix}", data[: len(data) * tenth // 10]
    yield "empty.png", b""
    yield "zeros.png", bytes(5000)
    yield "zeros.tif", b"II*\0" + bytes(5000)
    places = {
        "png": (0.5, 0.9),
        "jpg": (0.25,),
        "webp": (0.01,),
        "tif": (0.5,),
        "bmp": (0.0,),
        "avif": (0.1,),
        "gif": (0.0,),
    }
    for suffix, at in ((suffix, at) for suffix, found in places.items() for at in found):
        flipped = bytearray(sound[suffix])
        flipped[int(len(flipped) * at)] ^= 0xFF
        yield f"flipped-{at:g}.{suffix}", bytes(flipped)
    yield "absurd.png", png(rgb[:1], 2).replace(struct.pack(">II", 56, 1), struct.pack(">II", 2**31 - 1, 2**31 - 1))
    yield from bombs(sound)


def bombs(sound: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield small files whose headers state 40,000×25,000 px, more than their data can expand to."""
    zeros = zlib.compress(bytes(10**8), 9)
    turned = chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHHI", 274, 3, 1, 6, 0, 0))
    for name, interlaced, extra in (("bomb", 0, b""), ("bomb-interlaced", 1, b""), ("bomb-turned", 0, turned)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 25_000, 8, 2, 0, 0, interlaced))
        yield f"{name}.png", b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")
    bmp, jpeg, avif = bytearray(sound["bmp"]), bytearray(sound["jpg"]), bytearray(sound["avif"])
    struct.pack_into("<ii", bmp, 18, 40_000, 25_000)
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 25_000, 40_000)
    struct.pack_into(">II", avif, avif.index(b"ispe") + 8, 40_000, 25_000)
    progressive = bytes(jpeg).replace(b"\xff\xc0", b"\xff\xc2", 1)
    yield from (("bomb.bmp", bytes(bmp)), ("bomb.jpg", bytes(jpeg)), ("bomb.avif", bytes(avif)))
    yield "bomb-progressive.jpg", progressive
    yield "bomb.gif", sound["gif"][:6] + struct.pack("<HH", 40_000, 25_000) + sound["gif"][10:]
    yield "bomb.tif", tiff(np.zeros(100_000, np.uint8), 2, {256: 40_000, 257: 25_000, 278: 25_000})


def write_good(folder: Path) -> dict[str, Array | None]:
    """Write the valid files and return the expected pixels of each name."""
    files = good()
    for name, (make, _) in files.items():
        (folder / name).write_bytes(make())
    return {name: held for name, (_, held) in files.items()}


def write_bad(folder: Path) -> list[str]:
    """Write the damaged files and return their names."""
    names = []
    for name, data in bad():
        (folder / name).write_bytes(data)
        names.append(name)
    return names


if __name__ == "__main__":
    (folder := Path(sys.argv[1])).mkdir(exist_ok=True)
    write_good(folder)
    write_bad(folder)
