"""Checkpoints of other architectures run as those of the four families do. spandrel builds their networks."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from command import Run
from images import make_image, save_image
from numpy.typing import NDArray
from torch import Tensor, nn

if find_spec("spandrel") is None:
    pytest.skip("spandrel is not installed", allow_module_level=True)

from spandrel_networks import NETWORKS, SCALES, make_foreign_checkpoint, spandrel

import restore_cli
from restore_cli.errors import WeightsError
from restore_cli.models.allocations import PeakMeter
from restore_cli.models.load import load_entry, load_file
from restore_cli.models.spandrel_model import SpandrelNetwork, check_descriptor
from restore_cli.pipeline.array import restore_array
from restore_cli.tiling.geometry import Tiling
from restore_cli.weights.catalogue import read_catalogue

CPU = torch.device("cpu")


def psnr(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(-10 * np.log10(max(1e-20, np.square(a - b).mean())))


def make_pixels(height: int, width: int) -> NDArray[np.float32]:
    pixels: NDArray[np.float32] = make_image(height, width).astype(np.float32) / np.float32(255)
    return pixels


def run_spandrel(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what spandrel itself makes of the file and the whole image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = spandrel.ModelLoader().load_from_file(path).eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    found: NDArray[np.float32] = out[0].permute(1, 2, 0).numpy()
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_what_spandrel_makes_of_the_whole_image(name: str, tmp_path: Path) -> None:
    network = load_file(make_foreign_checkpoint(tmp_path / "net.pth", name), CPU, torch.float32)
    pixels = make_pixels(118, 83)
    expected = run_spandrel(tmp_path / "net.pth", pixels)
    found = {
        overlap: np.clip(restore_array(network, pixels, Tiling(tile, overlap))[0], 0, 1)
        for tile, overlap in ((0, 0), (64, 0), (64, network.contract.overlap))
    }
    assert network.architecture == name
    assert network.contract.scale == SCALES[name]
    assert network.contract.overlap == 32
    assert expected.std() > 0.005  # an image, not a constant
    assert psnr(found[32], expected) > 90
    assert psnr(found[32], expected) > psnr(found[0], expected) + 10


@pytest.mark.parametrize("name", NETWORKS)
def test_an_untiled_image_of_any_size_is_that_of_spandrel(name: str, tmp_path: Path) -> None:
    network = load_file(make_foreign_checkpoint(tmp_path / "net.pth", name), CPU, torch.float32)
    for size in ((37, 50), (17, 9)):
        pixels = make_pixels(*size)
        whole = np.clip(restore_array(network, pixels, Tiling(0, 0))[0], 0, 1)
        assert psnr(whole, run_spandrel(tmp_path / "net.pth", pixels)) > 110


def test_the_memory_is_that_of_the_tensors_that_exist_together() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 5, 3, padding=1))
    x, meter = torch.rand(1, 3, 16, 16), PeakMeter()
    with torch.inference_mode(), meter:
        network(x)
    assert meter.peak == 4 * (8 + 5) * 16 * 16
    assert meter.held == 0


def test_a_memory_limit_makes_tiles_smaller(tmp_path: Path, restore: Run) -> None:
    make_foreign_checkpoint(Path("net.pth"), "SPAN")
    save_image(Path("in.png"), make_image(300, 300))
    tiles = []
    for memory in ("8G", "60M"):
        ran = restore("sr", "--weights", "net.pth", "in.png", "--memory", memory, "--json", "--overwrite")
        assert ran.code == 0, ran.err
        tiles.append(json.loads(ran.out.splitlines()[0])["tile"])
    assert tiles[1] < 300 <= tiles[0]


def test_the_result_and_the_estimate_name_the_architecture(restore: Run) -> None:
    make_foreign_checkpoint(Path("net.pth"), "ESRGAN")
    save_image(Path("in.png"), make_image(12, 10))
    planned = restore("sr", "--weights", "net.pth", "in.png", "--dry-run")
    assert "one tile of net.pth (ESRGAN) measured" in planned.err
    ran = restore("sr", "--weights", "net.pth", "in.png")
    assert ran.code == 0, ran.err
    assert "(net.pth (ESRGAN), 40×48 px" in ran.out
    ran = restore("sr", "--weights", "net.pth", "in.png", "--overwrite", "--json")
    assert json.loads(ran.out.splitlines()[0])["architecture"] == "ESRGAN"


def test_a_folder_is_done_until_the_file_changes(restore: Run) -> None:
    make_foreign_checkpoint(Path("net.pth"), "SPAN")
    for name in ("a", "b"):
        save_image(Path("in", f"{name}.png"), make_image(12, 10))
    command = ("sr", "--weights", "net.pth", "in", "-o", "out")
    assert "2 done, 0 skipped" in restore(*command).err
    assert "2 skipped" in restore(*command).err
    bias = "upsampler.0.bias"
    make_foreign_checkpoint(Path("net.pth"), "SPAN", lambda state: state.update({bias: state[bias] + 0.5}))
    assert "2 done, 0 skipped" in restore(*command).err


def test_two_processes_write_the_bytes_of_one(restore: Run) -> None:
    make_foreign_checkpoint(Path("net.pth"), "SPAN")
    for name in ("a", "b", "c"):
        save_image(Path("in", f"{name}.png"), make_image(14, 10, seed=ord(name)))
    for out, device in (("one", "cpu"), ("two", "cpu,cpu")):
        ran = restore("sr", "--weights", "net.pth", "in", "-o", out, "--device", device)
        assert ran.code == 0, ran.err
    for name in ("a", "b", "c"):
        assert Path("one", f"{name}.png").read_bytes() == Path("two", f"{name}.png").read_bytes()


@pytest.mark.parametrize("options", [("--tta",), ("--strength", 0.5), ("--alpha", "lanczos"), ("--bit-depth", 16)])
def test_options_work_as_for_the_four_families(options: tuple[object, ...], restore: Run) -> None:
    make_foreign_checkpoint(Path("net.pth"), "SPAN")
    save_image(Path("in.png"), make_image(14, 10, 4))
    for out, more in (("plain.png", ()), ("other.png", options)):
        ran = restore("sr", "--weights", "net.pth", "in.png", "-o", out, *more)
        assert ran.code == 0, ran.err
    assert Path("plain.png").read_bytes() != Path("other.png").read_bytes()


def test_a_scale_that_does_not_fit_the_command_is_refused(restore: Run) -> None:
    save_image(Path("in.png"), make_image(12, 10))
    make_foreign_checkpoint(Path("x2.pth"), "SPAN")
    make_foreign_checkpoint(Path("x1.pth"), "NAFNet")
    for command, reason in (
        (("denoise", "--weights", "x2.pth"), "x2.pth enlarges ×2, so denoise cannot use it"),
        (("sr", "--weights", "x1.pth"), "x1.pth does not enlarge, so sr cannot use it"),
        (("sr", "--weights", "x2.pth", "-s", "4"), "x2.pth enlarges ×2, not ×4"),
        (("sr", "--weights", "x2.pth", "--model", "hat"), "x2.pth is a checkpoint of SPAN, not of hat"),
    ):
        ran = restore(*command, "in.png")
        assert (ran.code, reason in ran.err) == (2, True), ran.err
    for task in ("denoise", "deblur", "derain", "dejpeg"):
        assert restore(task, "--weights", "x1.pth", "in.png").code == 0


def test_a_precision_that_spandrel_does_not_support_is_float32(restore: Run) -> None:
    make_foreign_checkpoint(Path("net.pth"), "DRCT")
    save_image(Path("in.png"), make_image(20, 20))
    ran = restore("sr", "--weights", "net.pth", "in.png", "--precision", "fp16")
    assert "net.pth: DRCT does not support float16: running in float32" in ran.err
    with_bf16 = restore("sr", "--weights", "net.pth", "in.png", "--precision", "bf16", "--overwrite", "--json")
    assert json.loads(with_bf16.out.splitlines()[0])["precision"] == "bf16"
    assert not with_bf16.err


def test_the_library_loads_such_a_file_and_leaves_the_process_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        model = restore_cli.load(make_foreign_checkpoint(tmp_path / "net.pth", "DRCT"), precision="fp16")
    assert restore_cli.restore(model, make_image(20, 20)).shape == (40, 40, 3)
    assert caplog.messages == ["net.pth: DRCT does not support float16: running in float32"]
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.__spec__ for name, module in sys.modules.items() if name.startswith("torchvision"))


def refuse(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_file(path, CPU, torch.float32)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


def test_without_spandrel_the_error_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_foreign_checkpoint(tmp_path / "net.pth", "SPAN")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    line = refuse(tmp_path / "net.pth")
    assert "belongs to none of the four families" in line
    assert "pip install '.[spandrel]'" in line


def test_an_unknown_architecture_is_named_by_its_first_tensor(tmp_path: Path) -> None:
    torch.save({"backbone.weight": torch.zeros(3)}, tmp_path / "net.pth")
    assert "no architecture of spandrel: the first of its 1 tensors is 'backbone.weight'" in refuse(
        tmp_path / "net.pth"
    )


ODD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "complex": (lambda x: x.to(torch.complex64), "holds complex64, expected floating-point numbers"),
    "int8": (lambda x: x.to(torch.int8), "holds int8"),
    "nan": (lambda x: x * float("nan"), "not finite"),
    "shape": (lambda x: x[:, :, :1], "spandrel cannot build its network: Error(s) in loading state_dict"),
    "scalar": (lambda x: x.sum(), "spandrel cannot build its network"),
    "expanded": (lambda x: x[:1, :1, :1, :1].expand(10**6, 10**6, 3, 3), "larger than the file"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tensors_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    change, reason = ODD[name]
    first = "model.0.weight"
    make_foreign_checkpoint(tmp_path / "net.pth", "ESRGAN", lambda state: state.update({first: change(state[first])}))
    assert reason in refuse(tmp_path / "net.pth")


@pytest.mark.parametrize("index", [4000, 5000, 10**30])
def test_an_index_beyond_all_tensors_is_refused_before_memory_is_allocated(index: int, tmp_path: Path) -> None:
    def add(state: dict[str, Tensor]) -> None:
        state[f"middle_blks.{index}.conv1.weight"] = state["middle_blks.0.conv1.weight"]
        for name, value in list(state.items()):
            state[name] = value.repeat_interleave(16, 0) if name == "intro.weight" else value

    make_foreign_checkpoint(tmp_path / "net.pth", "NAFNet", add)
    assert ("much larger than the file" if index == 4000 else "no network has this") in refuse(tmp_path / "net.pth")


def describe_convolution(channels_in: int, channels_out: int, **words: object) -> object:
    """Return a descriptor of one convolution."""
    network = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    facts = {"architecture": SimpleNamespace(name="Conv", id="Conv"), "tags": [], "supports_half": True}
    facts |= {"supports_bfloat16": True, "input_channels": channels_in, "output_channels": channels_out}
    kind = spandrel.MaskedImageModelDescriptor if words["purpose"] == "Inpainting" else spandrel.ImageModelDescriptor
    if kind is spandrel.ImageModelDescriptor:
        facts["scale"] = 1
    return kind(network, network.state_dict(), **facts | words)


@pytest.mark.parametrize(
    ("purpose", "channels", "reason"),
    [
        ("FaceSR", (3, 3), "Conv is a network for faces"),
        ("Inpainting", (3, 3), "Conv is a network for inpainting"),
        ("Restoration", (4, 4), "4 input and 4 output channels"),
        ("Restoration", (1, 3), "1 input and 3 output channels"),
    ],
)
def test_networks_for_other_purposes_or_channels_are_refused(
    purpose: str, channels: tuple[int, int], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=reason):
        check_descriptor(describe_convolution(*channels, purpose=purpose), tmp_path)


@pytest.mark.parametrize("size", [(8, 24), (24, 8), (16, 16)])
def test_a_network_of_squares_gets_squares(size: tuple[int, int]) -> None:
    sizes = spandrel.SizeRequirements(multiple_of=8, square=True)
    seen = []

    def call(network: nn.Module, x: Tensor) -> Tensor:
        seen.append(tuple(x.shape[-2:]))
        out: Tensor = network(x)
        return out

    described = describe_convolution(1, 1, purpose="Restoration", size_requirements=sizes, call_fn=call)
    x = torch.rand(2, 1, *size)
    assert SpandrelNetwork(described)(x).shape == x.shape
    assert seen == [(max(size), max(size))] * 2


def test_the_terms_of_restricted_architectures_are_shown(restore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = spandrel.ArchRegistry()
    extra.add(spandrel.MAIN_REGISTRY["SPAN"])
    package = ModuleType("spandrel_extra_arches")
    package.EXTRA_REGISTRY = extra  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", package)
    make_foreign_checkpoint(Path("net.pth"), "SPAN")
    save_image(Path("in.png"), make_image(12, 10))
    ran = restore("sr", "--weights", "net.pth", "in.png")
    assert ran.code == 0
    assert "net.pth: the code of SPAN comes from spandrel_extra_arches, under a non-commercial" in ran.err


def test_a_catalogue_entry_may_name_such_a_file(tmp_path: Path) -> None:
    make_foreign_checkpoint(tmp_path / "net.pth", "SPAN")
    facts = 'title = "t"\ntask = "sr"\nmodel = "toy"\nvariant = "v"\nlicense = "MIT"\n'
    source = 'sources = [{ url = "http://127.0.0.1:9/net.pth" }]\n'
    for architecture, scale in (("SPAN", 2), ("SPAN", 4), ("ESRGAN", 2)):
        network = f'[toy.spandrel]\narchitecture = "{architecture}"\nscale = {scale}\nchannels = 3\n'
        (tmp_path / "own.toml").write_text(f"[toy]\n{facts}{source}{network}")
        entry = read_catalogue(tmp_path / "own.toml").find_entry("toy")
        assert (entry.scale, entry.channels) == (scale, 3)
        if (architecture, scale) == ("SPAN", 2):
            assert load_entry(entry, tmp_path / "net.pth", CPU, torch.float32).architecture == "SPAN"
        else:
            with pytest.raises(WeightsError, match="not the expected network"):
                load_entry(entry, tmp_path / "net.pth", CPU, torch.float32)


def test_variants_of_a_family_that_restore_does_not_have_are_built_by_spandrel(tmp_path: Path) -> None:
    """HAT without an upsampler is one. If spandrel refuses a file too, the error is that of the family."""
    path = make_foreign_checkpoint(tmp_path / "net.pth", "HAT")
    assert load_file(path, CPU, torch.float32).contract.scale == 1
    make_foreign_checkpoint(path, "HAT", lambda state: state.update({"norm.bias": torch.zeros(1)}))
    assert "looks like hat, but has no tensor 'upsample.0.weight'" in refuse(path)
