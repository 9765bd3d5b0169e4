"""From an empty cache to a written image, with a real hub server and the real client."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden_files import read_golden
from hub_server import COMMIT, HubServer
from images import make_image, save_image
from PIL import Image
from systems import IMPORT_PATH


def checkpoint() -> bytes:
    """Return a small HAT as its authors publish it: a pickle with the averaged weights and buffers."""
    buffer = io.BytesIO()
    torch.save({"params_ema": read_golden("hat_x4")[2]}, buffer)
    return buffer.getvalue()


def catalogue(payload: bytes, url: str) -> str:
    """Write `hat-x4` with a small configuration. One hub lacks the file, the other has it."""
    config = read_golden("hat_x4")[1]
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in config.items())
    return f"""
[hat-x4]
title = "a small HAT"
task = "sr"
model = "hat"
variant = "imagenet"
license = "test licence"
license_note = "terms that a person should read"
sha256 = "{hashlib.sha256(payload).hexdigest()}"
bytes = {len(payload)}
key = "params_ema"
drop = ["*relative_position_index*", "*.attn_mask"]
sources = [
  {{ hub = "nobody/nothing", revision = "{COMMIT}", file = "HAT.pth" }},
  {{ hub = "someone/hat", revision = "{COMMIT}", file = "HAT.pth" }},
  {{ url = "{url}" }},
]

[hat-x4.hat]
{table}
"""


def environment(folder: Path, hub: HubServer) -> dict[str, str]:
    """Return variables for empty caches, the catalogue own.toml, and the hub."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "RESTORE_"))} | {
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": hub.url,
        "RESTORE_CACHE": str(folder / "cache"),
        "RESTORE_WEIGHTS_TOML": str(folder / "own.toml"),
        "PYTHONPATH": IMPORT_PATH,
    }


def restore(folder: Path, hub: HubServer, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process."""
    return subprocess.run(
        [sys.executable, "-m", "restore_cli", *argv],
        cwd=folder,
        env=environment(folder, hub),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_hat_from_an_empty_cache_to_a_written_image(tmp_path: Path, device: str) -> None:
    payload = checkpoint()
    save_image(tmp_path / "in.png", make_image(20, 28))
    command = ["sr", "--model", "hat", "-s", "4", "--device", device, "in.png"]
    with HubServer() as hub:
        hub.add("someone/hat", COMMIT, "HAT.pth", payload)
        (tmp_path / "own.toml").write_text(catalogue(payload, hub.add_url("/HAT.pth", payload)))
        first = restore(tmp_path, hub, *command)
        assert first.returncode == 0, first.stderr
        assert "in.png → in_sr4.png  (hat-x4, 112×80 px" in first.stdout
        assert first.stderr.count("hat-x4: no download from hub nobody/nothing: HTTP 401, access refused") == 1
        assert "fetching hat-x4" in first.stderr
        assert "terms that a person should read" in first.stderr
        with Image.open(tmp_path / "in_sr4.png") as image:
            assert image.size == (112, 80)

        requests = hub.count("GET", "HAT.pth")
        second = restore(tmp_path, hub, *command, "--overwrite", "--offline")
        assert second.returncode == 0, second.stderr
        assert second.stderr == ""
        assert hub.count("GET", "HAT.pth") == requests


def test_if_every_source_fails_each_has_a_line_and_the_error_lists_them(tmp_path: Path) -> None:
    payload = checkpoint()
    with HubServer() as hub:
        (tmp_path / "own.toml").write_text(catalogue(payload, hub.add_url("HAT.pth", payload, "page")))
        hub.add("someone/hat", COMMIT, "HAT.pth", payload, "limited")
        ran = restore(tmp_path, hub, "models", "pull", "hat-x4")
    reasons = [
        "hub nobody/nothing: HTTP 401, access refused or no such model (HF_TOKEN?)",
        "hub someone/hat: HTTP 429, too many requests, try again in 3600 s",
        f"127.0.0.1:{hub.store.server_port}: sent a web page (Quota exceeded), not the file",
    ]
    assert (ran.returncode, ran.stdout) == (4, "")
    assert ran.stderr.splitlines() == [
        *(f"hat-x4: no download from {reason}" for reason in reasons[:-1]),
        f"restore: hat-x4 cannot be fetched: {'; '.join(reasons)} (try: restore models pull hat-x4, later)",
    ]
