"""Compares the speed of the models with that of their peers: `make bench`, `make bench-gpu`.

    python -m benchmarks.speed [--device cpu] [--side 256] [--rounds 3] [--only NAME …] [--converted FOLDER]

Our model, the peer's module in PyTorch and, on a CPU, the same module in OpenVINO restore one tile in turn, so a slow
minute affects all. Results are medians over the rounds. Each contestant runs in its own process, so the process
settings of one do not affect another. The limit is the fastest product of two 2048² matrices of the same dtype that a
library makes in the same run. FLOP are counted on the peer. Networks that OpenVINO has converted stay in --converted,
and the next run reads them there.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.openvino_peer import build_product, compile_file, convert
from benchmarks.peers import CASES, Case, build_ours, build_peer, make_weights
from benchmarks.report import write_report
from restore_cli.models import stored_precision
from restore_cli.models.network import Network
from restore_cli.models.ops import attention
from restore_cli.models.processor import keep_freed_memory, use_granted_cores
from restore_cli.pipeline.array import BATCH
from restore_cli.pipeline.memory import read_field

RESULTS = Path(__file__).parent / "results"

WEIGHTS = "weights.safetensors"
"""Name of the file with the weights of a case, beside that of the peer's output."""

UNALIGNED = ", unaligned rows"
"""Added to the name of a dtype if our model runs without the forms of models/aligned.py."""
PLAIN = ", plain attention"
"""Added to the name of a dtype if it runs without the kernel of models/ops/triton_attention.py too."""
OPENVINO = "OpenVINO "
"""Put before the name of a dtype if OpenVINO runs the peer's module."""

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Line:
    """One model in one precision, and its peer in float32 (CPU) or in float16 (CUDA)."""

    model: str
    precision: str
    side: int
    """of the square tile, px"""
    tiles: int
    """of one round"""
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
    openvino: dict[str, Any] | None
    """seconds of each round, of the conversion and of compilation; agreement with the peer in dB; memory in bytes"""


class ContestantProcess:
    """A contestant in its own process. The constructor returns after its first call."""

    def __init__(self, case: Case, who: str, device: torch.device, side: int, reference: Path, converted: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.speed", "--only", case.name, "--device", str(device)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [
                *command,
                "--side",
                str(side),
                "--work",
                who,
                "--reference",
                str(reference),
                "--converted",
                str(converted),
            ],
            stdin=pipe,
            stdout=pipe,
            text=True,
            bufsize=1,
        )
        self.times: list[float] = []
        self.facts: dict[str, Any] = json.loads(self.answer())

    def answer(self) -> str:
        """Return the next line that the process writes. Raises RuntimeError if it has ended."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self.process.args))}: ended")  # type: ignore[arg-type]  # a list
        return line

    def time_call(self) -> None:
        """Add the wall time of one more call to `times`."""
        if self.process.stdin:
            self.process.stdin.write("again\n")
        self.times.append(float(self.answer()))

    def end(self) -> None:
        """Close its input, which ends it."""
        self.process.communicate()


def main() -> None:
    """Measure, and write the JSON file and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, help="of the square tile, px. Default: that of each case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument("--converted", type=Path, help="keep OpenVINO's networks in this folder")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = torch.device(given.device)
    cases = [case for case in CASES if case.name in given.only or not given.only]
    if given.work:
        serve(cases[0], given.work, device, given.side, given.reference, given.converted)
        return
    limits = {dtype: measure_limit(device, dtype) for dtype in list_precisions(device)}
    with tempfile.TemporaryDirectory(prefix="restore-bench-") as folder:
        converted = given.converted or Path(folder)
        lines = [
            line
            for case in cases
            for line in measure_case(case, device, given.side or case.side, given.rounds, limits, converted)
        ]
    when = datetime.now(UTC)
    run: dict[str, object] = {"when": when.isoformat("T", "minutes"), "machine": describe_machine(device)}
    run |= {"limits": {str(dtype): value for dtype, value in limits.items()}}
    run["lines"] = [asdict(line) for line in lines]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{device.type}-{when:%Y-%m-%d}.json"
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(write_report(RESULTS))


def list_precisions(device: torch.device) -> list[torch.dtype]:
    """Return the dtypes to measure: float32, and the half precision that is fast on the device."""
    if device.type == "cuda":
        return [torch.float32, torch.float16]
    return [torch.float32, torch.bfloat16] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else [torch.float32]


def measure_case(
    case: Case, device: torch.device, side: int, rounds: int, limits: dict[torch.dtype, float], converted: Path
) -> list[Line]:
    """Measure one case in every precision: first the peer, which counts FLOP, then the rounds of all in turn."""
    other, x = Peer(build_peer(case, make_weights(case), device), device), make_image(side).to(device)
    with FlopCounterMode(display=False) as counter:
        reference = other(x)
    names = list_contestants(device, limits)
    rivals = [OPENVINO + name for name in names] if device.type == "cpu" else []
    model, conversion = converted / f"{case.name}-{side}.xml", None
    if rivals and not model.exists():
        start = time.perf_counter()
        convert(other.module, x, model)
        conversion = time.perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="restore-bench-") as folder:
        file = Path(folder) / "reference.pt"
        torch.save(reference.cpu(), file)
        save_file({key: value.contiguous() for key, value in make_weights(case).items()}, file.with_name(WEIGHTS))
        workers = {who: ContestantProcess(case, who, device, side, file, model) for who in ("peer", *names, *rivals)}
        for _ in range(rounds):
            for worker in workers.values():
                worker.time_call()
        for worker in workers.values():
            worker.end()
    flop = count_tiles(device) * counter.get_total_flops()
    return [make_line(case.name, name, side, workers, flop, limits, conversion) for name in names]


def make_line(
    model: str,
    name: str,
    side: int,
    workers: dict[str, ContestantProcess],
    flop: int,
    limits: dict[torch.dtype, float],
    conversion: float | None,
) -> Line:
    """Return the line of one of our contestants."""
    ours, peer, openvino = workers[name], workers["peer"], workers.get(OPENVINO + name)
    return Line(
        model=model,
        precision=f"torch.{name}",
        side=side,
        tiles=ours.facts["tiles"],
        ours=ours.times,
        peer=peer.times,
        flop=flop,
        limit=limits[to_dtype(name)],
        agreement=ours.facts["agreement"],
        memory={"ours": ours.facts["memory"], "peer": peer.facts["memory"]},
        openvino={"seconds": openvino.times, "conversion": conversion} | openvino.facts if openvino else None,
    )


def list_contestants(device: torch.device, limits: dict[torch.dtype, float]) -> list[str]:
    """Return the names of our contestants: each precision, and on a GPU the last one also without the kernels."""
    names = [str(dtype).removeprefix("torch.") for dtype in limits]
    return [*names, names[-1] + UNALIGNED, names[-1] + PLAIN] if device.type == "cuda" else names


def build_contestant(case: Case, weights: Path, device: torch.device, name: str) -> Call:
    """Return our model under a name from `list_contestants`."""
    if not name.endswith((UNALIGNED, PLAIN)):
        return load_ours(case, weights, device, to_dtype(name))
    with patch.object(stored_precision, "can_align_rows", return_value=False):
        net = load_ours(case, weights, device, to_dtype(name))
    if name.endswith(UNALIGNED):
        return net

    def call(x: Tensor) -> Tensor:
        with patch.object(attention, "can_use_kernel", return_value=False):
            return net(x)

    return call


def load_ours(case: Case, weights: Path, device: torch.device, precision: torch.dtype) -> Network:
    """Return our model with the weights of a file, as the command loads it."""
    return build_ours(
        case, load_file(weights), device, precision, lambda: load_ours(case, weights, device, torch.float32)
    )


def serve(case: Case, who: str, device: torch.device, side: int, reference: Path, converted: Path) -> None:
    """Run in a ContestantProcess: print the facts of the first call, then the seconds of a call per line of input."""
    if who != "peer" and not who.startswith(OPENVINO):  # as the command does; the others keep their defaults
        keep_freed_memory()
        use_granted_cores()
    weights, x = reference.with_name(WEIGHTS), make_image(side).to(device)
    together = x.expand(count_tiles(device), -1, -1, -1).contiguous()
    before, start = read_peak_memory(device), time.perf_counter()
    if who == "peer":
        call = split_batch(Peer(build_peer(case, load_file(weights), device), device))
    elif who.startswith(OPENVINO):
        call = compile_file(converted, to_dtype(who), torch.get_num_threads())
    else:
        call = build_contestant(case, weights, device, who)
    out = call(together)
    facts = {
        "tiles": count_tiles(device),
        "memory": read_peak_memory(device) - before,
        "preparation": time.perf_counter() - start,
        "agreement": psnr(out[:1].cpu(), torch.load(reference, weights_only=True)),
    }
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        sys.stdout.write(f"{time_call(call, together)}\n")
        sys.stdout.flush()


def to_dtype(name: str) -> torch.dtype:
    """Return the dtype in the name of a contestant."""
    dtype: torch.dtype = getattr(torch, name.removeprefix(OPENVINO).removesuffix(UNALIGNED).removesuffix(PLAIN))
    return dtype


def count_tiles(device: torch.device) -> int:
    """Return the batch size that restore uses on the device."""
    return BATCH if device.type == "cuda" else 1


def split_batch(call: Call) -> Call:
    """Return a function that calls the model for each tile by itself."""
    return lambda x: torch.cat([call(tile) for tile in torch.split(x, 1)])


class Peer:
    """The peer's module, called without gradients, and in float16 on CUDA, which is its fastest precision."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module, self.device = module, device

    def __call__(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h·scale, w·scale) float32."""
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=self.device.type == "cuda"):
            out: Tensor = self.module(x)
            return out.float()


def make_image(side: int) -> Tensor:
    """Return (1, 3, side, side) with smooth shapes and a little noise, as in a photograph."""
    torch.manual_seed(1)
    shapes = F.interpolate(torch.rand(1, 3, 9, 9), size=(side, side), mode="bicubic")
    return (shapes + 0.02 * torch.randn(1, 3, side, side)).clamp(0, 1)


def time_call(call: Call, x: Tensor) -> float:
    """Return the wall time of one call, s."""
    synchronise(x.device)
    start = time.perf_counter()
    call(x)
    synchronise(x.device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_limit(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of the fastest product of two 2048² matrices, from the median of nine calls each."""
    a, b = (torch.randn(2048, 2048, device=device).to(dtype) for _ in range(2))
    products: list[tuple[Call, Tensor]] = [(lambda x: x @ b, a)]
    if device.type == "cpu":
        products.append((build_product(dtype, 2048, torch.get_num_threads()), a.float()))
        if dtype == torch.float32:
            products.append((lambda x: torch.from_numpy(x.numpy() @ b.numpy()), a))
    times = []
    for product, x in products:
        product(x)
        times.append(statistics.median(time_call(product, x) for _ in range(9)))
    return 2 * 2048**3 / min(times)


def psnr(a: Tensor, b: Tensor) -> float:
    """Return the PSNR in dB between two outputs on 0..1."""
    return float(-10 * torch.log10((a - b).square().mean().clamp_min(1e-20)))


def read_peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process on the device in bytes, or 0 if the system does not count it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    return read_field(status, "VmHWM") if status.exists() else 0


def describe_machine(device: torch.device) -> dict[str, str]:
    """Return the processor and the versions of PyTorch and Python."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
        name = f"{model or platform.processor()}, {torch.get_num_threads()} threads, "
        name += torch.backends.cpu.get_cpu_capability()
    found = {"processor": name, "torch": torch.__version__, "python": platform.python_version()}
    return found if device.type == "cuda" else found | {"openvino": version("openvino")}


if __name__ == "__main__":
    main()
