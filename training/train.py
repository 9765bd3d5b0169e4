"""Trains one recipe; stops and goes on at any moment: `python -m training.train lite-sr-x4 --minutes 60`.

A run lives in RUNS/NAME: state.pt (all it takes to go on), log.jsonl, curve.svg. A longer --minutes extends a run.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore_cli.metrics import luma, psnr
from restore_cli.models.swinir import SwinIR
from training.curve import draw
from training.data import Batch, Bytes, Shrinking, Spoiling, batches, read_photos, spoiling, to_tensor
from training.network import build, initialise, interpolate
from training.recipe import RECIPES, Recipe

__all__ = ["Plan", "Run", "main", "train"]

HELD = 60
"""the last photographs, never trained on"""
LOG = logging.getLogger("training")


@dataclass(frozen=True)
class Plan:
    """Where and how long."""

    name: str
    photos: Path
    runs: Path
    minutes: float | None = None
    """length of the schedule in time, over all sittings"""
    steps: int | None = None
    """length of the schedule in steps; goes before minutes"""
    stop: int | None = None
    """leave at this step, though the schedule is longer"""
    device: str = "cpu"
    bfloat16: bool = False
    compiled: bool = False
    every: float = 240
    """seconds between two validations"""
    measured: int = 16
    """held photographs that a validation uses; the last one uses all"""


class Run:
    """All that changes while a recipe is trained, on disk as one file."""

    def __init__(self, recipe: Recipe, plan: Plan) -> None:
        self.recipe, self.plan, self.folder = recipe, plan, plan.runs / plan.name
        self.networks = build(recipe).to(plan.device)
        self.average = copy.deepcopy(self.networks)
        self.optimizer = torch.optim.AdamW(self.networks.parameters(), lr=0, betas=(0.9, 0.99), weight_decay=1e-4)
        self.step, self.seconds = 0, 0.0

    def save(self) -> None:
        """Write state.pt whole or not at all."""
        parts: dict[str, nn.Module | torch.optim.Optimizer]
        parts = {"networks": self.networks, "average": self.average, "optimizer": self.optimizer}
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": self.step, "seconds": self.seconds}
        partial = self.folder / "state.pt.partial"
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / "state.pt")

    def begin(self, source: Spoiling) -> None:
        """Go on from state.pt; else start from the recipe's start, or from fresh weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state_file = self.folder / "state.pt"
        if state_file.exists():
            state = torch.load(state_file, weights_only=True)
            self.networks.load_state_dict(state["networks"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
            return
        if self.recipe.start:
            start = torch.load(self.plan.runs / self.recipe.start / "state.pt", weights_only=True)["average"]
            self.networks.load_state_dict({name: start[name] for name in self.networks.state_dict()})
        else:
            start_fresh(self.networks, source)
        self.average.load_state_dict(self.networks.state_dict())

    def progress(self) -> float:
        """How much of the schedule is behind: 0..1."""
        if self.plan.steps is not None:
            return min(1.0, self.step / self.plan.steps)
        return min(1.0, self.seconds / (60 * (self.plan.minutes or self.recipe.minutes)))

    def rate(self) -> float:
        """Linear warm-up, then half a cosine down to a hundredth."""
        low = 0.01
        cosine = low + (1 - low) * (1 + math.cos(math.pi * self.progress())) / 2
        return self.recipe.rate * cosine * min(1.0, (self.step + 1) / self.recipe.warm_up)

    def learn(self, network: Callable[[Tensor], Tensor], batch: Batch) -> tuple[float, float]:
        """One step; the loss (Charbonnier, arXiv:1710.01992, ε 1e-3) and the gradient's norm before it was cut to 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        spoiled, clean = batch.spoiled.to(self.plan.device), batch.clean.to(self.plan.device)
        with torch.autocast(self.plan.device, torch.bfloat16, enabled=self.plan.bfloat16):
            restored = network(spoiled)
        loss = ((restored.float() - clean).square() + 1e-6).sqrt().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.follow()
        return loss.item(), norm.item()

    @torch.no_grad()
    def follow(self) -> None:
        """The average moves towards the weights, faster at first."""
        share = 1 - min(self.recipe.decay, (1 + self.step) / (10 + self.step))
        for mean, weight in zip(self.average.parameters(), self.networks.parameters(), strict=True):
            mean.lerp_(weight, share)

    def write(self, line: dict[str, Any]) -> None:
        """Append to log.jsonl."""
        line = {"step": self.step, "seconds": round(self.seconds, 1)} | line
        LOG.info("%s", json.dumps(line))
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def start_fresh(networks: nn.ModuleDict, source: Spoiling) -> None:
    """Random weights; super-resolution begins as an interpolation."""
    initialise(networks)
    for network in networks.values():
        if isinstance(network, SwinIR) and isinstance(source, Shrinking):
            interpolate(network, source.small[network.config.scale][:200], source.photos[:200])


def train(plan: Plan) -> Run:
    """Train until the schedule ends, `stop` is reached or the process is asked to end; each time the run is saved."""
    recipe = RECIPES[plan.name]
    photos = read_photos(plan.photos)
    held = min(HELD, len(photos) // 4)
    taught, held_out = photos[:-held], photos[-held:]
    source = spoiling(recipe, taught)
    run = Run(recipe, plan)
    run.begin(source)
    # A signal only asks: the step in hand is finished, so that what is saved is whole.
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        sit(run, source, held_out, asked)
    finally:
        signal.signal(signal.SIGTERM, before)
        run.save()
    return run


def sit(run: Run, source: Spoiling, held: Bytes, asked: list[int]) -> None:
    """The steps of one sitting, with a log line every 50 and a validation every so often and at the end."""
    plan = run.plan
    forward: dict[str, Callable[[Tensor], Tensor]] = {
        name: torch.compile(network, dynamic=False) if plan.compiled else network
        for name, network in run.networks.items()
    }
    recent, validated = [], run.seconds
    stream = batches(run.recipe, source, run.step)
    began = time.monotonic() - run.seconds
    while run.progress() < 1 and run.step != plan.stop and not asked:
        batch = next(stream)
        recent.append(run.learn(forward[f"x{batch.scale}"], batch))
        run.seconds = time.monotonic() - began
        if run.step % 50 == 0:
            loss, norm = np.mean(recent, axis=0).tolist()
            run.write({"loss": round(loss, 6), "norm": round(norm, 3), "rate": round(run.rate(), 7)})
            recent.clear()
        if run.seconds - validated > plan.every:
            run.save()
            run.write(validate(run.average, source, held[: plan.measured], plan.device))
            draw(run.folder / "log.jsonl", run.folder / "curve.svg")
            validated = run.seconds
    stream.close()  # type: ignore[attr-defined]
    if run.progress() >= 1:
        run.write(validate(run.average, source, held, plan.device))
        draw(run.folder / "log.jsonl", run.folder / "curve.svg")


@torch.no_grad()
def validate(networks: nn.ModuleDict, source: Spoiling, photos: Bytes, device: str) -> dict[str, float]:
    """PSNR of whole photographs at each level, dB, in float32: Y without the border for super-resolution, else RGB."""
    found: dict[str, list[float]] = {name: [] for name in source.levels}
    for name, level in source.levels.items():
        network = networks[name] if name in networks else networks["x1"]
        for photo in photos:
            spoiled, clean = source.whole(photo, level)
            out = network(to_tensor(spoiled[None]).to(device))[0].permute(1, 2, 0).clamp(0, 1).cpu().numpy()
            restored, wanted = np.rint(out * 255), np.rint(clean * 255)
            if name in networks:
                restored, wanted = luma(restored), luma(wanted)
            found[name].append(psnr(restored, wanted, border=level if name in networks else 0))
    return {name: round(float(np.mean(values)), 3) for name, values in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--photos", type=Path, default=Path("../shared/train/photos"), help="folder of photographs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--minutes", type=float, help="length of the schedule, over all sittings")
    parser.add_argument("--steps", type=int, help="the same in steps; goes before --minutes")
    parser.add_argument("--stop", type=int, help="leave at this step and save")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU")
    parser.add_argument("--bfloat16", action="store_true", help="mixed precision")
    parser.add_argument("--compiled", action="store_true", help="through torch.compile")
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.pop("threads"))
    train(Plan(**options))


if __name__ == "__main__":
    main()
