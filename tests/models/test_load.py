"""Wrong and damaged checkpoints are refused with a reason, and never run code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from golden_files import read_golden
from safetensors.torch import save_file

from restore_cli.errors import UsageError, WeightsError
from restore_cli.models.load import load_file, pick_device, pick_precision

CPU = torch.device("cpu")


def load(path: Path) -> None:
    load_file(path, CPU, torch.float32)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint file"):
        load(tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_text_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("not a checkpoint")
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        load(tmp_path / name)


def test_truncated_checkpoint(tmp_path: Path) -> None:
    torch.save(read_golden("hat_x4")[2], tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes((tmp_path / "net.pth").read_bytes()[:5000])
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        load(tmp_path / "net.pth")


class Trap:
    """Runs a command if it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("trapped",)


def test_code_in_a_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trap.pth").write_bytes(pickle.dumps({"params": Trap()}))
    with pytest.raises(WeightsError):
        load(Path("trap.pth"))
    assert not Path("trapped").exists()


def test_other_architecture_is_named_by_its_first_tensor(tmp_path: Path) -> None:
    save_file({"backbone.weight": torch.zeros(3)}, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"none of the four families.*backbone\.weight"):
        load(tmp_path / "net.safetensors")


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    weights = read_golden("swinir_classical_x4")[2]
    del weights["norm.bias"]
    save_file(weights, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 1 tensors \(norm\.bias"):
        load(tmp_path / "net.safetensors")


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    weights = read_golden("restormer_gray")[2]
    weights["output.weight"] = torch.zeros(1, 16, 5, 5)
    save_file(weights, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"another shape \(output\.weight: \(1, 16, 5, 5\)"):
        load(tmp_path / "net.safetensors")


def test_an_ambiguous_emt_is_refused_with_the_reason(tmp_path: Path) -> None:
    save_file(read_golden("emt_x4")[2], tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match="heads and windows"):
        load(tmp_path / "net.safetensors")


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict", None])
def test_state_dict_is_found_where_training_scripts_keep_it(key: str | None, tmp_path: Path) -> None:
    weights = {f"module.{name}": value for name, value in read_golden("swinir_gray_jpeg")[2].items()}
    torch.save({key: weights, "iter": 5} if key else weights, tmp_path / "net.pth")
    load(tmp_path / "net.pth")


def test_averaged_weights_take_precedence(tmp_path: Path) -> None:
    weights = read_golden("swinir_gray_jpeg")[2]
    torch.save({"params": {"a": torch.zeros(1)}, "params_ema": weights}, tmp_path / "net.pth")
    load(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "xla", "cpu:1"])
def test_unknown_or_absent_device(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        pick_device(name)


def test_unknown_precision() -> None:
    with pytest.raises(UsageError, match="fp8"):
        pick_precision("fp8", CPU)


@pytest.mark.parametrize("halves", [True, False])
def test_auto_precision_is_one_that_the_processor_multiplies(halves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: halves)
    assert pick_precision("auto", CPU) == (torch.bfloat16 if halves else torch.float32)
    assert pick_precision("auto", torch.device("mps")) == torch.float32
