"""The command runs on systems where Python's os module has fewer functions, such as macOS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_gpu import fake_gpu, move_to_gpu
from golden_files import read_golden
from images import make_image, save_image
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys

ROOT = Path(__file__).parents[1]

HIDING = """
import os
for name in (
    "sched_getaffinity", "sched_setaffinity", "copy_file_range", "eventfd", "fdatasync", "getrandom", "memfd_create",
    "pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate", "splice", "O_DIRECT", "O_PATH", "O_TMPFILE",
):
    if hasattr(os, name):
        delattr(os, name)
"""
"""Python runs a sitecustomize module when it starts, also in worker processes."""


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_images_are_restored_without_the_functions_that_only_linux_has(device: str, tmp_path: Path, x1: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    save_image(tmp_path / "in/a.png", make_image(20, 24))
    save_image(tmp_path / "in/b.png", make_image(20, 24, seed=1))
    command = [sys.executable, "-m", "restore_cli", "denoise", "--weights", str(x1), "in", "-o", "out"]
    given = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([*command, "--device", device], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["swinir_classical_x4", "swinir_color_jpeg", "hat_x4", "restormer_withbias", "emt_x2"])
def test_networks_run_on_mps_and_use_no_float64_there(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apple's GPUs have no float64. The tensors have shapes and dtypes, but no values."""
    mps = torch.device("mps:0")
    architecture, ours, weights, _, _ = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), torch.device("cpu"), dtype)
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **given: torch.empty_like(q))
    side = 2 * net.contract.tile_multiple
    with fake_gpu() as recorded:
        move_to_gpu(net.module, mps)
        net.device = mps
        out = net(torch.empty(1, net.contract.channels, side, side))
    assert (out.device, out.dtype) == (mps, torch.float32)
    tensors = [leaf for _, given in recorded.calls for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    assert mps in {tensor.device for tensor in tensors}
    assert torch.float64 not in {tensor.dtype for tensor in tensors}
