"""Odd files in place of a checkpoint give one line that says what they are, and run no code."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from golden_files import read_golden
from hypothesis import given, settings
from hypothesis import strategies as st
from images import make_checkpoint, make_image, save_image
from safetensors import safe_open
from safetensors.torch import save_file
from systems import IMPORT_PATH
from torch import Tensor

from restore_cli.errors import WeightsError
from restore_cli.models.load import load_file
from restore_cli.models.network import Network

CPU = torch.device("cpu")
FIRST = "conv_first.weight"


def weights() -> dict[str, Tensor]:
    """Return the weights of a small network without metadata, with its first convolution in float32."""
    found = read_golden("swinir_gray_jpeg")[2]
    return found | {FIRST: found[FIRST].float()}


def load(path: Path) -> Network:
    """Load the file and let warnings pass, because the loader catches the errors that the filter of the tests makes."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            return load_file(path, CPU, torch.float32)
        finally:
            assert not warned


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load(path)
    line = str(caught.value)
    assert caught.value.code == 4
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert "weights_only" not in line
    return line


def jagged(x: Tensor) -> Tensor:
    return torch.nested.nested_tensor(list(x[:2]), layout=torch.jagged)


def compressed(x: Tensor) -> Tensor:
    return x.flatten(1).to_sparse_csr()


def quantised(x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)


TENSORS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "complex": (lambda x: x.to(torch.complex64), "another kind of number (conv_first.weight: complex64 instead of flo"),
    "conjugate": (lambda x: torch.complex(x, x).conj(), "complex64 instead of float32"),
    "int8": (lambda x: x.to(torch.int8), "int8 instead of float32"),
    "uint16": (lambda x: x.abs().to(torch.uint16), "uint16 instead of float32"),
    "bool": (lambda x: x > 0, "bool instead of float32"),
    "float8": (lambda x: x.to(torch.float8_e4m3fn), "float8_e4m3fn instead of float32"),
    "sparse": (lambda x: x.to_sparse(), "has sparse tensors"),
    "csr": (compressed, "has sparse tensors"),
    "meta": (lambda x: x.to("meta"), "has empty (meta) tensors"),
    "quantised": (quantised, "has quantised tensors"),
    "nested": (lambda x: torch.nested.nested_tensor(list(x[:2])), "has nested tensors"),
    "jagged": (jagged, "has nested tensors"),
    "nan": (lambda x: x * float("nan"), "'conv_first.weight' holds numbers that are not finite"),
    "inf": (lambda x: x.double() * 1e300, "'conv_first.weight' holds numbers that are not finite"),
    "empty": (lambda x: x[:0], "looks like swinir, but"),
    "scalar": (lambda x: x.sum(), "looks like swinir, but"),
    "none": (lambda x: None, "'conv_first.weight' is not a tensor"),
    "list": (lambda x: x.tolist(), "'conv_first.weight' is not a tensor"),
}


@pytest.mark.filterwarnings("ignore")  # of making them
@pytest.mark.parametrize("name", TENSORS)
def test_odd_tensors_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, reason = TENSORS[name]
    torch.save({"params": weights() | {FIRST: make(weights()[FIRST])}}, tmp_path / "odd.pth")
    assert reason in refused(tmp_path / "odd.pth")


@pytest.mark.parametrize("name", ["complex", "int8", "float8", "nan", "inf"])
def test_odd_tensors_of_safetensors_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, reason = TENSORS[name]
    tensor = make(weights()[FIRST])
    assert isinstance(tensor, Tensor)
    save_file(weights() | {FIRST: tensor}, tmp_path / "odd.safetensors")
    assert reason in refused(tmp_path / "odd.safetensors")


PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "float64": Tensor.double,
    "bfloat16": Tensor.bfloat16,
    "parameter": torch.nn.Parameter,
    "strided": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": lambda x: x[:1, :, :1, :1].expand(x.shape),
    "negative": torch._neg_view,
}


@pytest.mark.parametrize("name", PLAIN)
def test_other_dtypes_and_layouts_of_weights_are_loaded(name: str, tmp_path: Path) -> None:
    torch.save({"params": weights() | {FIRST: PLAIN[name](weights()[FIRST])}}, tmp_path / "net.pth")
    assert torch.isfinite(load(tmp_path / "net.pth")(torch.rand(1, 1, 56, 56))).all()


def test_old_formats_and_training_checkpoints_are_loaded(tmp_path: Path) -> None:
    beside = {"epoch": 3, "rate": 1e-4, "name": "net", "milestones": OrderedDict(a=[1, 2]), "seen": {1, 2}}
    for number, new in enumerate((True, False)):
        path = tmp_path / f"{number}.pth"
        torch.save({"state_dict": weights(), **beside}, path, _use_new_zipfile_serialization=new)
        load(path)


CONTAINERS: dict[str, object] = {
    "list": [torch.zeros(1)],
    "tensor": torch.zeros(3),
    "number": 5,
    "text": "hello",
    "none": None,
    "nothing": {},
    "nothing inside": {"params": {}},
    "list inside": {"params": [1]},
    "too deep": {"a": {"b": {"c": torch.zeros(1)}}},
    "numbers as names": {1: torch.zeros(1)},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_other_containers_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    torch.save(CONTAINERS[name], tmp_path / "odd.pth")
    refused(tmp_path / "odd.pth")


class Trap:
    """Makes a folder if it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("trapped",)


def in_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"params": Trap()}))
        archive.writestr("archive/version", "3")


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 4)), path)


CODE: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"pickle {n}": (lambda path, n=n: path.write_bytes(pickle.dumps({"a": Trap()}, protocol=n)), r"\w+\.mkdir")  # type: ignore[misc]
        for n in range(6)
    },
    "by hand": (lambda path: path.write_bytes(b"cos\nsystem\n(S'mkdir trapped'\ntR."), r"os\.system"),
    "torch.save": (lambda path: torch.save({"params": weights(), "hook": Trap()}, path), r"\w+\.mkdir"),
    "old torch.save": (
        lambda path: torch.save({"params": Trap()}, path, _use_new_zipfile_serialization=False),
        r"\w+\.mkdir",
    ),
    "archive": (in_archive, r"\w+\.mkdir"),
    "module": (lambda path: torch.save(torch.nn.Linear(3, 4), path), r"torch\.nn\.modules\.linear\.Linear"),
    "program": (scripted, r"__torch__\.torch.*"),
    "namespace": (lambda path: torch.save({"params": weights(), "args": argparse.Namespace()}, path), "argparse.*"),
    "numpy": (lambda path: torch.save({"params": weights(), "best": np.float64(3)}, path), "numpy.*"),
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_named_and_does_not_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, named = CODE[name]
    make(tmp_path / "trap.pth")
    line = refused(tmp_path / "trap.pth")
    found = line.partition("contains code ('")[2].partition("'), which restore never runs")[0]
    assert re.fullmatch(named, found), line
    assert [path.name for path in tmp_path.iterdir()] == ["trap.pth"]


def test_files_of_other_kinds_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "noise.pth").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "dict.pth").write_bytes(pickle.dumps({"a": 1}))
    with tarfile.open(tmp_path / "tar.pth", "w") as tar:
        tar.add(tmp_path / "dict.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a.txt", "hello")
    for name in ("half", "empty", "noise", "dict", "tar", "zip"):
        assert "not a readable checkpoint" in refused(tmp_path / f"{name}.pth")


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "dim": {"dim": 10**12},
    "negative": {"dim": -6},
    "word": {"dim": "x"},
    "infinite": {"dim": 1e400},
    "none": {"dim": None},
    "blocks": {"depths": [10**6]},
    "no list": {"depths": 3},
    "window": {"window": 10**6},
    "no heads": {"heads": [0, 0]},
    "mapping": {"heads": {"a": 1}},
    "nan": {"mlp_ratio": float("nan")},
    "large": {"mlp_ratio": 1e30},
    "range": {"value_range": 0.0},
    "range as a word": {"value_range": "x"},
    "scale": {"scale": 10**9},
    "head": {"head": 5},
    "another": {"evil": 1},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_impossible_configurations_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "net.safetensors", "swinir_gray_jpeg")
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = json.loads(metadata["config"]) | CONFIGURATIONS[name]
    save_file(tensors, path, metadata | {"config": json.dumps(config)})
    refused(path)
    save_file(tensors, path, metadata | {"config": "[" * 100_000})
    refused(path)


def test_unusual_numbers_of_channels_are_refused(tmp_path: Path) -> None:
    found = read_golden("restormer_biasfree")[2]
    for name, axis in (("patch_embed.proj.weight", 1), ("output.weight", 0)):
        found[name] = torch.cat([found[name], found[name]], axis).narrow(axis, 0, 5).contiguous()
    torch.save(found, tmp_path / "net.pth")
    assert "has 5 input channels" in refused(tmp_path / "net.pth")


CHANGES: list[Callable[[Tensor], Any]] = [
    lambda x: x[None],
    lambda x: x.flatten(),
    lambda x: x.mT.contiguous() if x.ndim > 1 else x,
    lambda x: x[:-1],
    lambda x: torch.cat([x, x]),
    lambda x: torch.cat([x, x], -1),
    lambda x: x[:0],
    lambda x: x * 1e38,
    lambda x: x * 0,
    lambda x: x.to(torch.int64),
    lambda x: x.to(torch.complex64),
    lambda x: x.expand(3, *x.shape),
    lambda x: x.new_zeros(10**6, 0),
    lambda x: None,
]


@settings(max_examples=100)
@given(
    name=st.sampled_from(["swinir_gray_jpeg", "hat_small_x4", "restormer_gray", "emt_x2"]),
    picks=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, len(CHANGES))), min_size=1, max_size=3),
    wrapped=st.booleans(),
)
def test_any_changed_tensor_is_refused_or_loaded(
    name: str, picks: list[tuple[int, int]], wrapped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state: dict[str, Any] = dict(read_golden(name)[2])
    for number, change in picks:
        key = sorted(state)[number % len(state)]
        value = state.pop(key)
        if change < len(CHANGES) and isinstance(value, Tensor):
            value = value.float() if value.is_floating_point() else value
            state[key] = CHANGES[change](value.reshape(value.shape or (1,)))
    path = tmp_path_factory.getbasetemp() / "changed.pth"
    torch.save({"params": state} if wrapped else state, path)
    try:
        net = load_file(path, CPU, torch.float32)
    except WeightsError as error:
        line = str(error)
    else:
        side = 2 * net.contract.tile_multiple
        line = str(net(torch.rand(1, net.contract.channels, side, side)).shape)
    assert "\n" not in line


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["complex", "sparse", "quantised", "nan", "code"])
def test_the_command_prints_one_line_and_exits_with_4(name: str, restore: Run) -> None:
    save_image(Path("in.png"), make_image(20, 20))
    if name == "code":
        torch.save({"params": Trap()}, "odd.pth")
    else:
        torch.save(weights() | {FIRST: TENSORS[name][0](weights()[FIRST])}, "odd.pth")
    ran = restore("dejpeg", "in.png", "--weights", "odd.pth", "--json")
    assert (ran.code, ran.err.count("\n")) == (4, 1)
    assert ran.err.startswith("restore: odd.pth: ")
    assert json.loads(ran.out)["summary"]["exit_code"] == 4
    assert not Path("trapped").exists()


def test_the_command_prints_no_message_of_pytorch(tmp_path: Path) -> None:
    save_image(tmp_path / "in.png", make_image(20, 20))
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"params": Trap()}))
    command = [sys.executable, "-W", "always", "-m", "restore_cli", "dejpeg", "in.png", "--weights", "trap.pth"]
    environment = os.environ | {"PYTHONPATH": IMPORT_PATH}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1), done.stderr
    assert done.stderr.startswith("restore: trap.pth: contains code (")
    assert "which restore never runs" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "trap.pth"]
