"""Pictures beside each other, so that px line up: a labelled sheet, a split, a page with a slider.

Smaller pictures are enlarged by whole factors, each px to a square. Transparency stands on a checkerboard, gray is
shown as RGB, 16 bits and floats as 8 bits, colour profiles are left out: what is seen is the px themselves.
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

__all__ = ["MOST_PX", "Crop", "Panel", "page", "sheet", "split"]

Places = NDArray[np.signedinteger[Any]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MOST_PX = 200_000_000
"""The largest sheet: more than any screen or viewer likes."""

PAPER, INK, GAP = (250, 250, 250), (20, 20, 20), 8
CHECKER = (112, 144), 8
"""The two grays behind transparency, and the side of a square, px."""

SMALLEST, LARGEST = 10, 48
"""Text sizes, px."""


@dataclass(frozen=True)
class Panel:
    """A picture and what is written above it."""

    label: str
    picture: Picture

    @property
    def size(self) -> str:
        return f"{self.picture.width}×{self.picture.height} px"


@dataclass(frozen=True)
class Crop:
    """A part, in px of the largest picture."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Plate:
    """A panel made ready: RGB, as large as the others, cropped, zoomed."""

    label: str
    pixels: Pixels


def sheet(panels: Sequence[Panel], crop: Crop | None = None, zoom: int = 1) -> Picture:
    """The pictures beside each other, or below each other where they are wide, each with its label above."""
    plates = aligned(panels, crop, zoom)
    height, width = plates[0].pixels.shape[:2]
    columns = columns_for(len(plates), width, height)
    rows = ceil(len(plates) / columns)
    font = font_for([plate.label for plate in plates], width, size=round(sqrt(width * height) / 18))
    strip = line_height(font) + GAP
    high, wide = rows * (height + strip + GAP) + GAP // 2, columns * (width + GAP) + GAP
    limit(wide, high)
    paper = Image.new("RGB", (wide, high), PAPER)
    draw = ImageDraw.Draw(paper)
    for i, plate in enumerate(plates):
        left, top = GAP + i % columns * (width + GAP), GAP // 2 + i // columns * (height + strip + GAP)
        draw.text((left, top + GAP // 2), fitted(plate.label, font, width), INK, font)
        paper.paste(Image.fromarray(plate.pixels), (left, top + strip))
    return Picture(np.array(paper))


def split(panels: Sequence[Panel], crop: Crop | None = None, zoom: int = 1) -> Picture:
    """One picture: its left half from the first, its right half from the second, a line between. Exactly two."""
    if len(panels) != 2:
        raise UsageError(f"a split shows two pictures, found {len(panels)}", hint="without --split for more")
    before, after = aligned(panels, crop, zoom)
    height, width = before.pixels.shape[:2]
    limit(width, height)
    middle = width // 2
    joined = np.concatenate([before.pixels[:, :middle], after.pixels[:, middle:]], axis=1)
    paper = Image.fromarray(joined)
    draw = ImageDraw.Draw(paper)
    half = max(1, round(width / 600))
    draw.rectangle((middle - 2 * half, 0, middle + 2 * half - 1, height), INK)  # dark edges: seen on white, too
    draw.rectangle((middle - half, 0, middle + half - 1, height), PAPER)
    room = max(1, width // 2 - 4 * half - 3 * GAP)
    font = font_for([before.label, after.label], room, size=round(sqrt(width * height) / 26))
    for label, right in ((before.label, None), (after.label, width)):
        tag(draw, fitted(label, font, room), font, right)
    return Picture(np.array(paper))


def page(panels: Sequence[Panel], crop: Crop | None = None, zoom: int = 1) -> bytes:
    """A page of HTML with a slider between any two of the pictures; everything is in it, nothing is fetched."""
    plates = aligned(panels, crop, 1)
    height, width = plates[0].pixels.shape[:2]
    choices = [
        "".join(
            f'<option value="{i}"{" selected" if i == chosen else ""}>{html.escape(plate.label)}</option>'
            for i, plate in enumerate(plates)
        )
        for chosen in (0, len(plates) - 1)
    ]
    sources = "".join(f'<img alt="{html.escape(plate.label)}" src="{data_uri(plate.pixels)}">' for plate in plates)
    template = Template(files("restore_cli.evaluation").joinpath("comparison.html").read_text(encoding="utf-8"))
    title = html.escape(" · ".join(plate.label for plate in plates))
    sizes = {"width": width, "height": height, "zoom": checked(zoom)}
    return template.substitute(sizes, title=title, left=choices[0], right=choices[1], pictures=sources).encode(
        errors="backslashreplace"
    )


def data_uri(pixels: Pixels) -> str:
    """The picture as a PNG inside an address."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def aligned(panels: Sequence[Panel], crop: Crop | None, zoom: int) -> list[Plate]:
    """All as large as the largest, cropped, each px a square of `zoom` px. ImageError where one does not fit.

    UsageError for fewer than two pictures, a zoom below 1, or a crop that is not inside.
    """
    if len(panels) < 2:
        raise UsageError(f"compare wants at least two pictures, found {len(panels)}")
    largest = max(panels, key=lambda panel: panel.picture.width * panel.picture.height)
    part = inside(crop, largest)
    limit(part.width * checked(zoom), part.height * zoom)
    return [Plate(panel.label, enlarged(panel, largest, part, zoom)) for panel in panels]


def inside(crop: Crop | None, largest: Panel) -> Crop:
    """The crop, or the whole."""
    width, height = largest.picture.width, largest.picture.height
    if crop is None:
        return Crop(0, 0, width, height)
    fits = crop.x >= 0 and crop.y >= 0 and crop.width > 0 and crop.height > 0
    if not fits or crop.x + crop.width > width or crop.y + crop.height > height:
        asked = f"{crop.x},{crop.y},{crop.width},{crop.height}"
        raise UsageError(f"--crop {asked}: is not inside {largest.label}, the largest picture, {largest.size}")
    return crop


def enlarged(panel: Panel, largest: Panel, crop: Crop, zoom: int) -> Pixels:
    """(crop.height·zoom, crop.width·zoom, 3): only px of the crop are made, so that a large picture stays small."""
    picture = panel.picture
    factor = largest.picture.width // picture.width
    if (picture.width * factor, picture.height * factor) != (largest.picture.width, largest.picture.height):
        raise ImageError(
            f"{panel.label}: {panel.size} do not go a whole number of times into {largest.label}, {largest.size}"
        )
    ys = np.arange(crop.height * zoom) // zoom + crop.y
    xs = np.arange(crop.width * zoom) // zoom + crop.x
    return over_checkerboard(picture, ys // factor, xs // factor, ys, xs)


def over_checkerboard(picture: Picture, rows: Places, columns: Places, ys: Places, xs: Places) -> Pixels:
    """Its px at those rows and columns as 8-bit RGB, what is transparent on a checkerboard fixed to (ys, xs)."""
    pixels = round_to_8_bits(picture.pixels[np.ix_(rows, columns)])
    shown = np.repeat(pixels, 3, axis=2) if picture.gray else pixels
    if picture.opaque or picture.alpha is None:
        return shown
    (dark, light), side = CHECKER
    board = np.where((ys[:, None] // side + xs[None] // side) % 2, light, dark)[..., None]
    alpha = picture.alpha[np.ix_(rows, columns)][..., None]
    weight = (alpha / PEAK[str(alpha.dtype)]).clip(0, 1)
    mixed: Pixels = np.rint(shown * weight + board * (1 - weight)).astype(np.uint8)
    return mixed


def checked(zoom: int) -> int:
    """The zoom, or UsageError."""
    if zoom < 1:
        raise UsageError(f"--zoom {zoom}: expected 1 or more")
    return zoom


def limit(width: int, height: int) -> None:
    """UsageError where a sheet of that size would be too large."""
    if width * height > MOST_PX:
        most = f"{MOST_PX // 10**6} million px"
        raise UsageError(f"a sheet of {width}×{height} px would be larger than {most}", "--crop X,Y,W,H")


def columns_for(count: int, width: int, height: int) -> int:
    """How many beside each other, so that the sheet is closest to a screen's 3:2."""

    def shape(columns: int) -> float:
        ratio = columns * width / (ceil(count / columns) * height)
        return max(ratio / 1.5, 1.5 / ratio) * (1 + 1.2 * (-count % columns))  # and no place empty

    return min(range(count, 0, -1), key=shape)


@cache
def font_of(size: int) -> Font:
    return ImageFont.load_default(size)


def font_for(labels: Sequence[str], width: int, size: int) -> Font:
    """The largest font up to `size` in which all the labels are at most `width` px wide; the smallest where none is."""
    for px in range(max(SMALLEST, min(size, LARGEST)), SMALLEST, -1):
        if all(font_of(px).getlength(label) <= width for label in labels):
            return font_of(px)
    return font_of(SMALLEST)


def line_height(font: Font) -> int:
    return ceil(font.getbbox("Ågjy|")[3]) + GAP // 2


def fitted(label: str, font: Font, width: int) -> str:
    """The label, or as much of its beginning and end as is at most `width` px wide."""
    if font.getlength(label) <= width:
        return label
    for kept in range(len(label) - 1, 0, -1):
        short = f"{label[: ceil(kept / 2)]}…{label[len(label) - kept // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return ""


def tag(draw: ImageDraw.ImageDraw, text: str, font: Font, right: int | None) -> None:
    """Text on a dark plate in the upper left corner, or in the upper right one where `right` is the width."""
    if not text:
        return
    wide, high = ceil(font.getlength(text)) + 2 * GAP, line_height(font) + GAP
    left = 0 if right is None else right - wide
    draw.rectangle((left, 0, left + wide - 1, high - 1), INK)
    draw.text((left + GAP, GAP // 2), text, PAPER, font)
