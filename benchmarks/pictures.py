"""Draws two comparisons for docs/formats.md: a transparent edge and a wide gamut, by a plain script and by restore.

    python -m benchmarks.pictures        # writes docs/pictures/, half a minute

Both use examples/cat.png. The plain script runs the same model, so only the handling of alpha and colours differs.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw

from benchmarks.roundtrip import P3, make_profile
from restore_cli import load, restore
from restore_cli.evaluation.comparison import Panel, make_sheet
from restore_cli.image.codec import decode, encode
from restore_cli.image.colour import SRGB_TO_XYZ, ColourConversion, decode_srgb, encode_srgb, make_conversion
from restore_cli.image.picture import Metadata, Picture

ROOT = Path(__file__).parents[1]
MODEL = "emt-x4"
SIDE = 300
"""px of a chromaticity diagram"""

Floats = NDArray[np.float64]


def main() -> None:
    """Write both images."""
    (ROOT / "docs" / "pictures").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_png(draw_alpha_edge(Path(folder)), "alpha-edge")
        save_png(draw_wide_gamut(Path(folder)), "wide-gamut")


def save_png(image: Image.Image, name: str) -> None:
    """Save as a PNG of 256 colours, which looks the same and is small."""
    image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
        ROOT / "docs" / "pictures" / f"{name}.png", optimize=True
    )


def read_cat() -> NDArray[np.uint8]:
    """Return the example as (148, 224, 3)."""
    with Image.open(ROOT / "examples" / "cat.png") as image:
        return np.asarray(image.convert("RGB"))


def run_restore(path: Path) -> NDArray[Any]:
    """Return the pixels that `restore sr` makes of a file, with alpha if it has any."""
    out = path.with_name(f"{path.stem}_out.png")
    command = [sys.executable, "-m", "restore_cli", "sr", "--model", "emt", "--quiet", "--device", "cpu"]
    subprocess.run([*command, path, "-o", out], check=True)
    picture = decode(out)
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def draw_alpha_edge(folder: Path) -> Image.Image:
    """Cut an antialiased oval out of the cat. Transparent pixels are black, as many programs store them."""
    y, x = np.mgrid[: 148 * 8, : 224 * 8] / 8
    whole = np.hypot((x - 112) / 78, (y - 74) / 60) < 1
    alpha = np.rint(255 * whole.reshape(148, 8, 224, 8).mean((1, 3))).astype(np.uint8)
    colours = np.where(alpha[..., None] == 0, 0, read_cat()).astype(np.uint8)
    Image.fromarray(np.dstack([colours, alpha])).save(folder / "edge.png")
    wide = np.asarray(Image.fromarray(alpha).resize((224 * 4, 148 * 4), Image.Resampling.BICUBIC))
    plain = np.dstack([restore(load(MODEL, device="cpu"), colours), wide])
    panels = []
    for name, rgba in (("plain: colours and alpha apart", plain), ("restore sr", run_restore(folder / "edge.png"))):
        for shade, value in (("white", 255), ("black", 0)):
            part = rgba[60:260, 120:320].astype(np.float64)
            opacity = part[..., 3:] / 255
            shown = np.rint(part[..., :3] * opacity + value * (1 - opacity)).astype(np.uint8)
            panels.append(Panel(f"{name}, on {shade}", Picture(shown)))
    return Image.fromarray(make_sheet(panels, zoom=2).pixels)


def draw_wide_gamut(folder: Path) -> Image.Image:
    """Show the cat in colours of Display P3 that sRGB does not have, restored in three ways."""
    icc = make_profile()
    colour = make_conversion(icc, 3)
    assert colour is not None
    light = decode_srgb(read_cat() / 255)
    vivid = encode_srgb((light.mean(2, keepdims=True) + 2.6 * (light - light.mean(2, keepdims=True))).clip(0, 1))
    pixels = np.rint(vivid * 255).astype(np.uint8)
    encode(Picture(pixels, None, Metadata(icc)), folder / "vivid.png")
    model = load(MODEL, device="cpu")
    convert = ImageCms.buildTransform(io.BytesIO(icc), ImageCms.createProfile("sRGB"), "RGB", "RGB")
    clipped = ImageCms.applyTransform(Image.fromarray(pixels), convert)
    assert clipped is not None
    panels = [
        ("input, Display P3", draw_panel(pixels, colour)),
        ("profile dropped", draw_panel(restore(model, pixels), None)),
        ("converted to sRGB", draw_panel(restore(model, np.asarray(clipped)), None)),
        ("restore sr", draw_panel(run_restore(folder / "vivid.png"), colour)),
    ]
    return Image.fromarray(make_sheet([Panel(name, picture) for name, picture in panels]).pixels)


def draw_panel(pixels: NDArray[Any], colour: ColourConversion | None) -> Picture:
    """Return the image as sRGB shows it, above a diagram of its chromaticities."""
    light = decode_srgb(pixels / 255) if colour is None else colour.to_linear((pixels / 255).astype(np.float32))
    seen = Image.fromarray(np.rint(encode_srgb(light).clip(0, 1) * 255).astype(np.uint8))
    seen = seen.resize((SIDE, SIDE * 148 // 224), Image.Resampling.LANCZOS)
    return Picture(np.concatenate([np.asarray(seen), np.asarray(draw_diagram(light.reshape(-1, 3)))]))


def draw_diagram(light: Floats) -> Image.Image:
    """Plot CIE 1976 u′ v′ of every px that is not nearly black. sRGB is outlined in black, Display P3 in blue."""
    xyz = light[light.sum(1) > 0.03] @ SRGB_TO_XYZ.T
    image = Image.new("RGB", (SIDE, SIDE), "white")
    counts = np.zeros((SIDE, SIDE))
    across, down = locate_colours(xyz)
    inside = (across >= 0) & (across < SIDE) & (down >= 0) & (down < SIDE)
    np.add.at(counts, (down[inside], across[inside]), 1)
    image.paste((200, 60, 0), mask=Image.fromarray(np.where(counts > len(xyz) / 50_000, 255, 0).astype(np.uint8)))
    draw = ImageDraw.Draw(image)
    for corners, tint in ((SRGB_TO_XYZ.T, "black"), (np.array(list(P3.values())), "royalblue")):
        u, v = locate_colours(corners)
        draw.polygon([(int(a), int(b)) for a, b in zip(u, v, strict=True)], outline=tint)
    return image


def locate_colours(xyz: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of colours in the diagram, in px across and down."""
    total = xyz[:, 0] + 15 * xyz[:, 1] + 3 * xyz[:, 2]
    u, v = 4 * xyz[:, 0] / total, 9 * xyz[:, 1] / total
    return np.rint((u - 0.05) * SIDE / 0.5).astype(np.int64), np.rint((0.62 - v) * SIDE / 0.5).astype(np.int64)


if __name__ == "__main__":
    main()
