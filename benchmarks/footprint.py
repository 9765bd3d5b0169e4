"""Measures the memory that a model takes for a tile on a CPU, next to what its contract states. Linux only.

    python -m benchmarks.footprint NAME … [--sides 64 128 256 512] [--precision fp32 bf16]

Each tile runs in its own process, after the model has restored one window. The memory is the peak that the kernel
counts (VmHWM) minus what the process held before the tile (VmRSS). Weights are random and have the catalogue's size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from restore_cli.models.load import PRECISIONS, build_module, build_network
from restore_cli.models.processor import keep_freed_memory, release_freed_memory, use_granted_cores
from restore_cli.pipeline.memory import measure_demand, read_field
from restore_cli.weights.catalogue import read_catalogue

STATUS = Path("/proc/self/status")
CPU = torch.device("cpu")


def measure(name: str, precision: str, side: int) -> tuple[int, int, int]:
    """Return (side of the tile in px, bytes that it takes, bytes that the contract states)."""
    keep_freed_memory()
    use_granted_cores()
    entry = read_catalogue().find_entry(name)
    weights = build_module(entry.architecture, entry.config).state_dict()
    model = build_network(entry.architecture, entry.config, weights, Path(name), CPU, PRECISIONS[precision])
    contract = model.contract
    side = contract.tile_multiple * round(side / contract.tile_multiple)
    model(torch.rand(1, contract.channels, contract.tile_multiple, contract.tile_multiple))
    release_freed_memory()
    tile = torch.rand(1, contract.channels, side, side)
    before = read_field(STATUS, "VmRSS")
    model(tile)
    took = read_field(STATUS, "VmHWM") - before
    constant, per_pixel = measure_demand(model, CPU)
    return side, took, constant + per_pixel * side**2


def print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Print a table with a row per model, precision and side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--sides", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--one", action="store_true", help="measure one tile in this process and print the numbers")
    asked = parser.parse_args()
    if asked.one:
        print_line(" ".join(map(str, measure(asked.names[0], asked.precision[0], asked.sides[0]))))
        return
    print_line("| model | precision | tile | takes, MiB | contract, MiB |\n|---|---|---|---|---|")
    for name, precision, side in ((n, p, s) for n in asked.names for p in asked.precision for s in asked.sides):
        command = [sys.executable, "-m", "benchmarks.footprint", name, "--precision", precision, "--sides", str(side)]
        done = subprocess.run([*command, "--one"], stdout=subprocess.PIPE, text=True, check=True)
        side, takes, says = map(int, done.stdout.split())
        print_line(f"| {name} | {precision} | {side} | {takes / 2**20:.0f} | {says / 2**20:.0f} |")


if __name__ == "__main__":
    main()
