"""Comparisons show unchanged px, all images at one size, and every label inside its panel."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from images import Pixels, make_image
from PIL import Image

from restore_cli.errors import ImageError, UsageError
from restore_cli.evaluation import comparison
from restore_cli.evaluation.comparison import (
    GAP,
    Crop,
    Panel,
    align_panels,
    choose_columns,
    choose_font,
    make_page,
    make_sheet,
    make_split,
    shorten_label,
)
from restore_cli.image.picture import Picture


def make_panels(*sides: tuple[int, int]) -> list[Panel]:
    return [Panel(f"{i}.png", Picture(make_image(*side, seed=i))) for i, side in enumerate(sides)]


def contains(whole: Pixels, part: Pixels) -> bool:
    """Return whether the part occurs somewhere in the whole, bit for bit."""
    height, width = part.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(whole, (1, width, 3))[:, :, 0, 0]
    rows, columns = np.nonzero((windows == part[0]).all((2, 3)))
    return any(np.array_equal(whole[y : y + height, x : x + width], part) for y, x in zip(rows, columns, strict=True))


def test_a_sheet_contains_every_image_with_smaller_ones_enlarged_to_squares() -> None:
    given = make_panels((12, 15), (24, 30), (48, 60))
    made = make_sheet(given).pixels
    for panel, factor in zip(given, (4, 2, 1), strict=True):
        assert contains(made, panel.picture.pixels.repeat(factor, 0).repeat(factor, 1))


def test_a_crop_is_in_px_of_the_largest_image_and_zoom_makes_squares() -> None:
    small, large = make_panels((12, 15), (48, 60))
    before, after = align_panels([small, large], Crop(10, 6, 21, 17), 3)
    assert np.array_equal(after.picture.pixels, large.picture.pixels[6:23, 10:31].repeat(3, 0).repeat(3, 1))
    enlarged = small.picture.pixels.repeat(4, 0).repeat(4, 1)[6:23, 10:31]
    assert np.array_equal(before.picture.pixels, enlarged.repeat(3, 0).repeat(3, 1))


def test_a_split_is_the_left_of_one_and_the_right_of_the_other() -> None:
    before, after = make_panels((200, 300), (200, 300))
    made = make_split([before, after]).pixels
    assert made.shape == (200, 300, 3)
    assert np.array_equal(made[60:, :140], before.picture.pixels[60:, :140])
    assert np.array_equal(made[60:, 160:], after.picture.pixels[60:, 160:])
    line = made[60:, 148:152].astype(int)
    assert np.ptp(line[0, :, 0]) > 200  # white with dark edges
    assert np.array_equal(line, np.broadcast_to(line[:1], line.shape))


def test_gray_is_shown_as_rgb_and_transparency_on_a_checkerboard() -> None:
    gray, clear = make_image(32, 32, 1), np.zeros((32, 32), np.uint8)
    clear[:, :16] = 255
    shown, board = align_panels([Panel("a", Picture(gray)), Panel("b", Picture(make_image(32, 32), clear))], None, 1)
    assert np.array_equal(shown.picture.pixels, gray.repeat(3, 2))
    assert np.array_equal(board.picture.pixels[:, :16], make_image(32, 32)[:, :16])
    assert set(np.unique(board.picture.pixels[:, 16:])) == {112, 144}


@pytest.mark.parametrize("label", ["a.png", "a name of forty letters or a little more.png", "W" * 300])
@pytest.mark.parametrize("side", [(10, 12), (40, 60), (700, 900)])
def test_a_label_is_never_wider_than_its_image(label: str, side: tuple[int, int]) -> None:
    given = [Panel(label, Picture(np.full((*side, 3), 7, np.uint8))) for _ in range(2)]
    made = make_sheet(given).pixels
    assert (made[:, :GAP] == 250).all()  # background on the left, on the right and in between
    assert (made[:, -GAP:] == 250).all()
    font = choose_font([label], side[1], 30)
    assert font.getlength(shorten_label(label, font, side[1])) <= side[1]
    if side[1] == 900 and len(label) < 100:
        assert shorten_label(label, font, side[1]) == label
    make_split(given)


def test_the_number_of_columns_depends_on_the_shape() -> None:
    assert [choose_columns(2, 100, 100), choose_columns(3, 100, 100), choose_columns(4, 100, 100)] == [2, 3, 2]
    assert choose_columns(2, 400, 100) == 1
    assert choose_columns(2, 50, 100) == 2


@pytest.mark.parametrize(
    ("sides", "crop", "zoom", "kind", "words"),
    [
        ([(8, 8)], None, 1, UsageError, "two images or more, found 1"),
        ([(8, 8), (20, 20)], None, 1, ImageError, "0.png: 8×8 px cannot be enlarged by a whole factor to 1.png, 20×20"),
        ([(8, 8), (16, 8)], None, 1, ImageError, "0.png"),
        ([(9, 9), (9, 8)], None, 1, ImageError, "1.png"),
        ([(8, 8), (16, 16)], Crop(0, 0, 17, 1), 1, UsageError, "not inside 1.png, the largest image, 16×16 px"),
        ([(8, 8), (8, 8)], Crop(-1, 0, 4, 4), 1, UsageError, "not inside"),
        ([(8, 8), (8, 8)], Crop(0, 0, 0, 4), 1, UsageError, "not inside"),
        ([(8, 8), (8, 8)], None, 0, UsageError, "--zoom 0"),
        ([(8, 8), (8, 8)], None, 10_000, UsageError, "200 million"),
    ],
)
def test_images_that_do_not_align_are_refused(
    sides: list[tuple[int, int]], crop: Crop | None, zoom: int, kind: type[Exception], words: str
) -> None:
    for make in (make_sheet, make_page, make_split):
        if (make is make_page and zoom > 1) or (make is make_split and len(sides) != 2):
            continue
        with pytest.raises(kind, match=words):
            make(make_panels(*sides), crop, zoom)


def test_a_split_needs_exactly_two_images() -> None:
    with pytest.raises(UsageError, match="takes two images, found 3"):
        make_split(make_panels((8, 8), (8, 8), (8, 8)))


def test_a_page_contains_the_px_and_fetches_nothing() -> None:
    given = [Panel('<b>&"1"', Picture(make_image(10, 12))), Panel("$two", Picture(make_image(20, 24)))]
    text = make_page(given, Crop(2, 4, 20, 12)).decode()
    assert not re.search(r"https?:|//[a-z]|@import|<link|\burl\(", text)
    assert "default-src 'none'" in text
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;&quot;1&quot;" in text
    assert "$two" in text
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert re.findall(r'src="(.{5})', text) == ["data:", "data:"]
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]
    assert np.array_equal(shown[0], make_image(10, 12).repeat(2, 0).repeat(2, 1)[4:16, 2:22])
    assert np.array_equal(shown[1], make_image(20, 24)[4:16, 2:22])


def test_the_built_in_font_has_the_character_that_shortens_labels() -> None:
    font = comparison.load_font(20)
    assert bytes(font.getmask("…")) != bytes(font.getmask("\uffff"))
