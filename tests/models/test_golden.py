"""Each family reproduces the output of the authors' implementation."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDEN, build_on_meta, convert_config, read_golden
from safetensors.torch import save_file

from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys, load_file

CPU = torch.device("cpu")
NAMES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))
FINGERPRINTS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "fingerprints.json").read_text())


def test_all_reference_tensors_exist() -> None:
    assert len(NAMES) == 22
    assert len(FINGERPRINTS) == 30


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_full_size_variants_have_the_published_keys_and_shapes(name: str) -> None:
    published = FINGERPRINTS[name]
    module = build_on_meta(
        published["architecture"], convert_config(published["architecture"], published["hyperparameters"])
    )
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if published["architecture"] == "emt":
        shapes |= computed_by_emt(shapes)
    lines = sorted(f"{key} {'x'.join(map(str, shape))}" for key, shape in shapes.items())
    assert len(lines) == published["tensors"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == published["sha256"]
    assert sum(p.numel() for p in module.parameters()) == published["trainable_parameters"]


def computed_by_emt(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the published buffers that our EMT computes: masks and mean shifts."""
    extra: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if re.search(r"mlp_list\.\d+\.fc\d\.weight", key):
            extra[key.replace("weight", "mask")] = (shape[1], 1, 3, 3)
        if re.search(r"sa_list\.\d+\.norm\.weight", key):
            extra[key.replace("norm.weight", "token_mixer.mask")] = (shape[0], 1, 3, 3)
    for name in ("sub_mean", "add_mean"):
        extra |= {f"{name}.weight": (3, 3, 1, 1), f"{name}.bias": (3,)}
    return extra


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("emt")])
def test_configuration_is_read_from_keys_and_shapes(name: str, tmp_path: Path) -> None:
    architecture, ours, weights, x, _ = read_golden(name)
    save_file(weights, tmp_path / "net.safetensors")
    found = load_file(tmp_path / "net.safetensors", CPU, torch.float32)
    stated = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)
    assert found.contract == stated.contract
    side = 2 * found.contract.tile_multiple
    x = x.float().repeat(1, 1, side, side)[..., :side, :side]
    assert torch.equal(found(x), stated(x))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_real_emt_checkpoints_are_detected(scale: int, shared: Path) -> None:
    net = load_file(shared / f"checkpoints/EMT_LSR_x{scale}.pth", CPU, torch.float32)
    assert net.contract.scale == scale


@pytest.mark.parametrize("name", ["swinir_classical_x4", "hat_x4", "restormer_withbias", "emt_x4"])
def test_a_batch_gives_the_same_as_single_tiles(name: str) -> None:
    architecture, ours, weights, _, _ = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), CPU, torch.float32)
    x = torch.rand(3, net.contract.channels, 32, 64)
    torch.testing.assert_close(net(x), torch.cat([net(one[None]) for one in x]), rtol=1e-4, atol=1e-5)
