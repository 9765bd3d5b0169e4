"""Writes a run's averaged weights as float16 safetensors: `python -m training.export lite-denoise --to FOLDER`."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from training.recipe import RECIPES

__all__ = ["export", "in_float16", "main", "serialize", "write_file"]

LOG = logging.getLogger("training")


def export(name: str, runs: Path, folder: Path) -> Path:
    """Write NAME.safetensors whole or not at all. Its metadata states the network and how long it was trained."""
    config = RECIPES[name].config
    state = torch.load(runs / name / "state.pt", weights_only=True)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = in_float16(state["average"])
    about = {
        "architecture": type(config).__name__.removesuffix("Config").lower(),
        "config": json.dumps(asdict(config)),
        "recipe": name,
        "steps": str(state["step"]),
        "minutes": f"{state['seconds'] / 60:.1f}",
    }
    return write_file(folder / f"{name}.safetensors", serialize(tensors, about))


def in_float16(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors rounded to float16. Integers are kept."""
    return {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}


def serialize(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file with these tensors and metadata. Equal contents give equal bytes."""
    data = save({key: value.contiguous() for key, value in tensors.items()}, dict(about))
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    # the library writes metadata in an order that differs from process to process
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the tensors to 8 bytes
    return len(text).to_bytes(8, "little") + text + data[end:]


def write_file(target: Path, data: bytes) -> Path:
    """Write the file, or replace it in one step."""
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    LOG.info("%s sha256=%s bytes=%d", target, hashlib.sha256(data).hexdigest(), len(data))
    return target


def main(arguments: list[str] | None = None) -> None:
    """Export the network of the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--to", type=Path, default=Path("runs/exported"), help="folder to write into")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    export(options.name, options.runs, options.to)


if __name__ == "__main__":
    main()
