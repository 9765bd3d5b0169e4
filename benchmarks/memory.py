"""Measures peak memory for images of several sizes: of `restore`, which streams rows, and of a plain script.

The plain script is a dozen lines with Pillow: load, run, save. It holds the image and the result once each in floating
point, uses tiles without overlap, and makes no further copies.

    python -m benchmarks.memory              # small strips, a minute or two
    python -m benchmarks.memory --full       # 4000×60000 enlarged twice, 20000×20000 denoised

The model computes almost nothing, so reading and writing are what is measured. A peak is that of a whole process,
interpreter and libraries included, as the kernel counts it (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from restore_cli.image.codec import write_streams
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX
from restore_cli.image.picture import Samples
from restore_cli.image.stream import PixelStream
from restore_cli.image.writers import EncoderOptions
from restore_cli.models.load import build_module
from restore_cli.weights.architectures import SwinIRConfig

SMALL = (("sr", 1000, 1500), ("sr", 1000, 6000), ("denoise", 3000, 3000))
FULL = (("sr", 4000, 6000), ("sr", 4000, 60_000), ("denoise", 20_000, 20_000))
REPORT = """
import atexit, pathlib, sys
peak = pathlib.Path(sys.argv.pop(1))
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: peak.write_text(status.read_text().split("VmHWM:")[1].split()[0]))
"""
PLAIN_LIMIT = 30_000_000
"""Beyond this many px the plain script is extrapolated instead of run, because it would take all memory."""
LINE = ((2000, 3000), (4000, 6000))
"""Sizes in px of the two images from which larger ones are extrapolated: the script's memory grows with the area."""

COMMAND = """
from restore_cli.cli.main import main
main()
"""
PLAIN = """
import sys, numpy, torch
from pathlib import Path
from PIL import Image
from restore_cli.models.load import load_file
Image.MAX_IMAGE_PIXELS = None
weights, source, output = map(Path, sys.argv[1:])
model = load_file(weights, torch.device("cpu"), torch.float32)
picture = torch.from_numpy(numpy.array(Image.open(source).convert("RGB"))).permute(2, 0, 1).float().div_(255)
scale, (_, height, width) = model.contract.scale, picture.shape
whole = torch.empty(3, height * scale, width * scale)
with torch.inference_mode():
    for y in range(0, height, 512):
        for x in range(0, width, 512):
            tile = model(picture[None, :, y : y + 512, x : x + 512])[0]
            top, left = y * scale, x * scale
            whole[:, top : top + tile.shape[1], left : left + tile.shape[2]] = tile
Image.fromarray(whole.clamp_(0, 1).mul_(255).round_().byte().permute(1, 2, 0).contiguous().numpy()).save(output)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Peak memory against megapixels.")
    parser.add_argument("--full", action="store_true", help="the sizes that the project promises")
    parser.add_argument("--suffix", default=".png", choices=sorted(FORMAT_BY_SUFFIX), help="of input and output")
    parser.add_argument("--no-plain", action="store_true", help="measure only restore")
    given = parser.parse_args()
    print("| task | size, px | Mpx in | Mpx out | restore, MiB | s | load, run, save, MiB |")  # noqa: T201
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        for task, width, height in FULL if given.full else SMALL:
            print(measure_row(Path(folder), task, width, height, given.suffix, plain=not given.no_plain), flush=True)  # noqa: T201
    print("\n≈ Extrapolated from the plain script's peaks at 2000×3000 and 4000×6000 px: this size does not fit.")  # noqa: T201


def measure_row(folder: Path, task: str, width: int, height: int, suffix: str, *, plain: bool) -> str:
    """Return one line of the table."""
    scale = 2 if task == "sr" else 1
    weights, source, output = folder / f"x{scale}.safetensors", folder / f"in{suffix}", folder / f"out{suffix}"
    write_weights(weights, scale)
    write_image(source, width, height)
    options = ("--weights", weights, "--device", "cpu", "-o", output, "--overwrite", "--quiet")
    ours, seconds = measure_peak(folder, COMMAND, task, source, *options)
    held = measure_plain_peak(folder, weights, width, height, suffix) if plain else "not measured"
    area = width * height / 1e6
    return f"| {task} | {width}×{height} | {area:.0f} | {area * scale**2:.0f} | {ours:.0f} | {seconds:.0f} | {held} |"


def measure_plain_peak(folder: Path, weights: Path, width: int, height: int, suffix: str) -> str:
    """Return the peak of the plain script in MiB: measured, or extrapolated from two smaller images."""

    def measure(size: tuple[int, int]) -> float:
        source = folder / f"plain{suffix}"
        write_image(source, *size)
        return measure_peak(folder, PLAIN, weights, source, folder / f"out{suffix}")[0]

    if width * height <= PLAIN_LIMIT:
        return f"{measure((width, height)):.0f}"
    (small, least), (large, most) = ((w * h, measure((w, h))) for w, h in LINE)
    return f"≈ {most + (width * height - large) * (most - least) / (large - small):.0f}"


def measure_peak(folder: Path, code: str, *arguments: str | Path) -> tuple[float, float]:
    """Run the code in a Python process. Return its peak memory in MiB and its time in seconds."""
    start, report = time.perf_counter(), folder / "peak"
    subprocess.run([sys.executable, "-c", REPORT + code, report, *arguments], check=True)
    return int(report.read_text()) / 1024, time.perf_counter() - start


def write_weights(path: Path, scale: int) -> None:
    """Write a SwinIR without blocks: three convolutions of four channels."""
    head = "pixelshuffledirect" if scale > 1 else ""
    config = SwinIRConfig(scale, 3, 4, (), (), 8, 2.0, head, "1conv", 1.0)
    torch.manual_seed(0)
    tensors = {key: value.contiguous() for key, value in build_module("swinir", vars(config)).state_dict().items()}
    save_file(tensors, path, {"architecture": "swinir", "config": json.dumps(vars(config))})


def write_image(path: Path, width: int, height: int) -> None:
    """Write waves with noise, which compress like a photograph. Rows are made as they are written."""

    def blocks() -> Iterator[Samples]:
        random = np.random.default_rng(0)
        grain = random.normal(0, 6, (256, width, 3))
        for top in range(0, height, 256):
            y, x = np.mgrid[top : min(top + 256, height), :width]
            waves = 128 + 90 * np.sin(x / 50 + y / 90)[..., None] * np.array([1, 0.8, 0.6])
            yield (waves + grain[: len(y)]).clip(0, 255).astype(np.uint8)

    stream = PixelStream(width, height, 3, np.dtype(np.uint8), blocks())
    write_streams(iter([stream]), 1, path, FORMAT_BY_SUFFIX[path.suffix], EncoderOptions())


if __name__ == "__main__":
    main()
