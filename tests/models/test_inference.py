"""Each inference form computes what its published module computes, and both reproduce the authors' outputs."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from golden_files import GOLDEN, read_golden
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.emt import StripedAttention
from restore_cli.models.inference import INFERENCE_FORMS, optimize
from restore_cli.models.load import COMPUTED_KEYS, build_module, drop_keys, find_state_dict, read_tensors
from restore_cli.models.network import Network
from restore_cli.models.restormer import GatedFeedForward
from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.store import BUNDLED

CPU = torch.device("cpu")
NAMES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))
SHIPPED = [entry.name for entry in read_catalogue().entries if entry.bundled]


def build_published(name: str) -> nn.Module:
    """Return the published module with the weights of a reference file or of a bundled checkpoint."""
    if name in SHIPPED:
        entry = read_catalogue().find_entry(name)
        architecture, config = entry.architecture, entry.config
        weights = find_state_dict(read_tensors(BUNDLED / f"{name}.safetensors")[0], Path(name), entry.key)
    else:
        architecture, config, weights, _, _ = read_golden(name)
    module = build_module(architecture, config).requires_grad_(False).eval()
    module.load_state_dict(drop_keys(weights, COMPUTED_KEYS), strict=True)
    return module


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference, divided by the norm of `expected`."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("form", ["published", "inference"])
@pytest.mark.parametrize("name", NAMES)
def test_both_forms_give_the_output_of_the_authors(name: str, form: str) -> None:
    module = build_published(name)
    if form == "inference":
        optimize(module)
    architecture, _, _, x, reference = read_golden(name)
    span, (h, w) = 255 if architecture == "emt" else 1, x.shape[-2:]
    multiple = Network(module, CPU, torch.float32).contract.pad_multiple
    x = F.pad(x / span, (0, -w % multiple, 0, -h % multiple), mode="reflect")
    with torch.inference_mode():
        out = module(x.float())[..., : reference.shape[-2], : reference.shape[-1]] * span
    assert relative(out, reference) < 1e-5


@pytest.mark.parametrize("name", NAMES + SHIPPED)
def test_each_inference_form_equals_its_published_module(name: str) -> None:
    """Each form gets the input that its published module gets in the whole network.

    Modules whose weights are merged into those of their parent have no form of their own.
    """
    published = build_published(name)
    inference = deepcopy(published)
    optimize(inference)
    forms = {place.replace(".module", ""): module for place, module in inference.named_modules()}
    wrong: list[str] = []

    def compare(place: str) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
            form = forms[place]
            assert type(form) is INFERENCE_FORMS[type(module)]
            error = relative(form(inputs[0].clone()), out)
            if not error < 1e-5:
                wrong.append(f"{place}, a {type(module).__name__}: {error}")

        published.get_submodule(place).register_forward_hook(hook)

    for place, module in published.named_modules():
        if place not in forms:
            owner = place
            while owner not in forms:
                owner = owner.rpartition(".")[0]
            assert isinstance(published.get_submodule(owner), GatedFeedForward | StripedAttention), place
        elif type(module) in INFERENCE_FORMS:
            compare(place)
    contract = Network(published, CPU, torch.float32).contract
    side = 2 * contract.tile_multiple
    x = F.interpolate(torch.rand(2, contract.channels, 6, 4), size=(side, side + contract.pad_multiple))
    with torch.inference_mode():
        published(x)
    assert wrong == []


def test_each_form_is_in_a_reference_file() -> None:
    kinds = {type(module) for name in NAMES for module in build_published(name).modules()}
    assert kinds >= INFERENCE_FORMS.keys()
