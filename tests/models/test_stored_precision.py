"""In half precision no weight is converted while a network runs: copies of weights are stored in their dtype."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_gpu import CUDA, CallRecorder, autocast_on_gpu, fake_gpu, move_to_gpu
from golden_files import GOLDEN, read_golden
from images import make_checkpoint
from torch import Tensor, nn

from restore_cli.errors import RestoreError, is_out_of_memory
from restore_cli.models import load, stored_precision
from restore_cli.models.allocations import PeakMeter
from restore_cli.models.load import COMPUTED_KEYS, build_module, build_network, drop_keys, load_file
from restore_cli.models.network import Network, Reload
from restore_cli.models.ops import attention, block_tail
from restore_cli.models.stored_precision import optimize_in_bfloat16

CPU = torch.device("cpu")
CASTS = (torch.ops.aten.to, torch.ops.aten._to_copy)
NAMES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))


def build(name: str, precision: torch.dtype, reload: Reload | None = None) -> Network:
    """Return the network of a reference file."""
    architecture, ours, weights, _, _ = read_golden(name)
    return build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, precision, reload)


def run_on_gpu(network: Network, dtype: torch.dtype) -> tuple[CallRecorder, Network]:
    """Run a float32 network in another precision on a simulated GPU."""
    side = 2 * network.contract.tile_multiple
    with fake_gpu() as recorded:
        move_to_gpu(network.module)
        half = Network(network.module, CUDA, dtype)
        recorded.calls.clear()
        with torch.inference_mode(), autocast_on_gpu(dtype):
            half.module(torch.empty(1, network.contract.channels, side, side, device=CUDA))
    return recorded, half


def converted(recorded: CallRecorder, module: nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes of weights that were converted to another dtype."""
    weights = {part.untyped_storage()._cdata for part in (*module.parameters(), *module.buffers())}
    casts = [given for operator, given in recorded.calls if operator.overloadpacket in CASTS]
    changed = [given["self"] for given in casts if given.get("dtype", given["self"].dtype) != given["self"].dtype]
    assert changed  # features are converted
    return [tuple(part.shape) for part in changed if part.untyped_storage()._cdata in weights]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_no_call_on_a_gpu_converts_weights(
    name: str, dtype: torch.dtype, aligned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kernel(
        qkv: list[Tensor], window: object, shift: object, margin: int, bias: Tensor | None, scale: float
    ) -> Tensor:
        if bias is not None and dtype == torch.float16:
            bias.half()  # as the kernel does
        return torch.empty_like(qkv[0])

    monkeypatch.setattr(attention, "can_use_kernel", lambda *form: True)
    monkeypatch.setattr(attention, "triton_attention", kernel)
    monkeypatch.setattr(block_tail, "triton_layer_norm", lambda x, *rest: torch.empty_like(x))
    monkeypatch.setattr(block_tail, "triton_block_tail", lambda x, *rest: torch.empty_like(x))
    suits = aligned and name.startswith(("swinir", "hat"))
    monkeypatch.setattr(stored_precision, "can_align_rows", lambda *form: suits)
    recorded, half = run_on_gpu(build(name, torch.float32), dtype)
    assert len(recorded.calls) > 60
    assert converted(recorded, half.module) == []


def make_tile(network: Network) -> Tensor:
    """Return (1, c, h, w) of two tile multiples per side."""
    side = 2 * network.contract.tile_multiple
    return torch.rand(1, network.contract.channels, side, side)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_no_call_on_a_cpu_converts_weights(name: str, dtype: torch.dtype) -> None:
    network = build(name, dtype)
    with CallRecorder() as recorded:
        network(make_tile(network))
    assert len(recorded.calls) > 100
    assert converted(recorded, network.module) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_stored_weights_give_the_same_image_to_the_bit(name: str, dtype: torch.dtype) -> None:
    network = build(name, dtype)
    x = make_tile(network)
    found = network(x)
    network.module = build(name, torch.float32).module
    assert torch.equal(found, network(x))


def test_weights_of_float32_modules_are_shared() -> None:
    network = build("swinir_classical_x4", torch.float16)
    kept = {id(weight) for weight in network.float32_module.parameters()}
    shared = {name for name, weight in network.module.named_parameters() if id(weight) in kept}
    assert {"conv_first.module.weight", "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"} <= shared
    fallback = network.fp32_fallback
    assert fallback is not None
    assert fallback.module is network.float32_module
    assert {weight.dtype for weight in fallback.module.parameters()} == {torch.float32}


def test_bfloat16_on_a_cpu_frees_the_float32_weights(tmp_path: Path) -> None:
    """Only a tile that overflows needs them. They are read again then, if the file is the same."""
    path = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    network, wide = (load_file(path, CPU, dtype) for dtype in (torch.bfloat16, torch.float32))
    assert network.loaded is None
    x = make_tile(network)
    fallback = network.fp32_fallback
    assert fallback is not None
    assert torch.equal(fallback(x), wide(x))


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_equal_whether_float32_is_kept_or_freed(name: str) -> None:
    kept = build(name, torch.bfloat16)
    freed = build(name, torch.bfloat16, lambda: build(name, torch.float32))
    assert freed.loaded is None
    expected, found = kept.module.state_dict(keep_vars=True), freed.module.state_dict(keep_vars=True)
    assert expected.keys() == found.keys()
    assert all(value.dtype == found[key].dtype and torch.equal(value, found[key]) for key, value in expected.items())
    x = make_tile(kept)
    assert torch.equal(kept(x), freed(x))


def test_float32_weights_of_one_module_exist_at_a_time() -> None:
    """Inference forms of Restormer have other tensors than its file. All of them in float32 are twice the result."""
    architecture, ours, weights, _, _ = read_golden("restormer_biasfree")
    module = build_module(architecture, ours).requires_grad_(False)
    module.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    with PeakMeter() as meter:
        optimize_in_bfloat16(module)
    assert meter.peak < 1.5 * sum(weight.nbytes for weight in (*module.parameters(), *module.buffers()))


def test_a_checkpoint_that_has_changed_is_not_read_again(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    changed, deleted = (load_file(path, CPU, torch.bfloat16) for _ in range(2))
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(RestoreError, match=f"{path} has changed since it was read"):
        _ = changed.fp32_fallback
    path.unlink()
    with pytest.raises(RestoreError, match=f"{path} has changed since it was read"):
        _ = deleted.fp32_fallback


def test_lack_of_room_for_float32_weights_leads_to_a_smaller_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_file(make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2"), CPU, torch.bfloat16)
    monkeypatch.setattr(load, "convert_to_float32", lambda *given: torch.empty(2**60))
    with pytest.raises(MemoryError) as raised:
        _ = network.fp32_fallback
    assert is_out_of_memory(raised.value)


def test_a_checkpoint_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    monkeypatch.chdir(tmp_path)
    network = load_file(Path("x2.safetensors"), CPU, torch.bfloat16)
    monkeypatch.chdir("/")
    assert network.fp32_fallback is not None


def test_a_network_does_not_keep_the_tensors_of_a_file() -> None:
    """One of them would keep the whole file in memory."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        architecture, ours, weights, _, _ = read_golden("hat_x4")
        state = {key: value.float() for key, value in drop_keys(weights, COMPUTED_KEYS).items()}
        network = build_network(architecture, ours, state, Path("hat_x4"), CPU, dtype)
        given = {tensor.data_ptr() for tensor in state.values()}
        for module in (network.module, network.float32_module):
            assert not given & {weight.data_ptr() for weight in module.state_dict().values()}


def test_layers_of_a_network_share_their_tables() -> None:
    network = build("hat_x4", torch.float32)
    masks = [buffer for name, buffer in network.module.named_buffers(remove_duplicate=False) if name.endswith(".masks")]
    assert len(masks) > 1
    assert len({mask.data_ptr() for mask in masks}) == 1
