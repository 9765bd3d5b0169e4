"""Writes a run's averaged weights as float16 safetensors: `python -m training.export lite-sr-x4 --to FOLDER`."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save

from restore_cli.models.swinir import SwinIRConfig
from training.recipe import RECIPES

__all__ = ["export", "main"]

LOG = logging.getLogger("training")


def export(name: str, runs: Path, folder: Path) -> list[Path]:
    """Write NAME.safetensors, or one file per scale where the run holds several; whole or not at all."""
    recipe = RECIPES[name]
    state = torch.load(runs / name / "state.pt", weights_only=True)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for scale in recipe.scales:
        prefix = f"x{scale}."
        average = {key: value for key, value in state["average"].items() if key.startswith(prefix)}
        tensors = {key.removeprefix(prefix): value.half().contiguous() for key, value in average.items()}
        config = replace(recipe.config, scale=scale) if isinstance(recipe.config, SwinIRConfig) else recipe.config
        about = {
            "architecture": type(config).__name__.removesuffix("Config").lower(),
            "config": json.dumps(asdict(config)),
            "recipe": name,
            "steps": str(state["step"]),
            "minutes": f"{state['seconds'] / 60:.1f}",
        }
        target = folder / (f"{name}-x{scale}.safetensors" if len(recipe.scales) > 1 else f"{name}.safetensors")
        files.append(write(target, save(tensors, about)))
    return files


def write(target: Path, data: bytes) -> Path:
    """The file, replaced in one move."""
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    LOG.info("%s sha256=%s bytes=%d", target, hashlib.sha256(data).hexdigest(), len(data))
    return target


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--to", type=Path, default=Path("runs/exported"), help="folder to write into")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    export(options.name, options.runs, options.to)


if __name__ == "__main__":
    main()
