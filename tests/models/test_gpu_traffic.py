"""Restormer on a simulated GPU: rows of whole 16 bytes, and no copies of features in float32."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict

import pytest
import torch
from fake_gpu import CUDA, CallRecorder, autocast_on_gpu, fake_gpu, move_to_gpu
from torch.nn import functional as F

from benchmarks.peers import CASES
from restore_cli.models import restormer
from restore_cli.models.forms import restormer as forms
from restore_cli.models.inference import optimize
from restore_cli.models.load import build_module
from restore_cli.models.network import Network
from restore_cli.models.ops import linear
from restore_cli.models.ops.channel_attention import channel_cosines

RESTORMER = next(case for case in CASES if case.name == "Restormer")
PRODUCTS = (torch.ops.aten.linear, torch.ops.aten.conv2d)
SIDE = 64


@pytest.fixture(scope="module")
def recorded() -> CallRecorder:
    """Return the operators of one tile in float16."""
    module = build_module(RESTORMER.architecture, asdict(RESTORMER.config)).requires_grad_(False).eval()
    optimize(module)
    with fake_gpu() as recorder:
        move_to_gpu(module)
        network = Network(module, CUDA, torch.float16)
        recorder.calls.clear()
        with torch.inference_mode(), autocast_on_gpu(torch.float16):
            network.module(torch.empty(1, 3, SIDE, SIDE, device=CUDA))
    return recorder


def test_rows_of_products_are_multiples_of_16_bytes(recorded: CallRecorder) -> None:
    """Otherwise a GPU computes products of half precision in slower ways."""
    products = [given for operator, given in recorded.calls if operator.overloadpacket in PRODUCTS]
    halves = [given["weight"] for given in products if given["input"].dtype == torch.float16]
    dense = [weight for weight in halves if weight.shape[1] > 1]
    assert len(dense) == 184
    assert {tuple(weight.shape) for weight in dense if (weight.shape[0] % 8, weight.shape[1] % 8) != (0, 0)} == set()
    assert {len(weight) % 8 for weight in halves} == {0}


def test_features_change_their_dtype_only_at_the_ends(recorded: CallRecorder) -> None:
    casts = [given for operator, given in recorded.calls if operator.overloadpacket == torch.ops.aten.to]
    changed = [given["self"].shape for given in casts if given.get("dtype", given["self"].dtype) != given["self"].dtype]
    scores = 8 * 48 * 48
    assert [tuple(shape) for shape in changed if shape.numel() > scores] == [(1, 48, SIDE, SIDE), (1, 96, SIDE, SIDE)]


def test_cosines_in_float16_are_those_of_normalised_channels() -> None:
    qk = (3 * torch.randn(2, 500, 96)).half()
    qk[:, :, 5] = 0
    q, k = F.normalize(qk.float(), dim=1).half().view(2, 500, 2, 4, 12).movedim(2, 0).transpose(2, 3)
    with torch.inference_mode(), torch.autocast("cpu", torch.float16):
        assert torch.equal(channel_cosines(qk, 4), q.mT @ k)


def test_padded_channels_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU computes with padded channels too, but in other operators than a CPU."""
    published = restormer.GatedFeedForward(48, 127)
    form, x = deepcopy(published), torch.randn(2, 48, 9, 7)
    optimize(form)
    for module in (forms, linear):
        monkeypatch.setattr(module, "can_use_onednn", lambda *given: False)
    with torch.inference_mode():
        found, expected = form(x), published(x)
    assert isinstance(form, forms.FastGatedFeedForward)
    assert float((found - expected).norm() / expected.norm()) < 1e-6
