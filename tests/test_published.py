"""Compares outputs of published checkpoints with those of other implementations.

Only `make published` runs these tests. They are skipped if the folder of outputs is absent, or if a checkpoint is not
on this disk and there is no network. With a network, a checkpoint that cannot be fetched is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import restore_cli
from restore_cli.cli.models import example_command
from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.fetch import fetch
from restore_cli.weights.store import locate

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("PUBLISHED") or ROOT.parent / "shared" / "published")

CHECKPOINTS = {
    "001_classicalSR_DF2K_s64w8_SwinIR-M_x2": "swinir-classical-x2",
    "001_classicalSR_DIV2K_s48w8_SwinIR-M_x4": "swinir-classical-div2k-x4",
    "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2": "swinir-lightweight-x2",
    "003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_PSNR": "swinir-real-psnr-x4",
    "HAT_SRx3": "hat-plain-x3",
    "HAT_SRx4": "hat-plain-x4",
    "HAT-S_SRx2": "hat-small-x2",
    "HAT-S_SRx3": "hat-small-x3",
    "HAT-S_SRx4": "hat-small-x4",
    "HAT-L_SRx4_ImageNet-pretrain": "hat-large-x4",
    "restormer_gaussian_color_denoising_blind": "restormer-denoise-color-blind",
    "EMT_LSR_x4": "emt-x4",
}
"""Name of an output, which is that of the published file -> name in the catalogue."""


@dataclass(frozen=True)
class Case:
    """An input, the output of another implementation, and how much ours may differ."""

    name: str
    """name of the checkpoint"""
    input: Path
    output: Path
    tolerance: float
    """the largest difference: 8-bit levels of images, or the values of arrays"""
    shape: tuple[int, ...] | None = None
    """shape of an input without a header"""

    def __str__(self) -> str:
        return f"{self.name}-{self.input.stem}"


def list_cases(folder: Path) -> Iterator[Case]:
    """Yield all cases in the folder."""
    for output in sorted(folder.glob("spandrel/outputs/*/*.png")):
        (source,) = folder.glob(f"spandrel/inputs/{output.parent.name}.*")
        yield Case(CHECKPOINTS[output.stem], source, output, 1)
    for output in sorted(folder.glob("restormer-defocus/restored/*/*.png")):
        source = folder / "restormer-defocus" / "degraded" / f"{output.stem}.jpg"
        yield Case("restormer-deblur-defocus", source, output, 2)  # two decoders of JPEG differ by one level
    for source in sorted(folder.glob("restormer-motion/*_in.npy")):
        output = source.with_name(source.name.replace("_in.", "_out."))
        yield Case("restormer-deblur-motion", source, output, 1e-4)
    for source in folder.glob("restormer-defocus/input.bin"):
        yield Case("restormer-deblur-defocus", source, source.with_name("output.npy"), 1e-3, (1, 3, 368, 552))


ABSENT = pytest.param(None, marks=pytest.mark.skip(reason=f"there are no outputs to compare with in {FOLDER}"))


@pytest.fixture(scope="session")
def network() -> bool:
    """Whether the hub answers."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # the client has its own errors, and one for HF_HUB_OFFLINE
        return False
    return True


@pytest.mark.published
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", list(list_cases(FOLDER)) or [ABSENT], ids=str)
def test_our_output_is_the_published_one(case: Case, network: bool, tmp_path: Path) -> None:
    entry = read_catalogue().find_entry(case.name)
    if not network and locate(entry) is None:
        pytest.skip(f"{case.name} is not on this disk, and there is no network")
    fetch(entry)
    ours, theirs = (restore_array if case.output.suffix == ".npy" else restore_image)(case, tmp_path), read(case.output)
    assert ours.shape == theirs.shape
    worst = float(np.abs(ours - theirs).max())
    assert worst <= case.tolerance, f"{case}: the largest difference is {worst:.6g}, expected {case.tolerance} at most"


def restore_image(case: Case, folder: Path) -> NDArray[np.float64]:
    """Return what the command makes of an image."""
    words = example_command(read_catalogue().find_entry(case.name)).split()[1:-1]
    output = folder / "out.png"
    argv = [*words, case.input, "-o", output, "--precision", "fp32", "--device", "cpu", "--tile", "0", "--json"]
    ran = subprocess.run([sys.executable, "-m", "restore_cli", *map(str, argv)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[0])["model"] == case.name
    return read(output)


def restore_array(case: Case, folder: Path) -> NDArray[np.float64]:
    """Return what the library makes of an array (1, c, h, w)."""
    values = np.fromfile(case.input, np.float32).reshape(case.shape) if case.shape else np.load(case.input)
    model = restore_cli.load(case.name, device="cpu", precision="fp32")
    ours = restore_cli.restore(model, np.ascontiguousarray(values[0].transpose(1, 2, 0)), tile=0)
    return ours.transpose(2, 0, 1)[None].astype(np.float64)


def read(path: Path) -> NDArray[np.float64]:
    """Return an array, or the levels of an image."""
    values = np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path).convert("RGB"))
    return values.astype(np.float64)
