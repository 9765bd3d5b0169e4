"""Draws the training curve of a run as a small SVG, from its log."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["draw"]

WIDTH, HEIGHT, MARGIN = 640, 260, 44
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7d5ba6")
Points = list[tuple[float, float]]


def draw(log: Path, target: Path) -> None:
    """Write panels over the minutes of training: the loss, and each PSNR on held-out photographs."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    series: dict[str, Points] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "seconds", "norm", "rate"):
                series.setdefault(name, []).append((line["seconds"] / 60, value))
    measures = {name: points for name, points in series.items() if name != "loss"}
    panels = [draw_panel({"loss": series["loss"]}, 0, "loss")] if "loss" in series else []
    panels += [
        draw_panel({name: points}, 1 + i, f"PSNR, dB: {name}") for i, (name, points) in enumerate(measures.items())
    ]
    size = f'width="{WIDTH}" height="{HEIGHT * len(panels)}" font-family="sans-serif" font-size="12"'
    target.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(panels) + "\n</svg>\n")


def draw_panel(series: dict[str, Points], row: int, title: str) -> str:
    """Return a panel in row `row`: axes with labelled ends, and one line per series."""
    xs, ys = zip(*(point for points in series.values() for point in points), strict=True)
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> str:
        across = MARGIN + (WIDTH - 2 * MARGIN) * (x - left) / (right - left or 1)
        return f"{across:.1f},{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - low) / (high - low or 1):.1f}"

    lines = [
        f'<polyline fill="none" stroke="{colour}" points="{" ".join(place(x, y) for x, y in points)}"/>'
        for colour, points in zip(COLOURS, series.values(), strict=False)
    ]
    labels = [
        f'<text x="{MARGIN}" y="24">{title}</text>',
        f'<text x="2" y="{HEIGHT - MARGIN}">{low:.4g}</text>',
        f'<text x="2" y="{MARGIN + 4}">{high:.4g}</text>',
        f'<text x="{MARGIN}" y="{HEIGHT - 20}">{left:.1f} min</text>',
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 20}" text-anchor="end">{right:.1f} min</text>',
    ]
    frame = f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none" stroke="#888"/>'
    return f'<g transform="translate(0 {HEIGHT * row})">{frame}{"".join(labels + lines)}</g>'
