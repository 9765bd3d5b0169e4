"""Strips that several threads compress: one valid zlib stream, whatever the blocks and the number of threads."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore_cli.image.formats import strips
from restore_cli.image.formats.png import combine_checksums, write_png
from restore_cli.image.formats.strips import map_in_order
from restore_cli.image.formats.tiff_writer import write_tiff
from restore_cli.image.picture import Samples
from restore_cli.image.stream import PixelStream

HEIGHT, WIDTH = 700, 900
SMOOTH = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[..., None] * np.array([1, 2, 3])
PIXELS = (SMOOTH // 8 + np.random.default_rng(0).integers(0, 5, SMOOTH.shape)).astype(np.uint8)


def stream(pixels: Samples, block: int) -> PixelStream:
    """The pixels in blocks of `block` rows."""
    blocks = (pixels[top : top + block] for top in range(0, len(pixels), block))
    return PixelStream(pixels.shape[1], pixels.shape[0], pixels.shape[2], pixels.dtype, blocks)


def png(pixels: Samples, block: int) -> bytes:
    sink = io.BytesIO()
    write_png(stream(pixels, block), sink)
    return sink.getvalue()


def tiff(pixels: Samples, block: int) -> bytes:
    sink = io.BytesIO()
    write_tiff(iter([stream(pixels, block)]), sink, pixels.nbytes)
    return sink.getvalue()


def idat(file: bytes) -> bytes:
    """The joined pixel data of a PNG."""
    at, data = 8, b""
    while at < len(file):
        length, kind = struct.unpack_from(">I4s", file, at)
        data += file[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return data


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS.astype(np.uint16) * 257, PIXELS[:1, :1], PIXELS[:, :1, :1]])
def test_the_strips_of_a_png_form_one_zlib_stream(pixels: Samples) -> None:
    engine = zlib.decompressobj()
    rows = engine.decompress(idat(png(pixels, 64)))
    assert engine.eof  # the checksum is right
    assert not engine.unused_data
    assert len(rows) == pixels.nbytes + len(pixels)  # one filter type per row


@pytest.mark.parametrize("encode", [png, tiff])
def test_files_do_not_depend_on_blocks_or_threads(
    encode: Callable[[Samples, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {encode(PIXELS, block) for block in (1, 64, HEIGHT)}
    monkeypatch.setattr(strips, "MAX_THREADS", 1)
    assert files == {encode(PIXELS, 100)}


def test_png_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png(PIXELS, 33))
    assert np.array_equal(np.asarray(Image.open(file)), PIXELS)


@pytest.mark.parametrize("cut", [0, 1, 5551, 70000])
def test_checksums_of_parts_combine(cut: int) -> None:
    data = np.random.default_rng(1).integers(0, 256, 200_000, np.uint8).tobytes()
    parts = zlib.adler32(data[:cut]), zlib.adler32(data[cut:])
    assert combine_checksums(*parts, len(data) - cut) == zlib.adler32(data)


def test_few_strips_wait() -> None:
    """A strip is taken only when a thread is nearly ready for it."""
    taken = 0

    def count() -> Iterator[int]:
        nonlocal taken
        for taken in range(1, 101):
            yield -taken

    for done, _ in enumerate(map_in_order(str, count()), 1):
        assert taken - done <= strips.MAX_THREADS


def test_an_error_in_a_strip_reaches_the_caller() -> None:
    def fail(strip: int) -> int:
        if strip == 3:
            raise MemoryError("strip 3")
        return strip

    before = threading.active_count()
    with pytest.raises(MemoryError, match="strip 3"):
        list(map_in_order(fail, range(100)))
    assert threading.active_count() == before
