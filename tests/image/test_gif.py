"""GIF: each frame as it is displayed, with its timing; damaged files are refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from restore_cli.errors import ImageError
from restore_cli.image.picture_source import PictureSource
from restore_cli.image.source import open_source

Bytes = NDArray[np.uint8]
RED, GREEN = (255, 0, 0, 255), (0, 255, 0, 255)


def write_block(disposal: int, delay: int, at: tuple[int, int, int, int], index: int, clear: bool) -> bytes:
    """Return one frame of a single colour of the palette: red, green, or transparent."""
    control = bytes([0x21, 0xF9, 4, disposal << 2 | clear, delay, 0, 2, 0])
    left, top, width, height = at
    place = b"".join(value.to_bytes(2, "little") for value in (left, top, width, height))
    codes = [4, *[code for _ in range(width * height) for code in (index, 4)], 5]  # cleared after each px: 3 bits each
    bits = sum(code << 3 * i for i, code in enumerate(codes))
    data = bits.to_bytes((3 * len(codes) + 7) // 8, "little")
    return control + b"\x2c" + place + b"\0" + bytes([2, len(data)]) + data + b"\0"


def gif(*frames: bytes, side: int = 4) -> bytes:
    """Return a GIF of those frames that repeats for ever."""
    palette = bytes([255, 0, 0, 0, 255, 0, 9, 9, 9, 0, 0, 0])
    head = b"GIF89a" + 2 * side.to_bytes(2, "little") + bytes([0x81, 0, 0]) + palette
    return head + b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0" + b"".join(frames) + b"\x3b"


def read(data: bytes, frame: int = 0) -> tuple[PictureSource, Bytes]:
    source = open_source(io.BytesIO(data), frame=frame)
    return source, source.open_rows().read(0, source.header.height)


WHOLE = (0, 0, 4, 4)
ANIMATION = gif(
    write_block(1, 10, WHOLE, 0, clear=False),
    write_block(1, 20, (1, 1, 2, 2), 1, clear=False),
)


def test_a_frame_is_drawn_over_those_before_it() -> None:
    source, samples = read(ANIMATION, 1)
    expected = np.full((4, 4, 3), RED[:3], np.uint8)
    expected[1:3, 1:3] = GREEN[:3]
    np.testing.assert_array_equal(samples, expected)
    assert (source.header.frames, source.header.alpha) == (2, False)


def test_timing_is_kept() -> None:
    found = [read(ANIMATION, i)[0].metadata for i in range(2)]
    assert [page.duration for page in found] == [100, 200]
    assert found[0].loop == 0


def test_a_transparent_colour_of_any_frame_gives_all_of_them_alpha() -> None:
    data = gif(write_block(1, 1, WHOLE, 0, clear=False), write_block(2, 1, WHOLE, 2, clear=True))
    for frame in range(2):
        source, samples = read(data, frame)
        assert source.header.alpha
        np.testing.assert_array_equal(samples, np.full((4, 4, 4), RED))


def test_gray_palettes_are_colour_images() -> None:
    """A later frame may have another palette."""
    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, "GIF")
    source, samples = read(file.getvalue())
    assert source.header.channels == 3
    np.testing.assert_array_equal(samples[..., 0], np.arange(64).reshape(8, 8))


@pytest.mark.parametrize("length", range(13, len(ANIMATION)))
def test_a_truncated_file_is_refused(length: int) -> None:
    with pytest.raises(ImageError, match="damaged GIF: truncated"):
        read(ANIMATION[:length])


def test_a_frame_beyond_the_canvas_is_refused() -> None:
    with pytest.raises(ImageError, match="damaged GIF: frame 1 reaches beyond the 4×4 px of its header"):
        read(gif(write_block(1, 1, (2, 0, 4, 4), 0, clear=False)))


def test_a_missing_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="contains 2 pictures; --frame 3 does not exist"):
        read(ANIMATION, 2)
