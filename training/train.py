"""Trains one recipe; stops and resumes at any moment: `python -m training.train lite-denoise --minutes 60`.

A run is a folder RUNS/NAME with state.pt (everything that a resumed run needs), log.jsonl and curve.svg. A longer
--minutes extends a run.
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

from restore_cli.evaluation.metrics import luma, psnr
from training.curve import draw
from training.data import Batch, Bytes, batches, read_photos, to_tensor
from training.degradations import Degradation, choose_degradation
from training.network import build, initialise, load_start
from training.recipe import RECIPES, Recipe

__all__ = ["Plan", "Run", "main", "train"]

HELD = 60
"""the last photographs, never trained on"""
EXPLODED = 5.0
"""Steps whose gradient has a larger norm are skipped. Usual norms are 0.05 to 0.5."""
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
"""Weights of red, green and blue in the lightness, BT.601."""
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
    """length of the schedule in steps; overrides minutes"""
    stop: int | None = None
    """leave at this step, though the schedule is longer"""
    start: tuple[Path, ...] = ()
    """checkpoint files that a new run starts from: one, or two for the parts of a cascade"""
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
        self.network = build(recipe).to(plan.device).eval()  # eval: published batch norms keep their statistics
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0, betas=(0.9, 0.99), weight_decay=1e-4)
        self.step, self.seconds = 0, 0.0

    def save(self) -> None:
        """Write state.pt whole or not at all."""
        parts: dict[str, nn.Module | torch.optim.Optimizer]
        parts = {"network": self.network, "average": self.average, "optimizer": self.optimizer}
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": self.step, "seconds": self.seconds}
        partial = self.folder / "state.pt.partial"
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / "state.pt")

    def begin(self) -> None:
        """Resume from state.pt, or start from the plan's checkpoint, or from fresh weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state_file = self.folder / "state.pt"
        if state_file.exists():
            state = torch.load(state_file, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
            return
        initialise(self.network)
        if self.plan.start:
            load_start(self.network, self.plan.start)
        self.average.load_state_dict(self.network.state_dict())

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
        """Take one step; return the loss and the gradient's norm before it was cut to 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        degraded, clean = batch.degraded.to(self.plan.device), batch.clean.to(self.plan.device)
        with torch.autocast(self.plan.device, torch.bfloat16, enabled=self.plan.bfloat16):
            restored = network(degraded)
        loss = find_loss(restored.float() - clean, self.recipe.luma)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if norm < EXPLODED:
            self.optimizer.step()
        self.step += 1
        self.follow()
        return loss.item(), norm.item()

    @torch.no_grad()
    def follow(self) -> None:
        """The average moves towards the weights, faster at first."""
        share = 1 - min(self.recipe.decay, (1 + self.step) / (10 + self.step))
        for mean, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(weight, share)

    def write(self, line: dict[str, Any]) -> None:
        """Append to log.jsonl."""
        line = {"step": self.step, "seconds": round(self.seconds, 1)} | line
        LOG.info("%s", json.dumps(line))
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def find_loss(error: Tensor, luma: float) -> Tensor:
    """Return the root mean square error of the patches (b, 3, h, w), plus `luma` times that of their lightness.

    Every patch has a gradient of the same size. Where detail is lost, the minimum is the mean of what is possible,
    which PSNR measures.
    """
    found = find_rms(error)
    return found + luma * find_rms((error * LUMA.to(error)).sum(1, keepdim=True)) if luma else found


def find_rms(error: Tensor) -> Tensor:
    """Return the mean of the root mean squares of the patches (b, c, h, w)."""
    return (error.square().mean((1, 2, 3)) + 1e-6).sqrt().mean()


def train(plan: Plan) -> Run:
    """Train until the schedule ends, `stop` is reached, or SIGTERM or SIGINT arrives. The run is saved in each case."""
    recipe = RECIPES[plan.name]
    photos = read_photos(plan.photos)
    held = min(HELD, len(photos) // 4)
    run = Run(recipe, plan)
    run.begin()
    # A signal only asks: the current step is finished, so that the saved state is consistent.
    asked: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: asked.append(number)) for number in numbers]
    try:
        run_steps(run, photos[:-held], photos[-held:], asked)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        run.save()
    return run


def run_steps(run: Run, photos: Bytes, held: Bytes, asked: list[int]) -> None:
    """The steps until the end or a signal, with a log line every 50 and a validation now and then and at the end."""
    plan, degradation = run.plan, choose_degradation(run.recipe)
    forward = torch.compile(run.network, dynamic=False) if plan.compiled else run.network
    recent, validated = [], run.seconds
    stream = batches(photos, degradation.make_pair, run.recipe.batch, run.step)
    began = time.monotonic() - run.seconds
    while run.progress() < 1 and run.step != plan.stop and not asked:
        recent.append(run.learn(forward, next(stream)))
        run.seconds = time.monotonic() - began
        if run.step % 50 == 0:
            loss, norm = np.mean(recent, axis=0).tolist()
            run.write({"loss": round(loss, 6), "norm": round(norm, 3), "rate": round(run.rate(), 7)})
            recent.clear()
        if run.seconds - validated > plan.every:
            run.save()
            record_validation(run, degradation, held[: plan.measured])
            validated = run.seconds
    stream.close()  # type: ignore[attr-defined]
    if run.progress() >= 1:
        run.save()
        record_validation(run, degradation, held)


def record_validation(run: Run, degradation: Degradation, photos: Bytes) -> None:
    """Validate the averaged weights, log the figures and draw the curve."""
    run.write(validate(run.average, degradation, photos, run.plan.device))
    draw(run.folder / "log.jsonl", run.folder / "curve.svg")


@torch.no_grad()
def validate(network: nn.Module, degradation: Degradation, photos: Bytes, device: str) -> dict[str, float]:
    """PSNR of whole photographs at each level, dB, in float32: Y without the border for super-resolution, else RGB."""
    found: dict[str, list[float]] = {level: [] for level in degradation.levels}
    for level, values in found.items():
        for photo in photos:
            degraded, clean = degradation.degrade_whole(photo, level)
            out = network(to_tensor(degraded[None]).to(device))[0].permute(1, 2, 0).clamp(0, 1).cpu().numpy()
            restored, wanted = np.rint(out * 255), np.rint(clean * 255)
            scale = clean.shape[0] // degraded.shape[0]
            if scale > 1:
                restored, wanted = luma(restored), luma(wanted)
            values.append(psnr(restored, wanted, border=scale if scale > 1 else 0))
    return {level: round(float(np.mean(values)), 3) for level, values in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--photos", type=Path, default=Path("../shared/train/photos"), help="folder of photographs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--start", type=Path, nargs="+", default=(), help="checkpoint files that a new run starts from")
    parser.add_argument("--minutes", type=float, help="length of the schedule, over all sittings")
    parser.add_argument("--steps", type=int, help="the same in steps; overrides --minutes")
    parser.add_argument("--stop", type=int, help="save and leave at this step")
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
