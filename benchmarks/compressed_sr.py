"""Compares enlarged small, compressed images with their originals: `python -m benchmarks.compressed_sr 4 emt-x4`.

The images are Set5 and the first ten of CBSD68. They are reduced with MATLAB's bicubic filter, then get noise from
`default_rng(0)`, then become JPEG files by Pillow (4:2:0). The table shows the mean PSNR of the fifteen images, on Y,
without a border of `scale` px.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import restore_cli
from restore_cli.evaluation.degrade import compress_jpeg, imresize
from restore_cli.evaluation.metrics import luma, psnr

Bytes = NDArray[np.uint8]

LEVELS: dict[str, tuple[float, int | None]] = {
    "clean": (0, None),
    "JPEG 75": (0, 75),
    "JPEG 40": (0, 40),
    "σ 10, JPEG 10": (10, 10),
}
"""Name -> (standard deviation of the noise on 0..255, quality of the JPEG file)."""


def main() -> None:
    """Print the table for the scale and the models of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compressed_sr", description=__doc__)
    parser.add_argument("scale", type=int, choices=(2, 4), help="of the enlargement")
    parser.add_argument(
        "models", nargs="*", help="names of the catalogue or checkpoint files; bicubic is always measured"
    )
    parser.add_argument("--bench", type=Path, default=Path("../shared/bench"), help="folder of the benchmarks")
    options = parser.parse_args()
    ways: dict[str, Callable[[Bytes], Bytes]] = {"bicubic": lambda small: imresize(small, options.scale)}
    ways |= {name: make_enlarger(name) for name in options.models}
    sys.stdout.write(f"{' | '.join(['low resolution', *ways])}\n")
    for level, (sigma, quality) in LEVELS.items():
        pairs = [(degrade(large, options.scale, sigma, quality), large) for large in read_originals(options)]
        found = [
            np.mean([measure_psnr(way(small), large, options.scale) for small, large in pairs]) for way in ways.values()
        ]
        sys.stdout.write(f"{' | '.join([level, *(f'{mean:.2f}' for mean in found)])}\n")
        sys.stdout.flush()


def read_originals(options: argparse.Namespace) -> Iterator[Bytes]:
    """Yield the fifteen images, cropped to multiples of the scale."""
    files = sorted(options.bench.glob("Set5/HR/*.png")) + sorted(options.bench.glob("CBSD68/*.png"))[:10]
    for file in files:
        image = np.asarray(Image.open(file).convert("RGB"))
        height, width = (side - side % options.scale for side in image.shape[:2])
        yield image[:height, :width]


def degrade(large: Bytes, scale: int, sigma: float, quality: int | None) -> Bytes:
    """Return the small image: reduced, then with noise, then compressed."""
    small = imresize(large, Fraction(1, scale))
    if sigma:
        noise = np.random.default_rng(0).normal(0, sigma, small.shape)
        small = np.rint((small + noise).clip(0, 255)).astype(np.uint8)
    return small if quality is None else compress_jpeg(small, quality)


def make_enlarger(name: str) -> Callable[[Bytes], Bytes]:
    """Return a function that enlarges with a model in float32. Several names joined by + run one after the other."""
    models = [restore_cli.load(part, precision="fp32") for part in name.split("+")]

    def enlarge(image: Bytes) -> Bytes:
        for model in models:
            image = restore_cli.restore(model, image)
        return image

    return enlarge


def measure_psnr(found: Bytes, expected: Bytes, border: int) -> float:
    """Return the PSNR on Y in dB, without a border of `border` px."""
    return psnr(luma(found), luma(expected), border=border)


if __name__ == "__main__":
    main()
