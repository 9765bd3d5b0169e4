"""Comparisons of images, pixel by pixel: a labelled sheet, a split image, a page with a slider.

Smaller images are enlarged by whole factors, so that each pixel becomes a square. Transparent pixels are drawn over a
checkerboard, gray images as RGB, 16-bit and float images with 8 bits. Colour profiles are ignored.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil, sqrt
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from restore_cli.errors import ImageError, UsageError
from restore_cli.image.formats.samples import round_to_8_bits
from restore_cli.image.picture import PEAK, Picture, Pixels

__all__ = ["MAX_PX", "Crop", "Panel", "make_page", "make_sheet", "make_split"]

Indices = NDArray[np.signedinteger[Any]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MAX_PX = 200_000_000
"""pixels of a sheet; viewers cannot show larger ones"""

BACKGROUND, TEXT_COLOUR, GAP = (250, 250, 250), (20, 20, 20), 8
CHECKER = (112, 144), 8
"""The two grays of the checkerboard, and the side of its squares in pixels."""

MIN_FONT_SIZE, MAX_FONT_SIZE = 10, 48
"""in pixels"""


@dataclass(frozen=True)
class Panel:
    """An image and its label."""

    label: str
    picture: Picture

    @property
    def size(self) -> str:
        return f"{self.picture.width}×{self.picture.height} px"


@dataclass(frozen=True)
class Crop:
    """A part of the images, in pixels of the largest one."""

    x: int
    y: int
    width: int
    height: int


def make_sheet(panels: Sequence[Panel], crop: Crop | None = None, zoom: int = 1) -> Picture:
    """Return the images in rows and columns, each below its label. Raises as `align_panels`."""
    aligned = align_panels(panels, crop, zoom)
    height, width = aligned[0].picture.pixels.shape[:2]
    columns = choose_columns(len(aligned), width, height)
    rows = ceil(len(aligned) / columns)
    font = choose_font([panel.label for panel in aligned], width, size=round(sqrt(width * height) / 18))
    strip = measure_line_height(font) + GAP
    high, wide = rows * (height + strip + GAP) + GAP // 2, columns * (width + GAP) + GAP
    check_size(wide, high)
    paper = Image.new("RGB", (wide, high), BACKGROUND)
    draw = ImageDraw.Draw(paper)
    for i, panel in enumerate(aligned):
        left, top = GAP + i % columns * (width + GAP), GAP // 2 + i // columns * (height + strip + GAP)
        draw.text((left, top + GAP // 2), shorten_label(panel.label, font, width), TEXT_COLOUR, font)
        paper.paste(Image.fromarray(panel.picture.pixels), (left, top + strip))
    return Picture(np.array(paper))


def make_split(panels: Sequence[Panel], crop: Crop | None = None, zoom: int = 1) -> Picture:
    """Return the left half of the first image beside the right half of the second. Raises as `align_panels`."""
    if len(panels) != 2:
        raise UsageError(f"--split takes two images, found {len(panels)}", hint="leave out --split")
    before, after = align_panels(panels, crop, zoom)
    height, width = before.picture.pixels.shape[:2]
    check_size(width, height)
    middle = width // 2
    joined = np.concatenate([before.picture.pixels[:, :middle], after.picture.pixels[:, middle:]], axis=1)
    paper = Image.fromarray(joined)
    draw = ImageDraw.Draw(paper)
    half = max(1, round(width / 600))
    draw.rectangle((middle - 2 * half, 0, middle + 2 * half - 1, height), TEXT_COLOUR)  # dark edges, visible on white
    draw.rectangle((middle - half, 0, middle + half - 1, height), BACKGROUND)
    room = max(1, width // 2 - 4 * half - 3 * GAP)
    font = choose_font([before.label, after.label], room, size=round(sqrt(width * height) / 26))
    for label, right in ((before.label, None), (after.label, width)):
        draw_label(draw, shorten_label(label, font, room), font, right)
    return Picture(np.array(paper))


def make_page(panels: Sequence[Panel], crop: Crop | None = None, zoom: int = 1) -> bytes:
    """Return an HTML page with a slider between any two of the images. The page loads no other file."""
    aligned = align_panels(panels, crop, 1)
    height, width = aligned[0].picture.pixels.shape[:2]
    names = [html.escape(panel.label) for panel in aligned]

    def list_choices(chosen: int) -> str:
        marks = {chosen: " selected"}
        return "".join(f'<option value="{i}"{marks.get(i, "")}>{name}</option>' for i, name in enumerate(names))

    images = [encode_data_uri(panel.picture.pixels) for panel in aligned]
    pictures = "".join(f'<img alt="{name}" src="{uri}">' for name, uri in zip(names, images, strict=True))
    template = Template(files("restore_cli.evaluation").joinpath("comparison.html").read_text(encoding="utf-8"))
    values = {"width": width, "height": height, "zoom": check_zoom(zoom), "title": " · ".join(names)}
    shown = {"left": list_choices(0), "right": list_choices(len(names) - 1), "pictures": pictures}
    return template.substitute(values | shown).encode(errors="backslashreplace")


def encode_data_uri(pixels: Pixels) -> str:
    """Return an image, (h, w, 3), as a data URI with a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def align_panels(panels: Sequence[Panel], crop: Crop | None, zoom: int) -> list[Panel]:
    """Enlarge all images to the size of the largest one, crop them, and draw each pixel as `zoom` × `zoom` pixels.

    Raises ImageError for an image of another shape, UsageError for fewer than two images, a zoom below 1, a crop that
    is not inside the largest image, and a result that is too large.
    """
    if len(panels) < 2:
        raise UsageError(f"compare takes two images or more, found {len(panels)}")
    largest = max(panels, key=lambda panel: panel.picture.width * panel.picture.height)
    part = check_crop(crop, largest)
    check_size(part.width * check_zoom(zoom), part.height * zoom)
    return [Panel(panel.label, Picture(enlarge_panel(panel, largest, part, zoom))) for panel in panels]


def check_crop(crop: Crop | None, largest: Panel) -> Crop:
    """Return the crop, by default the whole image. Raises UsageError if it is not inside."""
    width, height = largest.picture.width, largest.picture.height
    if crop is None:
        return Crop(0, 0, width, height)
    fits = crop.x >= 0 and crop.y >= 0 and crop.width > 0 and crop.height > 0
    if not fits or crop.x + crop.width > width or crop.y + crop.height > height:
        asked = f"{crop.x},{crop.y},{crop.width},{crop.height}"
        raise UsageError(f"--crop {asked}: is not inside {largest.label}, the largest image, {largest.size}")
    return crop


def enlarge_panel(panel: Panel, largest: Panel, crop: Crop, zoom: int) -> Pixels:
    """Return (crop.height·zoom, crop.width·zoom, 3). Only pixels of the crop are enlarged, which saves memory."""
    picture = panel.picture
    factor = largest.picture.width // picture.width
    if (picture.width * factor, picture.height * factor) != (largest.picture.width, largest.picture.height):
        line = f"{panel.label}: {panel.size} cannot be enlarged by a whole factor to {largest.label}, {largest.size}"
        raise ImageError(line)
    ys = np.arange(crop.height * zoom) // zoom + crop.y
    xs = np.arange(crop.width * zoom) // zoom + crop.x
    return draw_over_checkerboard(picture, ys // factor, xs // factor, ys, xs)


def draw_over_checkerboard(picture: Picture, rows: Indices, columns: Indices, ys: Indices, xs: Indices) -> Pixels:
    """Return the pixels at `rows` and `columns` as 8-bit RGB, over a checkerboard at `ys` and `xs`."""
    pixels = round_to_8_bits(picture.pixels[np.ix_(rows, columns)])
    shown = np.repeat(pixels, 3, axis=2) if picture.channels == 1 else pixels
    if picture.opaque or picture.alpha is None:
        return shown
    (dark, light), side = CHECKER
    board = np.where((ys[:, None] // side + xs[None] // side) % 2, light, dark)[..., None]
    alpha = picture.alpha[np.ix_(rows, columns)][..., None]
    weight = (alpha / PEAK[str(alpha.dtype)]).clip(0, 1)
    mixed: Pixels = np.rint(shown * weight + board * (1 - weight)).astype(np.uint8)
    return mixed


def check_zoom(zoom: int) -> int:
    """Return the zoom. Raises UsageError below 1."""
    if zoom < 1:
        raise UsageError(f"--zoom {zoom}: expected 1 or more")
    return zoom


def check_size(width: int, height: int) -> None:
    """Raise UsageError if a sheet of that size is too large."""
    if width * height > MAX_PX:
        most = f"{MAX_PX // 10**6} million pixels"
        raise UsageError(f"the sheet would have {width}×{height} px, more than {most}", "--crop X,Y,W,H")


def choose_columns(count: int, width: int, height: int) -> int:
    """Return the number of columns that brings the sheet closest to 3:2, the shape of a screen."""

    def shape(columns: int) -> float:
        ratio = columns * width / (ceil(count / columns) * height)
        return max(ratio / 1.5, 1.5 / ratio) * (1 + 1.2 * (-count % columns))  # empty places count as well

    return min(range(count, 0, -1), key=shape)


@cache
def load_font(size: int) -> Font:
    return ImageFont.load_default(size)


def choose_font(labels: Sequence[str], width: int, size: int) -> Font:
    """Return the largest font up to `size` pixels in which all labels fit into `width` pixels."""
    for px in range(max(MIN_FONT_SIZE, min(size, MAX_FONT_SIZE)), MIN_FONT_SIZE, -1):
        if all(load_font(px).getlength(label) <= width for label in labels):
            return load_font(px)
    return load_font(MIN_FONT_SIZE)


def measure_line_height(font: Font) -> int:
    return ceil(font.getbbox("Ågjy|")[3]) + GAP // 2


def shorten_label(label: str, font: Font, width: int) -> str:
    """Return the label, or its beginning and end around an ellipsis, at most `width` pixels wide."""
    if font.getlength(label) <= width:
        return label
    for kept in range(len(label) - 1, 0, -1):
        short = f"{label[: ceil(kept / 2)]}…{label[len(label) - kept // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return ""


def draw_label(draw: ImageDraw.ImageDraw, text: str, font: Font, right: int | None) -> None:
    """Draw text on a dark box in the upper left corner, or in the upper right one that ends at column `right`."""
    if not text:
        return
    wide, high = ceil(font.getlength(text)) + 2 * GAP, measure_line_height(font) + GAP
    left = 0 if right is None else right - wide
    draw.rectangle((left, 0, left + wide - 1, high - 1), TEXT_COLOUR)
    draw.text((left + GAP, GAP // 2), text, BACKGROUND, font)
