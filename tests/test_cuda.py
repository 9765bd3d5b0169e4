"""Tests on a CUDA device: `make gpu` runs only these."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import GOLDEN, read_golden
from images import make_checkpoint, make_image, save_image
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers import CASES, build_ours, make_weights
from restore_cli.errors import OutOfMemory
from restore_cli.evaluation.metrics import psnr
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.run import run_job
from restore_cli.jobs.types import Job, ModelOptions
from restore_cli.models import compile as compile_module
from restore_cli.models import stored_precision
from restore_cli.models.aligned import AlignedLayerNorm
from restore_cli.models.forms.layers import FastConvolution
from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys, load_file, pick_device, pick_precision
from restore_cli.models.ops import attention, block_tail
from restore_cli.models.ops.attention import kernel_is_correct
from restore_cli.models.ops.block_tail import can_use_block_kernels
from restore_cli.models.ops.kernel_trial import has_matrix_units
from restore_cli.models.ops.triton_blocks import triton_block_tail
from restore_cli.models.precision import InFloat32
from restore_cli.pinned import PinnedMemory
from restore_cli.pipeline.array import choose_tiling, default_tiling, restore_array
from restore_cli.pipeline.memory import fit_tiling
from restore_cli.pipeline.output import round_pixels
from restore_cli.tiling.geometry import Tiling
from restore_cli.weights.catalogue import Request, read_catalogue

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.safetensors")))
def test_output_equals_the_reference(name: str) -> None:
    architecture, ours, weights, x, reference = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CUDA, torch.float32)
    span, multiple = 255 if architecture == "emt" else 1, net.contract.pad_multiple
    h, w = x.shape[-2:]
    x = F.pad(x / span, (0, -w % multiple, 0, -h % multiple), mode="reflect")
    out = net(x.float()).cpu()[..., : reference.shape[-2], : reference.shape[-1]] * span
    assert relative_error(out, reference) < 1e-5
    assert (
        torch.backends.cudnn.allow_tf32
    )  # PyTorch's default, with which its own convolutions would exceed the tolerance


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference, divided by the norm of `expected`."""
    expected = expected.cpu().double()
    return float((found.cpu().double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (1, 1), (3, 64)])
def test_convolutions_that_are_exact_in_half_precision_are_ieee(kernel: int, groups: int) -> None:
    layer = FastConvolution(64, 64, kernel, padding=kernel // 2, groups=groups, bias=False).requires_grad_(False)
    x = torch.randn(2, 64, 48, 64)
    expected = F.conv2d(x.double(), layer.weight.double(), padding=kernel // 2, groups=groups)
    layer.to(CUDA)
    with torch.inference_mode(), torch.autocast("cuda", torch.float16):
        assert relative_error(InFloat32(layer)(x.to(CUDA)), expected) < 1e-6
        assert layer(x.to(CUDA)).dtype == torch.float16


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the compiler's own
@pytest.mark.parametrize("name", ["hat_x4", "emt_x4", "restormer_biasfree"])
def test_compiled_float32_is_ieee_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, config, state, _, _ = read_golden(name)
    net = build_network(architecture, config, drop_keys(state, COMPUTED_KEYS), Path(name), CUDA, torch.float32)
    side, times = 4 * net.contract.tile_multiple, iter([2.0, 1.0])
    tile = torch.rand(1, 3, side, side)
    expected = net(tile)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compile_module, "measure_call", lambda network, tiles: (network(tiles), next(times)))
    torch._dynamo.reset()
    message = compile_module.compile_if_faster(net, (1, 3, side, side), tmp_path)
    assert message.endswith("tiles take 0.50 of the time")
    assert relative_error(net(tile), expected) < 1e-5


needs_matrix_units = pytest.mark.skipif(
    not (torch.cuda.is_available() and has_matrix_units(CUDA)), reason="the kernel is not made for this GPU"
)


@needs_matrix_units
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("parts", "window"), [((3, 6, 30), (8, 8)), ((3, 6, 30), (16, 16)), ((3, 6, 30), (7, 7))])
def test_the_attention_kernel_is_right_here(
    parts: tuple[int, int, int], window: tuple[int, int], dtype: torch.dtype
) -> None:
    for shifted in (False, True):
        assert kernel_is_correct(CUDA, dtype, parts, window, shifted, 0, True)
    assert kernel_is_correct(CUDA, dtype, (2, 2, 10), (32, 8), True, 0, False)
    assert kernel_is_correct(CUDA, dtype, (3, 6, 30), (16, 16), False, 4, True)


needs_block_kernels = pytest.mark.skipif(
    not (torch.cuda.is_available() and has_matrix_units(CUDA) and torch.version.hip is None),
    reason="the kernels of blocks are not made for this GPU",
)


@needs_block_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", [(180, 184, 360), (60, 64, 120), (240, 240, 480)])
def test_the_kernels_of_blocks_are_right_here(form: tuple[int, int, int], dtype: torch.dtype) -> None:
    assert can_use_block_kernels(CUDA, dtype, *form)


@needs_block_kernels
@pytest.mark.parametrize("name", ["SwinIR-M ×4", "HAT ×4"])
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_aligned_rows_change_a_tile_only_by_rounding(
    name: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(case for case in CASES if case.name == name)
    weights, x = make_weights(case), torch.rand(2, 3, 128, 128)
    aligned_net = build_ours(case, weights, CUDA, precision)
    assert any(isinstance(module, AlignedLayerNorm) for module in aligned_net.module.modules())
    found = aligned_net(x)
    monkeypatch.setattr(stored_precision, "can_align_rows", lambda *form: False)
    expected = build_ours(case, weights, CUDA, precision)(x)
    exact = build_ours(case, weights, CUDA, torch.float32)(x)
    assert relative_error(found, exact) < 1.5 * relative_error(expected, exact)


@needs_block_kernels
def test_kernels_of_blocks_read_maps_without_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN keeps maps in channels_last, so their rows are contiguous."""
    layouts: list[bool] = []

    def check(x: Tensor, attended: Tensor, branch: Tensor | None, *rest: Any) -> Tensor:  # noqa: ANN401  # passed on
        layouts.extend(part.is_contiguous() for part in (x, attended, branch) if part is not None)
        return triton_block_tail(x, attended, branch, *rest)

    monkeypatch.setattr(block_tail, "triton_block_tail", check)
    case = next(case for case in CASES if case.architecture == "hat")
    build_ours(case, make_weights(case), CUDA, torch.float16)(torch.rand(1, 3, 64, 64))
    assert layouts
    assert all(layouts)


@needs_matrix_units
def test_every_network_uses_the_kernel(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    net = load_file(make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2"), CUDA, torch.float16)
    restore_array(net, make_image(100, 100), default_tiling(net.contract, 64))
    assert not caplog.records


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shift", [(0, 0), (4, 4)])
def test_attention_of_pytorch_takes_any_number_of_windows(
    dtype: torch.dtype, shift: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """70,225 windows of three heads with 10 channels: each window equals the CPU's result."""
    monkeypatch.setattr(attention, "can_use_kernel", lambda *form: False)
    qkv = [torch.randn(1, 265 * 8, 265 * 8, 3, 10, dtype=dtype) for _ in range(3)]
    bias = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        found = attention.fast_window_attention([part.to(CUDA) for part in qkv], (8, 8), shift, bias.to(CUDA), 0.3)
        expected = attention.fast_window_attention([part.float() for part in qkv], (8, 8), shift, bias, 0.3)
    assert relative_error(found, expected) < (1e-5 if dtype == torch.float32 else 2e-3)


def test_the_gpu_continues_after_a_refused_block_of_pinned_memory() -> None:
    memory, far_too_much = PinnedMemory(most=1 << 60), torch.empty(1 << 50, dtype=torch.uint8, device="meta")
    assert memory.like(far_too_much, CUDA) is None
    assert float(torch.ones(4, device=CUDA).sum()) == 4
    assert memory.like(torch.empty(4), CUDA) is not None


@pytest.mark.parametrize("limit", [100, 300])
def test_a_folder_of_small_images_stays_within_its_memory(limit: int, tmp_path: Path) -> None:
    weights = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    for i in range(24):
        save_image(tmp_path / f"in/{i}.png", make_image(128, 128, seed=i))
    job = Job(ModelOptions(Request("sr"), read_catalogue()), InputSpec((str(tmp_path / "in"),)), str(tmp_path / "out"))
    before = torch.cuda.memory_allocated(CUDA)
    torch.cuda.reset_peak_memory_stats(CUDA)
    done = list(
        run_job(
            replace(
                job, model=replace(job.model, weights=weights, device="cuda", precision="fp32", memory=limit * 2**20)
            )
        )
    )
    assert [result.status for result in done] == ["done"] * 24
    assert torch.cuda.max_memory_allocated(CUDA) - before < 1.1 * limit * 2**20


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_differs_only_by_rounding(precision: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    pixels = make_image(200, 300)
    half = load_file(path, CUDA, pick_precision(precision, CUDA))
    exact = load_file(path, CPU, torch.float32)
    tiling = default_tiling(exact.contract, 64, batch=4)
    assert psnr(restore_array(half, pixels, tiling)[0], restore_array(exact, pixels, tiling)[0]) > 40


def test_a_run_continues_with_smaller_batches_and_tiles_if_memory_runs_out(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    net, pixels = load_file(path, CUDA, torch.float32), make_image(1024, 1024)
    expected = restore_array(net, pixels, default_tiling(net.contract, 128))[0]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 6e8 / total), CUDA)
    try:
        out, trace = restore_array(net, pixels, default_tiling(net.contract, 0, batch=1))
    except OutOfMemory as error:
        pytest.fail(f"no tile fitted: {error}")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    assert 0 < trace.tiling.tile < 1024
    assert psnr(out, expected) > 40


@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_of_several_batches_return_to_their_places(batch: int, tmp_path: Path) -> None:
    net, pixels = (
        load_file(make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2"), CUDA, torch.float32),
        make_image(300, 500),
    )
    exact = load_file(tmp_path / "x2.safetensors", CPU, torch.float32)
    tiling = default_tiling(net.contract, 64, batch=batch)
    assert psnr(restore_array(net, pixels, tiling)[0], restore_array(exact, pixels, tiling)[0]) > 60


def test_auto_takes_the_gpu() -> None:
    assert pick_device("auto").type == "cuda"
    assert pick_precision("auto", CUDA) == torch.float16
    assert np.array_equal(torch.ones(1, device=pick_device("cuda:0")).cpu().numpy(), [1])


@pytest.mark.parametrize("limit", [300, 1500])
def test_a_model_stays_within_its_memory(limit: int, tmp_path: Path) -> None:
    net = load_file(make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2"), CUDA, torch.float32)
    tiling = fit_tiling(net, default_tiling(net.contract, 0), 2000, CUDA, limit * 2**20)
    before = torch.cuda.memory_allocated(CUDA)
    torch.cuda.reset_peak_memory_stats(CUDA)
    restore_array(net, make_image(2000, 2000), tiling)
    assert torch.cuda.max_memory_allocated(CUDA) - before < 1.1 * limit * 2**20


@pytest.mark.parametrize(("memory", "bar"), [(None, 4 * 2**30), (1500 * 10**6, 1500 * 2**20)])
def test_hat_takes_little_memory_for_twelve_megapixels(memory: int | None, bar: int) -> None:
    case = next(case for case in CASES if case.architecture == "hat")
    net = build_ours(case, make_weights(case), CUDA, torch.float16)
    tiling = choose_tiling(net, CUDA, 4000, memory=memory)
    torch.cuda.reset_peak_memory_stats(CUDA)
    out, _ = restore_array(net, make_image(3000, 4000), tiling)
    assert out.shape == (12000, 16000, 3)
    assert torch.cuda.max_memory_allocated(CUDA) < bar


OTHER = "import sys, torch; x = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device='cuda'); print(); input()"


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_run_succeeds_on_a_gpu_that_another_process_has_filled(share: float, tmp_path: Path) -> None:
    net = load_file(make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2"), CUDA, torch.float32)
    pixels = make_image(2000, 1500)
    expected = restore_array(net, pixels, default_tiling(net.contract, 256))[0]
    torch.cuda.empty_cache()
    size = str(int(share * torch.cuda.mem_get_info(CUDA)[0]))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", OTHER, size], stdin=pipe, stdout=pipe) as other:
        assert other.stdout
        assert other.stdout.readline()
        tiling = choose_tiling(net, CUDA, 2000, memory=int(1e12))
        out, _ = restore_array(net, pixels, tiling)
        other.communicate(b"\n")
    assert psnr(out, expected) > 40


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=lambda dtype: dtype.__name__)
def test_pixels_are_rounded_as_on_a_cpu(dtype: type[np.integer[Any]]) -> None:
    peak = np.iinfo(dtype).max
    values = (np.arange(2 * peak + 3, dtype=np.float32) / 2 - 1)[None, :, None] / np.float32(peak)
    expected = round_pixels(torch.from_numpy(values), np.dtype(dtype))
    assert torch.equal(round_pixels(torch.from_numpy(values).to(CUDA), np.dtype(dtype)).cpu(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("channels", [3, 4])
def test_tiles_that_a_gpu_joins_and_rounds_are_those_of_a_cpu(
    dtype: type[np.integer[Any]], channels: int, tmp_path: Path
) -> None:
    pixels = make_image(150, 130, channels).astype(dtype) * (np.iinfo(dtype).max // 255)
    path = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    found, expected = (
        restore_array(load_file(path, device, torch.float32), pixels, Tiling(64, 16, batch=2))[0]
        for device in (CUDA, CPU)
    )
    assert found.dtype == dtype
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= np.iinfo(dtype).max // 255
    assert psnr(found, expected) > 55
