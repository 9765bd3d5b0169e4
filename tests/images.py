"""Makes small images and small checkpoints for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from golden_files import read_golden
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["make_checkpoint", "make_image", "save_image"]

Pixels = NDArray[np.uint8]


def make_image(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Return uint8 (h, w, c): as smooth as a photograph, with enough noise to show a shift by one px."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / (5 + c) + y / (9 - c)) for c in range(channels)]
    return np.clip(np.stack(waves, 2) + rng.normal(0, 12, (height, width, channels)), 0, 255).astype(np.uint8)


def save_image(path: Path, pixels: Pixels) -> Path:
    """Write the array with Pillow, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)
    return path


def make_checkpoint(path: Path, name: str, change: Callable[[dict[str, Tensor]], None] = lambda weights: None) -> Path:
    """Write the network of a golden file as a checkpoint with its configuration, such as `swinir_lightweight_x2`.

    `change` gets its tensors by name and may change them.
    """
    architecture, config, weights, _, _ = read_golden(name)
    computed = ("relative_position_index", "attn_mask", ".mask", "sub_mean", "add_mean")
    kept = {key: value for key, value in weights.items() if not any(word in key for word in computed)}
    change(kept)
    metadata: dict[str, Any] = {"architecture": architecture, "config": json.dumps(config)}
    save_file(kept, path, metadata)
    return path
