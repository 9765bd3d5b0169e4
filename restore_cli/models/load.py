"""Checkpoint files into networks: devices and precisions by name, strict loading."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import fields
from fnmatch import fnmatch
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore_cli.errors import UsageError, WeightsError, stating_lack_of_memory
from restore_cli.models.detect import detect
from restore_cli.models.network import ARCHITECTURES, Network
from restore_cli.models.pickles import check_pickles
from restore_cli.weights.catalogue import Entry

__all__ = ["DEVICES", "PRECISIONS", "build", "load_entry", "load_file", "pick_device", "pick_precision"]

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DEVICES = "auto, cpu, cuda, cuda:N or mps"
STATE_KEYS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Where training scripts keep the state dict inside a file, the averaged weights first."""

COMPUTED = ("*relative_position_index*", "*attn_mask", "*.token_mixer.mask", "*.fc?.mask", "sub_mean.*", "add_mean.*")
"""Published buffers that the modules compute themselves."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Kinds of number that weights may be kept in."""

LARGEST = 4096
"""Sum of the whole numbers in a configuration at most: ten times that of the largest published one."""

CHANNELS = (1, 3, 6)
"""That a network may take: gray, colours, or two views in colour."""


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` takes CUDA, then MPS, then the CPU. Raises UsageError where it is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is none of {DEVICES}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {name!r} is none of {DEVICES}")
    count = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}[device.type]
    if (device.index or 0) >= count:
        raise UsageError(
            f"device {name!r} is not here: this PyTorch sees {count} {device.type} devices", "--device cpu"
        )
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; `auto` is the fastest whose results look the same (docs/performance.md).

    That is float16 on CUDA, bfloat16 on a CPU that multiplies it by itself, float32 elsewhere.
    """
    if name == "auto" and device.type == "cuda":
        return torch.float16
    if name == "auto":
        halves = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if halves else torch.float32
    if name not in PRECISIONS:
        raise UsageError(f"precision {name!r} is none of auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def build(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """The module of an architecture's table in the catalogue. Raises WeightsError where its words do not fit."""
    if architecture not in ARCHITECTURES:
        raise WeightsError(f"architecture {architecture!r} is none of {', '.join(ARCHITECTURES)}")
    config_type, module_type = ARCHITECTURES[architecture]
    try:
        check_numbers(config_type, config)
        module: nn.Module = module_type(config_type(**{key: frozen(value) for key, value in config.items()}))
    except Exception as error:  # a configuration may come with a file: its words lead to errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"no {architecture} can be built from {str(dict(config))[:300]}: {reason}") from None
    return module


def check_numbers(config_type: type[Any], config: Mapping[str, Any]) -> None:
    """Raise ValueError for numbers that no network has: they would take forever to build, or all memory."""
    if whole_numbers(config.values()) > LARGEST:
        raise ValueError("its numbers are larger than those of any network")
    for field in fields(config_type):
        value = config.get(field.name)
        if field.type == "float" and not (isinstance(value, int | float) and value > 0 and isfinite(value)):
            raise ValueError(f"{field.name} is {value!r}, expected is a positive number")


def whole_numbers(values: Iterable[object]) -> int:
    """The sum of all, without their signs."""
    nested = (whole_numbers(value) for value in values if isinstance(value, list | tuple))
    return sum(nested) + sum(abs(value) for value in values if isinstance(value, int))


def frozen(value: object) -> object:
    """Lists of TOML and JSON as the tuples of a Config."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def load_entry(entry: Entry, path: Path, device: torch.device, precision: torch.dtype) -> Network:
    """The catalogue's model with the weights of `path`, strictly. Raises WeightsError where they do not fit."""
    state = computed_dropped(state_dict(read_tensors(path)[0], path, entry.key), entry.drop)
    return network(entry.architecture, entry.config, state, path, device, precision)


def load_file(path: Path, device: torch.device, precision: torch.dtype) -> Network:
    """Any checkpoint of the four families, its configuration read from metadata or from keys and shapes."""
    content, metadata = read_tensors(path)
    state = computed_dropped(state_dict(content, path, None), COMPUTED)
    architecture, config = detect(state, metadata, path)
    return network(architecture, config, state, path, device, precision)


def network(
    architecture: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    path: Path,
    device: torch.device,
    precision: torch.dtype,
) -> Network:
    """Build on `meta`, check every key, shape and kind of number, assign, prepare."""
    try:
        with torch.device("meta"):
            module = build(architecture, config)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}") from None
    check(module.state_dict(), state, path, architecture)
    with stating_lack_of_memory(str(device), f"the weights of {path}"):
        weights = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        check_finite(weights, path)
        module.load_state_dict(weights, strict=True, assign=True)
        module.requires_grad_(False).eval()
        for layer in module.modules():
            if callable(prepare := getattr(layer, "prepare", None)):
                prepare()
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs want more beside it
        found = Network(module.to(device), device, precision)
    if (channels := found.contract.channels) not in CHANNELS:
        raise WeightsError(f"{path}: takes {channels} channels, images have 1, 3, or 6 in two views")
    return found


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError that names the first tensor with an infinite number or none: no result would be finite."""
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {key!r} holds numbers that are not finite in float32")


def check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    """Raise WeightsError that names the first key, shape or kind of number that is not the architecture's."""
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    problems = [f"lacks {len(missing)} tensors ({missing[0]}, …)"] if missing else []
    problems += [f"has {len(unexpected)} that do not belong ({unexpected[0]!r}, …)"] if unexpected else []
    wrong = [key for key in expected if key in found and expected[key].shape != found[key].shape]
    if wrong:
        shapes = f"{tuple(found[wrong[0]].shape)} instead of {tuple(expected[wrong[0]].shape)}"
        problems.append(f"has {len(wrong)} of another shape ({wrong[0]}: {shapes}, …)")
    alien = [key for key in expected if key in found and not same_kind(found[key].dtype, expected[key].dtype)]
    if alien:
        kinds = f"{named(found[alien[0]].dtype)} instead of {named(expected[alien[0]].dtype)}"
        problems.append(f"has {len(alien)} of another kind of number ({alien[0]}: {kinds}, …)")
    if problems:
        raise WeightsError(f"{path}: not the expected {architecture} checkpoint: it {' and '.join(problems)}")


def same_kind(found: torch.dtype, expected: torch.dtype) -> bool:
    """Return whether a tensor may be loaded: weights in floating point of 16 bits and more, counters as they are."""
    return found in FLOATS if expected.is_floating_point else found == expected


def named(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def read_tensors(path: Path) -> tuple[object, Mapping[str, str]]:
    """What a .safetensors or .pth file holds, and its metadata; never runs code from the file."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        check_pickles(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)), {}
    except WeightsError:
        raise
    except Exception as error:  # the readers raise many kinds: pickle, zip, safetensors, runtime, end of file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if path.suffix != ".safetensors":  # PyTorch advises to run what the file contains
            reason = "damaged, or torch.save did not write it"
        raise WeightsError(f"{path}: not a checkpoint that can be read: {reason[:200]}") from None


def state_dict(content: object, path: Path, key: str | None) -> dict[str, Tensor]:
    """The tensors by name, from under `key`, or from where training scripts usually keep them."""
    keys = (key,) if key else STATE_KEYS
    if isinstance(content, Mapping):
        content = next((content[k] for k in keys if isinstance(content.get(k), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: holds no state dict, but a {type(content).__name__}")
    tensors = {str(name).removeprefix("module."): value for name, value in content.items()}
    stray = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if stray:
        raise WeightsError(f"{path}: holds no plain state dict: {stray[0]!r} is no tensor")
    return tensors


def computed_dropped(state: Mapping[str, Tensor], patterns: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors without those whose name fits a pattern."""
    return {key: value for key, value in state.items() if not any(fnmatch(key, pattern) for pattern in patterns)}
