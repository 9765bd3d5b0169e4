"""Two sheets for docs/formats.md: an edge of transparency and a wide gamut, the plain way and restore's.

    python -m benchmarks.pictures        # writes docs/pictures/, half a minute

Both begin with examples/cat.png. What a plain script does is done here with the same model, so that only the way of
the pixels differs.
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

from benchmarks.roundtrip import P3, profile
from restore_cli import load, restore
from restore_cli.evaluation.comparison import Panel, sheet
from restore_cli.image.codec import decode, encode
from restore_cli.image.colour import SRGB_TO_XYZ, ColourConversion, decode_srgb, encode_srgb, make_conversion
from restore_cli.image.picture import Metadata, Picture

ROOT = Path(__file__).parents[1]
MODEL = "emt-x4"
SIDE = 300
"""px of a chromaticity diagram"""

Floats = NDArray[np.float64]


def main() -> None:
    """Write both."""
    (ROOT / "docs" / "pictures").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(alpha_edge(Path(folder)), "alpha-edge")
        save(wide_gamut(Path(folder)), "wide-gamut")


def save(image: Image.Image, name: str) -> None:
    """With no more colours than it takes to look the same."""
    image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
        ROOT / "docs" / "pictures" / f"{name}.png", optimize=True
    )


def cat() -> NDArray[np.uint8]:
    """(148, 224, 3)"""
    with Image.open(ROOT / "examples" / "cat.png") as image:
        return np.asarray(image.convert("RGB"))


def ours(path: Path) -> NDArray[Any]:
    """What `restore sr` makes of a file."""
    out = path.with_name(f"{path.stem}_out.png")
    command = [sys.executable, "-m", "restore_cli", "sr", "--model", "emt", "--quiet", "--device", "cpu"]
    subprocess.run([*command, path, "-o", out], check=True)
    picture = decode(out)
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def alpha_edge(folder: Path) -> Image.Image:
    """An oval cut out of the cat, antialiased; what is transparent is black, as many programs leave it."""
    y, x = np.mgrid[: 148 * 8, : 224 * 8] / 8
    whole = np.hypot((x - 112) / 78, (y - 74) / 60) < 1
    alpha = np.rint(255 * whole.reshape(148, 8, 224, 8).mean((1, 3))).astype(np.uint8)
    colours = np.where(alpha[..., None] == 0, 0, cat()).astype(np.uint8)
    Image.fromarray(np.dstack([colours, alpha])).save(folder / "edge.png")
    wide = np.asarray(Image.fromarray(alpha).resize((224 * 4, 148 * 4), Image.Resampling.BICUBIC))
    plain = np.dstack([restore(load(MODEL, device="cpu"), colours), wide])
    panels = []
    for name, rgba in (("plain: colours and alpha apart", plain), ("restore sr", ours(folder / "edge.png"))):
        for shade, value in (("white", 255), ("black", 0)):
            part = rgba[60:260, 120:320].astype(np.float64)
            opacity = part[..., 3:] / 255
            shown = np.rint(part[..., :3] * opacity + value * (1 - opacity)).astype(np.uint8)
            panels.append(Panel(f"{name}, on {shade}", Picture(shown)))
    return Image.fromarray(sheet(panels, zoom=2).pixels)


def wide_gamut(folder: Path) -> Image.Image:
    """The cat in colours that Display P3 has and sRGB has not: what becomes of them."""
    icc = profile()
    colour = make_conversion(icc, 3)
    assert colour is not None
    light = decode_srgb(cat() / 255)
    vivid = encode_srgb((light.mean(2, keepdims=True) + 2.6 * (light - light.mean(2, keepdims=True))).clip(0, 1))
    pixels = np.rint(vivid * 255).astype(np.uint8)
    encode(Picture(pixels, None, Metadata(icc)), folder / "vivid.png")
    model = load(MODEL, device="cpu")
    convert = ImageCms.buildTransform(io.BytesIO(icc), ImageCms.createProfile("sRGB"), "RGB", "RGB")
    clipped = ImageCms.applyTransform(Image.fromarray(pixels), convert)
    assert clipped is not None
    panels = [
        ("input, Display P3", shown(pixels, colour)),
        ("profile dropped", shown(restore(model, pixels), None)),
        ("converted to sRGB", shown(restore(model, np.asarray(clipped)), None)),
        ("restore sr", shown(ours(folder / "vivid.png"), colour)),
    ]
    return Image.fromarray(sheet([Panel(name, picture) for name, picture in panels]).pixels)


def shown(pixels: NDArray[Any], colour: ColourConversion | None) -> Picture:
    """The picture as sRGB shows it, above a diagram of its chromaticities."""
    light = decode_srgb(pixels / 255) if colour is None else colour.to_linear((pixels / 255).astype(np.float32))
    seen = Image.fromarray(np.rint(encode_srgb(light).clip(0, 1) * 255).astype(np.uint8))
    seen = seen.resize((SIDE, SIDE * 148 // 224), Image.Resampling.LANCZOS)
    return Picture(np.concatenate([np.asarray(seen), np.asarray(diagram(light.reshape(-1, 3)))]))


def diagram(light: Floats) -> Image.Image:
    """CIE 1976 u′ v′ of every px that is not nearly black; the triangle of sRGB in black, of Display P3 in blue."""
    xyz = light[light.sum(1) > 0.03] @ SRGB_TO_XYZ.T
    image = Image.new("RGB", (SIDE, SIDE), "white")
    counts = np.zeros((SIDE, SIDE))
    across, down = places(xyz)
    inside = (across >= 0) & (across < SIDE) & (down >= 0) & (down < SIDE)
    np.add.at(counts, (down[inside], across[inside]), 1)
    image.paste((200, 60, 0), mask=Image.fromarray(np.where(counts > len(xyz) / 50_000, 255, 0).astype(np.uint8)))
    draw = ImageDraw.Draw(image)
    for corners, tint in ((SRGB_TO_XYZ.T, "black"), (np.array(list(P3.values())), "royalblue")):
        u, v = places(corners)
        draw.polygon([(int(a), int(b)) for a, b in zip(u, v, strict=True)], outline=tint)
    return image


def places(xyz: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where colours stand in the diagram, px across and down."""
    total = xyz[:, 0] + 15 * xyz[:, 1] + 3 * xyz[:, 2]
    u, v = 4 * xyz[:, 0] / total, 9 * xyz[:, 1] / total
    return np.rint((u - 0.05) * SIDE / 0.5).astype(np.int64), np.rint((0.62 - v) * SIDE / 0.5).astype(np.int64)


if __name__ == "__main__":
    main()
