"""As a library, restore leaves the process-wide settings of the program as they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils import logging
from images import make_image
from numpy.typing import NDArray
from PIL import Image, ImageFile
from systems import IMPORT_PATH
from torch import Tensor

import restore_cli
from restore_cli.image.formats.pillow import pillow_settings
from restore_cli.models.network import Network
from restore_cli.models.ops.chunked_attention import ONEDNN_PRODUCTS
from restore_cli.weights.hub_client import silence_client

asked_by_op = pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="PyTorch before 2.9")

SNAPSHOT = """
import ctypes, gc, json, locale, logging, os, random, signal, socket, sys, threading, warnings
import numpy as np, torch

class Heap(ctypes.Structure):
    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]

def mapped():
    info = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if info is None:
        return 0
    info.restype = Heap
    return info().hblkhd

def large_blocks_are_mapped():
    before = mapped()
    block = bytearray(1 << 27)
    return mapped() - before >= len(block)

def flags(backend):
    words = ("allow", "fp32", "benchmark", "deterministic", "enabled")
    names = [name for name in dir(backend) if name.startswith(words)]
    return {name: str(getattr(backend, name)) for name in names if not callable(getattr(backend, name))}

def snapshot():
    backends = {name: flags(getattr(torch.backends, name)) for name in ("cudnn", "mkldnn", "mkl", "openmp")}
    if hasattr(torch.backends.mkldnn, "matmul"):
        backends["products"] = torch.backends.mkldnn.matmul.fp32_precision
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads(), len(threading.enumerate())],
        "matmul": torch.get_float32_matmul_precision(),
        "backends": backends,
        "modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")],
        "default": [str(torch.get_default_dtype()), str(torch.get_default_device())],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random": [torch.get_rng_state().tolist()[:64], repr(np.random.get_state())[:900], hash(random.getstate())],
        "warnings": [str(one) for one in warnings.filters],
        "signals": {str(number): str(signal.getsignal(number)) for number in signal.valid_signals()},
        "logging": [logging.root.level, str(logging.root.handlers), logging.root.manager.disable],
        "numpy": np.geterr(),
        "socket": socket.getdefaulttimeout(),
        "locale": locale.setlocale(locale.LC_ALL),
        "hooks": [str(sys.excepthook), str(threading.excepthook), sys.getrecursionlimit(), gc.get_threshold()],
        "blocks": large_blocks_are_mapped(),
    }
"""

LIBRARY = """
import restore_cli
from restore_cli.models import processor
processor.cores = lambda *_: 1  # as in a cgroup of one core
before = snapshot()
model = restore_cli.load(sys.argv[1], device="cpu")
for channels in (3, 4):
    restore_cli.restore(model, np.zeros((70, 90, channels), np.uint8), tile=32)
after = snapshot()
changed = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
loaded = [name for name in ("PIL", "pyvips", "torch._dynamo") if name in sys.modules]
sys.stdout.write(json.dumps([changed, loaded]))
"""


@pytest.fixture
def untuned(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return an environment without settings for glibc and threads."""
    for name in [*os.environ]:
        if name.startswith(("MALLOC_", "GLIBC_", "OMP_")):
            monkeypatch.delenv(name)
    return os.environ | {"PYTHONPATH": IMPORT_PATH}


def answer(code: str, *arguments: object, environment: dict[str, str]) -> list[Any]:
    """Return the JSON that the code prints in a process of its own."""
    command = [sys.executable, "-c", SNAPSHOT + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_loading_and_restoring_change_nothing_of_the_process(x2: Path, untuned: dict[str, str]) -> None:
    changed, loaded = answer(LIBRARY, x2, environment=untuned)
    assert changed == {}
    assert loaded == []  # they, too, change settings of the process


COMMAND = """
from restore_cli.cli.main import main
before = large_blocks_are_mapped()
stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
sys.argv = ["restore", "--version"]
try:
    main()
except SystemExit:
    pass
stdout.write(json.dumps([before, large_blocks_are_mapped()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the heap of glibc")
def test_the_command_keeps_large_blocks_in_its_own_process(untuned: dict[str, str]) -> None:
    before, after = answer(COMMAND, environment=untuned)
    assert not (before and after)  # another C library maps none


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def flag() -> str:
    """Return how oneDNN may round float32 products."""
    return str(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]  # made when it is imported


@asked_by_op
@pytest.mark.usefixtures("impatient")
def test_eight_threads_in_two_models_give_the_bytes_of_one(x1: Path, x2: Path) -> None:
    models = [restore_cli.load(path, device="cpu", precision="fp32") for path in (x1, x2)]
    images = [make_image(40 + 8 * i, 48, seed=i).astype(np.float32) / np.float32(255) for i in range(4)]
    tasks = [(model, image) for image in images for model in models] * 3

    def restored(task: tuple[Network, NDArray[Any]]) -> bytes:
        return restore_cli.restore(*task, tile=32).tobytes()

    expected, before = [restored(task) for task in tasks], flag()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(restored, tasks)) == expected
    assert flag() == before


@asked_by_op
def test_a_product_that_fails_leaves_the_setting_as_it_was(x2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, before, seen = restore_cli.load(x2, device="cpu", precision="fp32"), flag(), []

    def failing(*args: object, **words: object) -> Tensor:
        seen.append(flag())
        raise RuntimeError("no such product")

    monkeypatch.setattr(torch, "bmm", failing)
    with ThreadPoolExecutor(8) as threads:
        results = [threads.submit(restore_cli.restore, model, make_image(20, 20)) for _ in range(16)]
        assert all(isinstance(result.exception(), RuntimeError) for result in results)
    assert len(seen) == 16
    assert flag() == before


@asked_by_op
@pytest.mark.parametrize("own", [None, "ieee", "bf16"])
def test_a_setting_that_is_inherited_stays_inherited(own: str | None) -> None:
    above: Any = torch.backends.mkldnn
    kept = above.fp32_precision
    try:
        above.fp32_precision = "tf32"
        if own is not None:
            above.matmul.fp32_precision = own
        with ONEDNN_PRODUCTS:
            assert flag() == "bf16"
        assert flag() == (own or "tf32")
        above.fp32_precision = "ieee"
        assert flag() == (own or "ieee")
    finally:
        above.fp32_precision = kept
        above.matmul.fp32_precision = "none"


def settings() -> tuple[object, ...]:
    """Return the process-wide settings that restore changes temporarily."""
    found = [*warnings.filters], Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, logging.get_verbosity()
    return (*found, flag() if hasattr(torch.backends.mkldnn, "matmul") else None)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "pillow": pillow_settings,
    "client": silence_client,
    "products": lambda: ONEDNN_PRODUCTS,
}


@asked_by_op
@pytest.mark.parametrize("names", [*permutations(CONTEXTS, 2), *((name, name) for name in CONTEXTS)])
def test_threads_may_enter_and_leave_in_any_order(names: tuple[str, str]) -> None:
    before = settings()
    first, second = (CONTEXTS[name]() for name in names)
    first.__enter__()
    second.__enter__()
    inside = settings()
    first.__exit__(None, None, None)
    if names[0] == names[1]:
        assert settings() == inside
    second.__exit__(None, None, None)
    assert settings() == before


def test_what_the_program_compiles_itself_stays_compiled_while_a_model_runs(x2: Path) -> None:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        compiled.append(len(inputs))
        return graph.forward

    double = torch.compile(lambda x: 2 * x, backend=backend)
    model = restore_cli.load(x2, device="cpu", precision="fp32")

    def use_it(module: torch.nn.Module, inputs: object) -> None:
        double(torch.ones(3))

    model.module.register_forward_pre_hook(use_it)
    restore_cli.restore(model, make_image(16, 16))
    assert compiled
