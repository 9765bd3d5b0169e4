"""Tiles fit into the free memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Run
from images import make_checkpoint, make_image, save_image
from nearest_model import NearestModel
from systems import IMPORT_PATH
from torch import Tensor

from restore_cli.models.network import Network
from restore_cli.models.processor import cgroup_folders, count_cores
from restore_cli.pipeline import memory
from restore_cli.pipeline.array import choose_tiling
from restore_cli.pipeline.memory import cgroup_memory, fit_tiling
from restore_cli.tiling.geometry import Tiling

CPU = torch.device("cpu")
MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how much memory a process holds")


class Hungry(NearestModel):
    """A model that takes 4 KiB per px, and 8 MiB."""

    def __init__(self) -> None:
        super().__init__()
        self.contract = replace(self.contract, activation_floats_per_px=1024)


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 1 TiB, on which a model takes 8 MiB for any tile."""
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**40)
    monkeypatch.setattr(memory, "SCRATCH", 8 * MIB // torch.get_num_threads())


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize("limit", [9, 30, 80, 200, 600, 1100, 3000])
def test_a_tile_fits_into_the_memory(limit: int) -> None:
    found = fit_tiling(Hungry(), Tiling(512, 8, batch=2), 4000, CPU, limit * MIB)
    assert 4096 * found.batch * found.tile**2 <= (limit - 8) * MIB
    assert found == Tiling(512, 8, 2) or 4096 * max(found.batch + 1, 2) * (found.tile + 8) ** 2 > (limit - 8) * MIB


@pytest.mark.usefixtures("roomy")
def test_a_tiling_that_fits_is_kept() -> None:
    assert fit_tiling(Hungry(), Tiling(128, 8, batch=2), 4000, CPU, 1000 * MIB) == Tiling(128, 8, batch=2)
    assert fit_tiling(Hungry(), Tiling(512, 8), 100, CPU, 100 * MIB) == Tiling(512, 8)


@pytest.mark.usefixtures("roomy")
def test_a_limit_too_small_for_any_tile_gives_the_smallest() -> None:
    assert fit_tiling(Hungry(), Tiling(512, 8), 4000, CPU, MIB) == Tiling(8, 4)


@pytest.mark.usefixtures("roomy")
def test_free_memory_is_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 100 * MIB)
    assert fit_tiling(Hungry(), Tiling(512, 8), 4000, CPU).tile == 128
    assert fit_tiling(Hungry(), Tiling(512, 8), 4000, CPU, 1000 * MIB).tile == 128


def test_the_tiling_is_kept_if_the_system_does_not_report_its_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert fit_tiling(Hungry(), Tiling(512, 8), 4000, CPU) == Tiling(512, 8)
    assert fit_tiling(Hungry(), Tiling(512, 8), 4000, CPU, 100 * MIB).tile < 512


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize(
    ("per_pixel", "memory_asked", "found"),
    [
        (1024, None, Tiling(512, 8, batch=4)),
        (4096, None, Tiling(512, 8, batch=2)),
        (4096, 5 * 2**30, Tiling(512, 8, batch=4)),
        (8192, 2**30, Tiling(360, 8)),
    ],
)
def test_a_gpu_gets_several_tiles_within_three_gibibytes_or_the_limit(
    per_pixel: int, memory_asked: int | None, found: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the probes need a GPU, so their result is replaced."""
    monkeypatch.setattr(memory, "measure_demand", lambda model, device: (8 * MIB, per_pixel))
    model, gpu = Hungry(), torch.device("cuda")
    assert (
        choose_tiling(model, gpu, 4000, tile=None if memory_asked is None else 512, overlap=8, memory=memory_asked)
        == found
    )
    assert choose_tiling(model, gpu, 4000, tile=1024, overlap=8) == Tiling(1024, 8)
    assert choose_tiling(model, gpu, 4000, overlap=8, batch=1).batch == 1
    assert choose_tiling(model, CPU, 4000, overlap=8).batch == 1


class Full(Hungry):
    """A model on a GPU whose memory another program has filled."""

    def __call__(self, x: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: out of memory")


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize(("tile", "found"), [(None, 128), (64, 64), (0, 128)])
def test_probes_that_find_no_memory_give_a_small_tile(tile: int | None, found: int) -> None:
    gpu = torch.device("cuda")
    assert choose_tiling(Full(), gpu, 4000, tile=tile, memory=10**9) == Tiling(found, 8)
    assert choose_tiling(Full(), gpu, 100, tile=0, memory=10**9) == Tiling(96, 8)


def test_no_room_for_the_weights_is_one_line(restore: Run, x1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = torch.nn.Module.to

    def to(module: torch.nn.Module, *place: Any, **layout: Any) -> torch.nn.Module:  # noqa: ANN401  # as PyTorch's
        if place:
            raise RuntimeError("CUDA error: out of memory")
        return usual(module, **layout)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    save_image(Path("in.png"), make_image(9, 12))
    ran = restore("denoise", "--weights", x1, "in.png", "--device", "cpu")
    assert (ran.code, len(ran.err.splitlines())) == (5, 1)
    assert "restore: out of memory: cpu has no room for the weights of" in ran.err


def test_a_forecast_without_room_for_a_tile_says_so(restore: Run, x1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(network: Network, x: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(Network, "__call__", short)
    save_image(Path("in.png"), make_image(9, 12))
    ran = restore("denoise", "--weights", x1, "in.png", "--device", "cpu", "--dry-run")
    assert ran.code == 0, ran.err
    assert "unknown: out of memory: cpu has no room for a tile of 128 px\n" in ran.err


def test_measuring_takes_no_random_numbers_from_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "measure_peak", lambda model, tile, device: tile.numel())
    before = torch.get_rng_state()
    memory.measure_demand(Hungry(), torch.device("cuda"))
    assert torch.equal(torch.get_rng_state(), before)


@linux
@pytest.mark.parametrize("name", ["emt-x2", "swinir-lightweight-x4", "lite-denoise", "lite-dejpeg"])
def test_a_model_takes_at_most_what_its_contract_says(name: str) -> None:
    command = [sys.executable, "-m", "benchmarks.footprint", name, "--one", "--precision", "fp32", "--sides", "192"]
    two = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True, env=two)
    _, takes, says = map(int, done.stdout.split())
    assert says / 4 < takes <= says


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A cgroup inside another one."""
    (tmp_path / "outer/inner").mkdir(parents=True)
    return tmp_path / "outer", tmp_path / "outer/inner"


def test_each_parent_cgroup_may_limit_memory(folders: tuple[Path, Path], tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    assert list(cgroup_folders("memory", tmp_path, own)) == [folders[1], folders[0], tmp_path]
    own.write_text("7:cpuset:/\n4:memory:/inner\n")
    assert list(cgroup_folders("memory", tmp_path / "nowhere", own)) == []


def test_cached_files_of_a_cgroup_count_as_free(folders: tuple[Path, Path]) -> None:
    outer, inner = folders
    (outer / "memory.max").write_text("max\n")
    (outer / "memory.current").write_text("70\n")
    (inner / "memory.limit_in_bytes").write_text("100\n")
    (inner / "memory.usage_in_bytes").write_text("60\n")
    (inner / "memory.stat").write_text("anon 30\ninactive_file 25\n")
    assert list(cgroup_memory(folders)) == [65]


@pytest.mark.parametrize(("quota", "count"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None)])
def test_threads_follow_the_cpu_quota(quota: str, count: int | None, folders: tuple[Path, Path]) -> None:
    (folders[1] / "cpu.max").write_text(quota)
    assert count_cores(folders) == (count or count_cores([]))


CAPPED = """
import resource, sys, torch
from pathlib import Path
from images import make_image
from restore_cli.pipeline.memory import fit_tiling
from restore_cli.models.load import load_file
from restore_cli.pipeline.array import default_tiling, restore_array
torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_AS, (1 << 40, -1))  # a process is born under its limit; how low is known below
cpu = torch.device("cpu")
model = load_file(Path(sys.argv[1]), cpu, torch.float32)
pixels, tiling = make_image(900, 700), default_tiling(model.contract, 0)
model(torch.rand(1, 3, 64, 64))
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]), -1))
if sys.argv[3] == "measured":
    tiling = fit_tiling(model, tiling, 900, cpu)
out, trace = restore_array(model, pixels, tiling)
assert out.shape == (1800, 1400, 3)
sys.stdout.write(f"{tiling.tile} {trace.tiling.tile}")
"""


LIMITED = """
import resource, sys, torch
from pathlib import Path
import restore_cli.jobs.workers.worker
from restore_cli.cli.main import main
from restore_cli.models.load import load_file
resource.setrlimit(resource.RLIMIT_AS, (1 << 40, -1))  # a process is born under its limit; how low is known below
load_file(Path("x2.safetensors"), torch.device("cpu"), torch.float32)(torch.rand(1, 3, 64, 64))
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv.pop(1)), -1))
main()
"""


@linux
@pytest.mark.needs("resource")
def test_the_command_with_little_memory_goes_on_with_smaller_tiles(tmp_path: Path) -> None:
    """Memory runs out for real, while threads read and write. Later pictures are not affected."""
    make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    save_image(tmp_path / "in/a.png", make_image(900, 700))
    save_image(tmp_path / "in/b.png", make_image(600, 400, 4))
    save_image(tmp_path / "in/c.png", make_image(70, 90))
    options = ["--weights", "x2.safetensors", "--device", "cpu", "--precision", "fp32", "--tile", "0", "--json"]
    command = [sys.executable, "-c", LIMITED, str(300 * MIB), "sr", "in", "-o", "out", *options]
    environment = os.environ | {"PYTHONPATH": IMPORT_PATH, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
    assert [result["size"] for result in results] == [[1400, 1800], [800, 1200], [180, 140]]
    assert results[0]["notes"] == [f"memory ran out: continued with tiles of {results[0]['tile']} px"]
    assert 0 < results[0]["tile"] < 900


@linux
@pytest.mark.needs("resource")
@pytest.mark.parametrize("how", ["measured", "stepped down"])
def test_a_process_with_little_memory_goes_on_with_smaller_tiles(how: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    command = [sys.executable, "-c", CAPPED, str(path), str(300 * MIB), how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0, done.stderr
    begun, ended = map(int, done.stdout.split())
    assert 0 < ended < 900
    assert begun == (ended if how == "measured" else 0)
