"""Compares tiles with whole images for networks of spandrel of usual size, with random weights. Linux only.

    python -m benchmarks.foreign [NAME …]

Each network runs in its own process, in float32. The reference is spandrel's result for a whole image of 160×128 px.
Tiles have 96 px. The memory is that of a tile of 128 px: the peak that the kernel counts (VmHWM) minus what the process
held before (VmRSS), and what the contract states. The seconds are processor time for that tile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from benchmarks.footprint import print_line
from restore_cli.contract import Model
from restore_cli.models.load import load_file
from restore_cli.models.processor import keep_freed_memory, release_freed_memory
from restore_cli.models.spandrel_model import import_spandrel
from restore_cli.pipeline.array import restore_array
from restore_cli.pipeline.memory import measure_demand, read_field
from restore_cli.shared_context import NO_WARNINGS
from restore_cli.tiling.geometry import Tiling

CPU = torch.device("cpu")
STATUS = Path("/proc/self/status")
SMALLEST_ERROR = 1e-20

NETWORKS: dict[str, tuple[str, str, dict[str, object]]] = {
    "ESRGAN ×4": ("ESRGAN", "ESRGAN", {}),
    "SPAN ×4": ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3}),
    "RealPLKSR ×4": ("PLKSR", "RealPLKSR", {}),
    "DAT light ×4": (
        "DAT",
        "DAT",
        {
            "embed_dim": 60,
            "split_size": [8, 32],
            "depth": [18],
            "num_heads": [6],
            "expansion_factor": 2.0,
            "upscale": 4,
        },
    ),
    "NAFNet": (
        "NAFNet",
        "NAFNet",
        {"width": 32, "middle_blk_num": 12, "enc_blk_nums": [2, 2, 4, 8], "dec_blk_nums": [2, 2, 2, 2]},
    ),
    "DRCT ×4": ("DRCT", "DRCT", {"upscale": 4, "upsampler": "pixelshuffle"}),
}
"""The package of spandrel, the class and its arguments."""


def measure(name: str) -> tuple[float, float, int, int, float]:
    """Return millions of parameters, the PSNR of tiles in dB, bytes taken and stated for a tile, and its seconds."""
    keep_freed_memory()
    spandrel = import_spandrel()
    package, kind, words = NETWORKS[name]
    torch.manual_seed(0)
    with NO_WARNINGS, TemporaryDirectory() as folder:
        network: nn.Module = getattr(import_module(f"spandrel.architectures.{package}"), kind)(**words)
        path = Path(folder, "net.pth")
        torch.save(network.state_dict(), path)
        model = load_file(path, CPU, torch.float32)
        reference = spandrel.ModelLoader().load_from_file(path).eval()
    side = 128
    tile = torch.rand(1, 3, side, side)
    model(tile[..., :64, :64])
    release_freed_memory()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts from here
    before, took = read_field(STATUS, "VmRSS"), -time.process_time()
    model(tile)
    took += time.process_time()
    peak = read_field(STATUS, "VmHWM") - before
    constant, per_pixel = measure_demand(model, CPU)
    parameters = sum(weight.numel() for weight in network.parameters()) / 1e6
    return parameters, compare(model, reference), peak, constant + per_pixel * side**2, took


def compare(model: Model, reference: Any) -> float:  # noqa: ANN401
    """Return the PSNR between our tiles and the whole image of spandrel, dB."""
    x = torch.rand(1, 3, 20, 16)
    x = nn.functional.interpolate(x, size=(160, 128), mode="bicubic").clip(0, 1)  # smooth, as photographs are
    pixels = x[0].permute(1, 2, 0).contiguous().numpy()
    tiled = torch.from_numpy(restore_array(model, pixels, Tiling(96, model.contract.overlap))[0]).clip(0, 1)
    error = (tiled - reference(x)[0].permute(1, 2, 0)).square().mean()
    return float(-10 * error.clamp_min(SMALLEST_ERROR).log10())


def main() -> None:
    """Print a table with a row per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--one", action="store_true", help="measure one network in this process and print the numbers")
    asked = parser.parse_args()
    if asked.one:
        print_line(" ".join(map(str, measure(asked.names[0]))))
        return
    print_line(
        "| network | parameters, M | tiles, dB | takes, MiB | contract, MiB | seconds |\n|---|--:|--:|--:|--:|--:|"
    )
    for name in asked.names:
        command = [sys.executable, "-m", "benchmarks.foreign", name, "--one"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        parameters, psnr, takes, says, seconds = map(float, done.stdout.split())
        memory = f"{takes / 2**20:.0f} | {says / 2**20:.0f}"
        print_line(f"| {name} | {parameters:.1f} | {psnr:.0f} | {memory} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
