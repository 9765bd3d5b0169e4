"""Writes the table and the bar chart of docs/performance.md from benchmarks/results/*.json."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

__all__ = ["write_report"]

DOCS = Path(__file__).parents[1] / "docs"
START, END = "<!-- measured -->", "<!-- end -->"
HEADER = """| model | precision | tile | ours s/MP | peer s/MP | peer ÷ ours | of limit | agree, dB | memory, MiB |
|---|---|--:|--:|--:|--:|--:|--:|--:|
"""
OPENVINO_HEADER = """| model | precision | ours s/MP | OpenVINO s/MP | ratio | agree, dB | MiB | convert, compile, s |
|---|---|--:|--:|--:|--:|--:|--:|
"""
BAR, LEFT, WIDE = 26, 330, 420
"""Height of a bar, left edge of the bars, length of the longest one, all in px."""


def write_report(results: Path) -> str:
    """Insert the newest run of each device into the page, draw the chart, and return the table."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in find_newest(results)]
    text = "\n".join(format_run(run) for run in runs)
    page = DOCS / "performance.md"
    before, rest = page.read_text(encoding="utf-8").split(START)
    page.write_text(f"{before}{START}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    lines = [(line, run["machine"]["processor"]) for run in runs for line in run["lines"]]
    (DOCS / "performance.svg").write_text(draw_chart(lines), encoding="utf-8")
    return text


def find_newest(results: Path) -> list[Path]:
    """Return the last file of each device. File names end in the date."""
    by_device = {path.name.split("-")[0]: path for path in sorted(results.glob("*.json"))}
    return list(by_device.values())


def format_run(run: dict[str, Any]) -> str:
    """Return the machine, the versions and the table of one run."""
    machine = run["machine"]
    limits = ", ".join(f"{value / 1e9:.0f} GFLOP/s in {format_dtype(dtype)}" for dtype, value in run["limits"].items())
    rows = "".join(format_row(line) for line in run["lines"])
    openvino = "".join(format_openvino_row(line) for line in run["lines"] if line.get("openvino"))
    return (
        f"{machine['processor']}; torch {machine['torch']}, Python {machine['python']}; {run['when']}. "
        f"Matrix product: {limits}.\n\n{HEADER}{rows}"
        + (
            f"\nThe same module in OpenVINO {machine['openvino']}, ours first in each pair:"
            f"\n\n{OPENVINO_HEADER}{openvino}"
            if openvino
            else ""
        )
    )


def format_row(line: dict[str, Any]) -> str:
    """Return one line of the table."""
    megapixels = line["tiles"] * line["side"] ** 2 / 1e6
    share = line["flop"] / statistics.median(line["ours"]) / line["limit"]
    memory = " / ".join(f"{size / 2**20:.0f}" for size in line["memory"].values())
    cells = [
        line["model"],
        format_dtype(line["precision"]),
        str(line["side"]),
        format_spread([seconds / megapixels for seconds in line["ours"]]),
        format_spread([seconds / megapixels for seconds in line["peer"]]),
        f"**{compute_median_ratio(line):.2f}** ({', '.join(f'{pair:.2f}' for pair in compute_ratios(line))})",
        f"{share:.2f}",
        f"{line['agreement']:.0f}",
        memory,
    ]
    return f"| {' | '.join(cells)} |\n"


def format_openvino_row(line: dict[str, Any]) -> str:
    """Return one line of the table of OpenVINO."""
    megapixels, peer = line["tiles"] * line["side"] ** 2 / 1e6, line["openvino"]
    ours, theirs = ([seconds / megapixels for seconds in times] for times in (line["ours"], peer["seconds"]))
    cells = [
        line["model"],
        format_dtype(line["precision"]),
        format_spread(ours),
        format_spread(theirs),
        f"**{statistics.median(b / a for a, b in zip(ours, theirs, strict=True)):.2f}**",
        f"{line['agreement']:.0f} / {peer['agreement']:.0f}",
        f"{line['memory']['ours'] / 2**20:.0f} / {peer['memory'] / 2**20:.0f}",
        f"{'–' if peer['conversion'] is None else format(peer['conversion'], '.0f')}, {peer['preparation']:.0f}",
    ]
    return f"| {' | '.join(cells)} |\n"


def format_dtype(dtype: str) -> str:
    """Return `bfloat16` for `torch.bfloat16`."""
    return dtype.removeprefix("torch.")


def format_spread(values: list[float]) -> str:
    """Return `median (minimum–maximum)`."""
    return f"{format_number(statistics.median(values))} ({format_number(min(values))}–{format_number(max(values))})"


def format_number(value: float) -> str:
    """Return the number with at least three significant digits."""
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def compute_ratios(line: dict[str, Any]) -> list[float]:
    """Return the peer's time divided by ours, for each round."""
    return [theirs / ours for ours, theirs in zip(line["ours"], line["peer"], strict=True)]


def compute_median_ratio(line: dict[str, Any]) -> float:
    return statistics.median(compute_ratios(line))


def draw_chart(lines: list[tuple[dict[str, Any], str]]) -> str:
    """Return an SVG with a bar per line and machine. Its length is the ratio, and a dashed line marks a ratio of 1."""
    most = max(compute_median_ratio(line) for line, _ in lines)
    high = (BAR + 8) * len(lines) + 30
    bars = "".join(draw_bar(i, line, processor, WIDE / most) for i, (line, processor) in enumerate(lines))
    one = LEFT + WIDE / most
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDE + 70}" height="{high}" '
        f'font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="#fff"/>\n{bars}'
        f'<line x1="{one:.0f}" x2="{one:.0f}" y1="4" y2="{high - 22}" stroke="#333" stroke-dasharray="3 3"/>\n'
        f'<text x="{one:.0f}" y="{high - 8}" text-anchor="middle">the peer</text>\n</svg>\n'
    )


def draw_bar(i: int, line: dict[str, Any], processor: str, unit: float) -> str:
    """Return one bar with its name on the left and its number on the right."""
    top, long = 8 + i * (BAR + 8), compute_median_ratio(line) * unit
    name = f"{line['model']}, {format_dtype(line['precision'])}, {processor.split(',')[0]}"
    colour = "#2f6690" if line["precision"] == "torch.float32" else "#7aa6c2"
    return (
        f'<text x="{LEFT - 8}" y="{top + 18}" text-anchor="end">{name}</text>\n'
        f'<rect x="{LEFT}" y="{top}" width="{long:.0f}" height="{BAR}" fill="{colour}"/>\n'
        f'<text x="{LEFT + long + 6:.0f}" y="{top + 18}">{compute_median_ratio(line):.2f} ×</text>\n'
    )
