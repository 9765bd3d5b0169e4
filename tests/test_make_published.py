"""The tests that `make published` runs pass and fail when they should, and say why they skip."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import read_golden
from hub_server import COMMIT, HubServer
from images import make_image, save_image

from restore_cli.models.emt import EMT
from restore_cli.weights.architectures import EMTConfig

ROOT = Path(__file__).parents[1]
SIDE = 64
"""px; a multiple of EMT's windows, because its plain form does not pad"""


@dataclass
class Maintainer:
    """A hub with two checkpoints, a folder of outputs made with them, and an empty cache."""

    folder: Path
    hub: HubServer

    @property
    def outputs(self) -> Path:
        return self.folder / "published"

    def publish(self, name: str, lines: list[str], payload: bytes) -> None:
        """Add an entry to the catalogue, and its file to the hub."""
        self.hub.add("a/b", COMMIT, f"{name}.pth", payload)
        source = f'{{ hub = "a/b", revision = "{COMMIT}", file = "{name}.pth" }}'
        head = [f"[{name}]", f'title = "{name}"', f'sha256 = "{hashlib.sha256(payload).hexdigest()}"']
        with (self.folder / "own.toml").open("a", encoding="utf-8") as file:
            file.write("\n".join([*head, 'license = "MIT"', f"sources = [{source}]", *lines]) + "\n")

    def run(self, **more: str) -> subprocess.CompletedProcess[str]:
        """Run what `make published` runs."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "RESTORE_"))}
        environment = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "hf"),
            "RESTORE_CACHE": str(self.folder / "cache"),
            "RESTORE_WEIGHTS_TOML": str(self.folder / "own.toml"),
            "PUBLISHED": str(self.outputs),
        }
        argv = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-m",
            "published",
            "-rs",
            "tests/test_published.py",
        ]
        return subprocess.run(argv, cwd=ROOT, env=clean | environment | more, capture_output=True, text=True)


def publish_emt(maintainer: Maintainer, payload: bytes) -> None:
    """Publish the authors' EMT ×4, and what its published form makes of an image."""
    config = EMTConfig(4, 60, 6, 6, 2, 3, 2.0, ((32, 8), (8, 32)))
    lines = ['task = "sr"', 'model = "emt"', 'variant = "lightweight"', 'key = "params"']
    drop = ["*.mask", "sub_mean.*", "add_mean.*"]
    maintainer.publish("emt-x4", [*lines, f"drop = {json.dumps(drop)}", *table("emt-x4.emt", asdict(config))], payload)
    state = torch.load(io.BytesIO(payload), weights_only=True)["params"]
    published = EMT(config)
    published.load_state_dict({key: value for key, value in state.items() if not any(fnmatch(key, p) for p in drop)})
    pixels = make_image(SIDE, SIDE)
    with torch.inference_mode():
        out = published.eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    levels = (out[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    save_image(maintainer.outputs / "spandrel" / "inputs" / "64x64.png", pixels)
    save_image(maintainer.outputs / "spandrel" / "outputs" / "64x64" / "EMT_LSR_x4.png", levels)


def publish_restormer(maintainer: Maintainer) -> None:
    """Publish a small Restormer, and what the authors' code makes of an array."""
    _, config, weights, given, made = read_golden("restormer_withbias")
    buffer = io.BytesIO()
    torch.save({"params": weights}, buffer)
    lines = ['task = "deblur"', 'model = "restormer"', 'variant = "motion"', 'key = "params"']
    name = "restormer-deblur-motion"
    maintainer.publish(name, [*lines, *table(f"{name}.restormer", config)], buffer.getvalue())
    folder = maintainer.outputs / "restormer-motion"
    folder.mkdir()
    np.save(folder / "full_in.npy", given[:1].float().numpy())
    np.save(folder / "full_out.npy", made[:1].float().numpy())


def table(name: str, config: dict[str, object]) -> list[str]:
    """Return a configuration in TOML."""
    return [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in config.items())]


@pytest.fixture
def maintainer(tmp_path: Path, shared: Path) -> Iterator[Maintainer]:
    with HubServer() as hub:
        it = Maintainer(tmp_path, hub)
        publish_emt(it, (shared / "checkpoints" / "EMT_LSR_x4.pth").read_bytes())
        publish_restormer(it)
        yield it


def test_they_fetch_and_compare_and_notice_other_weights_and_one_px(maintainer: Maintainer) -> None:
    sound = maintainer.run()
    assert (sound.returncode, sound.stdout.count("2 passed")) == (0, 1), sound.stdout
    pulled = {request.path.rpartition("/")[2] for request in maintainer.hub.find_requests("GET", ".pth")}
    assert pulled == {"emt-x4.pth", "restormer-deblur-motion.pth"}

    publish_other_weights(maintainer, "emt-x4.pth")
    array = maintainer.outputs / "restormer-motion" / "full_out.npy"
    values = np.load(array)
    values[0, 0, 3, 3] += 0.01
    np.save(array, values)
    wrong = maintainer.run(RESTORE_CACHE=str(maintainer.folder / "other"), HF_HOME=str(maintainer.folder / "empty"))
    assert (wrong.returncode, wrong.stdout.count("2 failed")) == (1, 1), wrong.stdout
    assert "emt-x4-64x64: the largest difference is" in wrong.stdout
    assert "restormer-deblur-motion-full_in: the largest difference is 0.0" in wrong.stdout


def publish_other_weights(maintainer: Maintainer, file: str) -> None:
    """Publish a checkpoint whose first convolution is five percent stronger."""
    (path,) = (path for path in maintainer.hub.files if path.endswith(file))
    served = maintainer.hub.files[path]
    before = hashlib.sha256(served.payload).hexdigest()
    content = torch.load(io.BytesIO(served.payload), weights_only=True)
    content["params"]["head.weight"] *= 1.05
    buffer = io.BytesIO()
    torch.save(content, buffer)
    served.payload = buffer.getvalue()
    own = maintainer.folder / "own.toml"
    own.write_text(own.read_text(encoding="utf-8").replace(before, hashlib.sha256(served.payload).hexdigest()))


def test_with_a_network_a_checkpoint_that_cannot_be_fetched_is_a_failure(maintainer: Maintainer) -> None:
    maintainer.hub.files.clear()
    ran = maintainer.run()
    assert (ran.returncode, ran.stdout.count("2 failed")) == (1, 1), ran.stdout
    assert "emt-x4 cannot be fetched: hub a/b: HTTP 401" in ran.stdout


def test_without_a_network_or_a_folder_they_say_why_they_skip(maintainer: Maintainer) -> None:
    alone = maintainer.run(HF_ENDPOINT="http://127.0.0.1:9")
    assert (alone.returncode, alone.stdout.count("2 skipped")) == (0, 1), alone.stdout
    assert "emt-x4 is not on this disk, and there is no network" in alone.stdout
    empty = maintainer.run(PUBLISHED=str(maintainer.folder / "nothing"))
    assert (empty.returncode, empty.stdout.count("1 skipped")) == (0, 1), empty.stdout
    assert "there are no outputs to compare with in" in empty.stdout
