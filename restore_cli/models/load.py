"""Loads checkpoint files into networks, strictly, and picks devices and precisions by name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from fnmatch import fnmatch
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore_cli.errors import OutOfMemory, RestoreError, UsageError, WeightsError, stating_lack_of_memory
from restore_cli.models.detect import detect
from restore_cli.models.inference import optimize
from restore_cli.models.network import ARCHITECTURES, Network, Reload
from restore_cli.models.pickles import check_pickles
from restore_cli.models.processor import release_freed_memory
from restore_cli.models.spandrel_model import build_spandrel_network
from restore_cli.models.stored_precision import optimize_in_bfloat16
from restore_cli.weights.entry import Entry

__all__ = ["DEVICES", "PRECISIONS", "build_module", "load_entry", "load_file", "pick_device", "pick_precision"]

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DEVICES = "auto, cpu, cuda, cuda:N or mps"
STATE_KEYS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the state dict in a file, averaged weights first."""

COMPUTED_KEYS = (
    "*relative_position_index*",
    "*attn_mask",
    "*.token_mixer.mask",
    "*.fc?.mask",
    "sub_mean.*",
    "add_mean.*",
)
"""Published buffers that the modules compute themselves, as patterns."""

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes that weights may have in a file."""

COUNTER_DTYPES = (torch.bool, torch.uint8, torch.int32, torch.int64)
"""Dtypes of indices, counters and versions that networks of spandrel keep beside their weights."""

MAX_CONFIG_SUM = 4096
"""Largest sum of the integers in a configuration: ten times that of the largest published one."""

INPUT_CHANNELS = (1, 3, 6)
"""Input channels that a network may have: gray, colour, or two colour views."""


def pick_device(name: str) -> torch.device:
    """Return the named device; `auto` is CUDA, else MPS, else the CPU. Raises UsageError if it does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r}: expected {DEVICES}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {name!r}: expected {DEVICES}")
    count = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}[device.type]
    if (device.index or 0) >= count:
        raise UsageError(f"device {name!r} does not exist: PyTorch finds {count} {device.type} devices", "--device cpu")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the named dtype; `auto` is the fastest one whose results look the same (docs/performance.md).

    That is float16 on CUDA, bfloat16 on CPUs with bfloat16 instructions, and float32 elsewhere. Raises UsageError.
    """
    if name == "auto" and device.type == "cuda":
        return torch.float16
    if name == "auto":
        halves = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if halves else torch.float32
    if name not in PRECISIONS:
        raise UsageError(f"precision {name!r}: expected auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def build_module(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """Build the module of an architecture and configuration. Raises WeightsError if the configuration does not fit."""
    if architecture not in ARCHITECTURES:
        raise WeightsError(f"architecture {architecture!r}: expected {', '.join(ARCHITECTURES)}")
    config_type, module_type, _ = ARCHITECTURES[architecture]
    try:
        check_config(config_type, config)
        module: nn.Module = module_type(config_type(**{key: as_tuples(value) for key, value in config.items()}))
    except Exception as error:  # a configuration from a file may cause errors of many types
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"cannot build {architecture} from {str(dict(config))[:300]}: {reason}") from None
    return module


def check_config(config_type: type[Any], config: Mapping[str, Any]) -> None:
    """Raise ValueError for numbers that no network has, because building it would take too much time or memory."""
    if sum_integers(config.values()) > MAX_CONFIG_SUM:
        raise ValueError("its numbers are too large for a network")
    for field in fields(config_type):
        value = config.get(field.name)
        if field.type == "float" and not (isinstance(value, int | float) and value > 0 and isfinite(value)):
            raise ValueError(f"{field.name} is {value!r}, expected a positive number")


def sum_integers(values: Iterable[object]) -> int:
    """Return the sum of the absolute values of all integers, also in nested lists."""
    nested = (sum_integers(value) for value in values if isinstance(value, list | tuple))
    return sum(nested) + sum(abs(value) for value in values if isinstance(value, int))


def as_tuples(value: object) -> object:
    """Convert lists of TOML and JSON to the tuples of a Config, also nested ones."""
    return tuple(as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def load_entry(entry: Entry, path: Path, device: torch.device, precision: torch.dtype) -> Network:
    """Load the weights of `path` into the model of a catalogue entry. Raises WeightsError if they do not fit."""
    reload = make_reload(path, lambda path: load_entry(entry, path, device, torch.float32))
    state = drop_keys(find_state_dict(read_tensors(path)[0], path, entry.key), entry.drop)
    if entry.architecture != "spandrel":
        return build_network(entry.architecture, entry.config, state, path, device, precision, reload)
    network = load_spandrel(state, path, device, precision)
    contract = network.contract
    found = {"architecture": network.architecture, "scale": contract.scale, "channels": contract.channels}
    if found != entry.config:
        raise WeightsError(f"{path}: not the expected network {dict(entry.config)}: spandrel finds {found}")
    return network


def load_file(path: Path, device: torch.device, precision: torch.dtype) -> Network:
    """Load any checkpoint of the four families, or of an architecture of spandrel.

    The configuration comes from its metadata, or its keys and shapes. Raises WeightsError.
    """
    reload = make_reload(path, lambda path: load_file(path, device, torch.float32))
    content, metadata = read_tensors(path)
    tensors = find_state_dict(content, path, None)
    state = drop_keys(tensors, COMPUTED_KEYS)
    refused: WeightsError | None = None
    try:
        if (found := detect(state, metadata, path)) is not None:
            return build_network(*found, state, path, device, precision, reload)
    except WeightsError as error:
        refused = error
    try:  # another architecture, or a variant of a family that restore does not have
        return load_spandrel(tensors, path, device, precision)
    except WeightsError as error:
        raise refused or error from None


def make_reload(path: Path, load: Callable[[Path], Network]) -> Reload:
    """Return a function that loads a checkpoint again for a tile that overflows in bfloat16.

    It raises RestoreError if the file has changed since now, because only the image of that tile needs it. It raises
    MemoryError if there is no room, because a smaller tile may leave some.
    """
    path = path.absolute()
    before = identify_file(path)

    def reload() -> Network:
        try:
            if identify_file(path) != before:
                raise WeightsError(f"{path} has changed since it was read")
            return load(path)
        except WeightsError as error:
            message = f"a tile overflows in bfloat16, and the weights cannot be loaded in float32: {error.message}"
            raise RestoreError(message, "--precision fp32") from None
        except OutOfMemory as error:
            raise MemoryError(error.message) from None

    return reload


def identify_file(path: Path) -> tuple[int, int, int, int] | None:
    """Return numbers of which at least one changes when the file is replaced or written to; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def load_spandrel(state: Mapping[str, Tensor], path: Path, device: torch.device, precision: torch.dtype) -> Network:
    """Let spandrel build the network of the tensors. It runs in float32 if it does not support the precision."""
    with stating_lack_of_memory(str(device), f"the weights of {path}"):
        check_stored_tensors(state, path)
        module, terms = build_spandrel_network(convert_to_float32(state, path), path)
        found = Network(module.to(device), device, precision if module.supports(precision) else torch.float32)
    notes = [terms] if terms else []
    if found.precision != precision:
        notes.append(f"{path.name}: {found.architecture} does not support {dtype_name(precision)}: running in float32")
    found.notes = tuple(notes)
    return found


def check_stored_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError for tensors that are larger than the file, or of numbers that no network has."""
    if sum(value.numel() for value in state.values()) > path.stat().st_size:
        raise WeightsError(f"{path}: its tensors are larger than the file, which holds them in a shortened form")
    for key, value in state.items():
        if value.dtype not in (*FLOAT_DTYPES, *COUNTER_DTYPES):
            raise WeightsError(f"{path}: {key!r} holds {dtype_name(value.dtype)}, expected floating-point numbers")


def build_network(
    architecture: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    path: Path,
    device: torch.device,
    precision: torch.dtype,
    reload: Reload | None = None,
) -> Network:
    """Build the module on `meta`, check each key, shape and dtype, assign the tensors, prepare it for inference.

    `reload` loads the checkpoint in float32. With it, bfloat16 on a CPU keeps no float32 weights, because tiles hardly
    ever overflow in bfloat16.
    """
    try:
        with torch.device("meta"):
            module = build_module(architecture, config)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}") from None
    check_tensors(module.state_dict(), state, path, architecture)
    with stating_lack_of_memory(str(device), f"the weights of {path}"):
        module.load_state_dict(convert_to_float32(state, path), strict=True, assign=True)
        module.requires_grad_(False).eval()
        frees_float32 = reload is not None and device.type == "cpu" and precision == torch.bfloat16
        prepare = optimize_in_bfloat16 if frees_float32 else optimize
        prepare(module)
        found = Network(module.to(device), device, precision, reload=reload if frees_float32 else None)
        for loaded in filter(None, (found.module, found.loaded)):
            copy_shared_weights(loaded, state.values())
    release_freed_memory()  # of weights in their former shape and precision
    if (channels := found.contract.channels) not in INPUT_CHANNELS:
        raise WeightsError(f"{path}: the network has {channels} input channels, expected 1, 3 or 6 (two views)")
    return found


def copy_shared_weights(module: nn.Module, tensors: Iterable[Tensor]) -> None:
    """Copy the weights that still are tensors of the file, which would keep all of it in memory."""
    shared = {tensor.data_ptr() for tensor in tensors}
    for weight in (*module.parameters(), *module.buffers()):
        if weight.data_ptr() in shared:
            weight.data = weight.data.clone()


def convert_to_float32(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors, floating-point ones in float32. Raises WeightsError for the first with infinities or NaN."""
    weights = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {key!r} holds numbers that are not finite in float32")
    return weights


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    """Raise WeightsError with the first key, shape and dtype that differ from those of the architecture."""
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    problems = [f"lacks {len(missing)} tensors ({missing[0]}, …)"] if missing else []
    problems += [f"has {len(unexpected)} that do not belong ({unexpected[0]!r}, …)"] if unexpected else []
    wrong = [key for key in expected if key in found and expected[key].shape != found[key].shape]
    if wrong:
        shapes = f"{tuple(found[wrong[0]].shape)} instead of {tuple(expected[wrong[0]].shape)}"
        problems.append(f"has {len(wrong)} of another shape ({wrong[0]}: {shapes}, …)")
    other_dtype = [
        key for key in expected if key in found and not can_load_dtype(found[key].dtype, expected[key].dtype)
    ]
    if other_dtype:
        kinds = f"{dtype_name(found[other_dtype[0]].dtype)} instead of {dtype_name(expected[other_dtype[0]].dtype)}"
        problems.append(f"has {len(other_dtype)} of another kind of number ({other_dtype[0]}: {kinds}, …)")
    if problems:
        raise WeightsError(f"{path}: not the expected {architecture} checkpoint: it {' and '.join(problems)}")


def can_load_dtype(found: torch.dtype, expected: torch.dtype) -> bool:
    """Return whether a tensor can be loaded: weights from any float of 16 bits or more, counters only as they are."""
    return found in FLOAT_DTYPES if expected.is_floating_point else found == expected


def dtype_name(dtype: torch.dtype) -> str:
    """Return `float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def read_tensors(path: Path) -> tuple[object, Mapping[str, str]]:
    """Return the content of a .safetensors or .pth file and its metadata, without running code from the file.

    Raises WeightsError.
    """
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
    except Exception as error:  # the readers raise many types: pickle, zip, safetensors, runtime, end of file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if path.suffix != ".safetensors":  # PyTorch's message recommends to run code from the file
            reason = "damaged, or not written by torch.save"
        raise WeightsError(f"{path}: not a readable checkpoint: {reason[:200]}") from None


def find_state_dict(content: object, path: Path, key: str | None) -> dict[str, Tensor]:
    """Return the tensors by name, from under `key` or a usual key of training scripts. Raises WeightsError."""
    keys = (key,) if key else STATE_KEYS
    if isinstance(content, Mapping):
        content = next((content[k] for k in keys if isinstance(content.get(k), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: expected a state dict, found {type(content).__name__}")
    tensors = {str(name).removeprefix("module."): value for name, value in content.items()}
    stray = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if stray:
        raise WeightsError(f"{path}: expected a state dict of tensors, but {stray[0]!r} is not a tensor")
    return tensors


def drop_keys(state: Mapping[str, Tensor], patterns: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors whose names match none of the patterns."""
    return {key: value for key, value in state.items() if not any(fnmatch(key, pattern) for pattern in patterns)}
