"""How fast the models are, beside their peers: `make bench`, `make bench-gpu`.

    python -m benchmarks.speed [--device cpu] [--side 128] [--rounds 3] [--only NAME …]

One tile through each model, ours and the peer's in turn, so that a slow minute hits both; medians over the rounds. The
limit is a product of two 2048² matrices of the same dtype in the same run; model FLOP are counted on the peer.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import CASES, Case, ours, peer, weights
from benchmarks.report import write_report
from restore_cli.models.load import Network

RESULTS = Path(__file__).parent / "results"

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Line:
    """One model in one precision against its peer in float32 (CPU) or in the same precision (CUDA)."""

    model: str
    precision: str
    ours: list[float]
    """seconds of each round"""
    peer: list[float]
    flop: int
    limit: float
    """FLOP/s of the matrix product"""
    agreement: float
    """PSNR between the two outputs, dB"""
    memory: dict[str, int]
    """bytes that one call adds to the peak, by contestant"""


def main() -> None:
    """Measure, and write the JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=128, help="of the square tile, px")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument("--peak", choices=["ours", "peer"], help="print the memory of one call of the one model")
    given = parser.parse_args()
    device = torch.device(given.device)
    cases = [case for case in CASES if case.name in given.only or not given.only]
    if given.peak:
        sys.stdout.write(f"{peak(cases[0], given.peak, given.side)}\n")
        return
    limits = {dtype: limit(device, dtype) for dtype in precisions(device)}
    lines = [line for case in cases for line in measured(case, device, given.side, given.rounds, limits)]
    when = datetime.now(UTC)
    run = {"when": when.isoformat("T", "minutes"), "side": given.side, "machine": machine(device)}
    run |= {"limits": {str(dtype): value for dtype, value in limits.items()}}
    run |= {"lines": [asdict(line) for line in lines]}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{device.type}-{when:%Y-%m-%d}.json"
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(write_report(RESULTS))


def precisions(device: torch.device) -> list[torch.dtype]:
    """What the device is measured in: float32, and its half precision where it has one."""
    if device.type == "cuda":
        return [torch.float32, torch.float16]
    return [torch.float32, torch.bfloat16] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else [torch.float32]


def measured(case: Case, device: torch.device, side: int, rounds: int, limits: dict[torch.dtype, float]) -> list[Line]:
    """One case in every precision: a first call that counts FLOP and compares, then rounds in turn."""
    state = weights(case)
    other, x = Peer(peer(case, dict(state), device), device), picture(side).to(device)
    with FlopCounterMode(display=False) as counter:
        reference = other(x)
    nets: dict[torch.dtype, Network] = {}
    for dtype in limits:
        nets[dtype] = ours(case, dict(state), device, dtype)
    agreements = {dtype: psnr(net(x), reference) for dtype, net in nets.items()}
    times: dict[torch.dtype, list[float]] = {dtype: [] for dtype in nets}
    theirs: list[float] = []
    for _ in range(rounds):
        theirs.append(seconds(other, x))
        for dtype, net in nets.items():
            times[dtype].append(seconds(net, x))
    memory = {who: peak_of_child(case, who, side) for who in ("ours", "peer")} if device.type == "cpu" else {}
    flop = counter.get_total_flops()
    return [
        Line(case.name, str(dtype), times[dtype], theirs, flop, limits[dtype], agreements[dtype], memory)
        for dtype in nets
    ]


class Peer:
    """The peer's module in a plain call: no gradients; on CUDA in float16, its best precision there."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module, self.device = module, device

    def __call__(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h·scale, w·scale) float32."""
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=self.device.type == "cuda"):
            out: Tensor = self.module(x)
            return out.float()


def picture(side: int) -> Tensor:
    """(1, 3, side, side): smooth shapes with a little noise, like a photograph's."""
    torch.manual_seed(1)
    shapes = F.interpolate(torch.rand(1, 3, 9, 9), size=(side, side), mode="bicubic")
    return (shapes + 0.02 * torch.randn(1, 3, side, side)).clamp(0, 1)


def seconds(call: Call, x: Tensor) -> float:
    """Wall time of one call."""
    synchronise(x.device)
    start = time.perf_counter()
    call(x)
    synchronise(x.device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limit(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two 2048² matrices, the median of nine."""
    a, b = (torch.randn(2048, 2048, device=device).to(dtype) for _ in range(2))
    a @ b
    times = [seconds(lambda x: x @ b, a) for _ in range(9)]
    return 2 * 2048**3 / statistics.median(times)


def psnr(a: Tensor, b: Tensor) -> float:
    """Decibels between two outputs in 0..1."""
    return float(-10 * torch.log10((a - b).square().mean().clamp_min(1e-20)))


def peak(case: Case, who: str, side: int) -> int:
    """Bytes that the first call adds to this process's peak."""
    device, state = torch.device("cpu"), weights(case)
    call: Call = ours(case, state, device, torch.float32) if who == "ours" else Peer(peer(case, state, device), device)
    before = high_water()
    call(picture(side))
    return high_water() - before


def high_water() -> int:
    """The most memory that this process has held, bytes; 0 where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def peak_of_child(case: Case, who: str, side: int) -> int:
    """`peak` in a process of its own, because a peak never sinks."""
    command = [sys.executable, "-m", "benchmarks.speed", "--only", case.name, "--peak", who, "--side", str(side)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def machine(device: torch.device) -> dict[str, str]:
    """What was measured on."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
        name = f"{model or platform.processor()}, {torch.get_num_threads()} threads, "
        name += torch.backends.cpu.get_cpu_capability()
    return {"processor": name, "torch": torch.__version__, "python": platform.python_version()}


if __name__ == "__main__":
    main()
