"""benchmarks/results/*.json -> docs/performance.md and its bar chart."""

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
BAR, LEFT, WIDE = 26, 330, 420
"""Height of a bar, where bars begin, length of the longest, all in px."""


def write_report(results: Path) -> str:
    """Put the table of the newest run per device between the marks of the page, draw the chart, return the table."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in newest(results)]
    text = "\n".join(section(run) for run in runs)
    page = DOCS / "performance.md"
    before, rest = page.read_text(encoding="utf-8").split(START)
    page.write_text(f"{before}{START}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    lines = [(line, run["machine"]["processor"]) for run in runs for line in run["lines"]]
    (DOCS / "performance.svg").write_text(chart(lines), encoding="utf-8")
    return text


def newest(results: Path) -> list[Path]:
    """The last file of each device; names end in the date."""
    by_device = {path.name.split("-")[0]: path for path in sorted(results.glob("*.json"))}
    return list(by_device.values())


def section(run: dict[str, Any]) -> str:
    """Machine, versions and the table of one run."""
    machine = run["machine"]
    limits = ", ".join(f"{value / 1e9:.0f} GFLOP/s in {dtype_name(dtype)}" for dtype, value in run["limits"].items())
    rows = "".join(row(line) for line in run["lines"])
    return (
        f"{machine['processor']}; torch {machine['torch']}, Python {machine['python']}; {run['when']}. "
        f"Matrix product: {limits}.\n\n{HEADER}{rows}"
    )


def row(line: dict[str, Any]) -> str:
    """One line of the table."""
    megapixels = line["tiles"] * line["side"] ** 2 / 1e6
    share = line["flop"] / statistics.median(line["ours"]) / line["limit"]
    memory = " / ".join(f"{size / 2**20:.0f}" for size in line["memory"].values())
    cells = [
        line["model"],
        dtype_name(line["precision"]),
        str(line["side"]),
        spread([seconds / megapixels for seconds in line["ours"]]),
        spread([seconds / megapixels for seconds in line["peer"]]),
        f"**{ratio(line):.2f}** ({', '.join(f'{pair:.2f}' for pair in pairs(line))})",
        f"{share:.2f}",
        f"{line['agreement']:.0f}",
        memory,
    ]
    return f"| {' | '.join(cells)} |\n"


def dtype_name(dtype: str) -> str:
    """bfloat16 for torch.bfloat16."""
    return dtype.removeprefix("torch.")


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{digits(statistics.median(values))} ({digits(min(values))}–{digits(max(values))})"


def digits(value: float) -> str:
    """Three of them at least."""
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def pairs(line: dict[str, Any]) -> list[float]:
    """How many times as fast ours was, round by round."""
    return [theirs / ours for ours, theirs in zip(line["ours"], line["peer"], strict=True)]


def ratio(line: dict[str, Any]) -> float:
    """The median of the pairs."""
    return statistics.median(pairs(line))


def chart(lines: list[tuple[dict[str, Any], str]]) -> str:
    """A bar per line and machine, as long as it is many times as fast as its peer, and a rule where both are equal."""
    most = max(ratio(line) for line, _ in lines)
    high = (BAR + 8) * len(lines) + 30
    bars = "".join(bar(i, line, processor, WIDE / most) for i, (line, processor) in enumerate(lines))
    one = LEFT + WIDE / most
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDE + 70}" height="{high}" '
        f'font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="#fff"/>\n{bars}'
        f'<line x1="{one:.0f}" x2="{one:.0f}" y1="4" y2="{high - 22}" stroke="#333" stroke-dasharray="3 3"/>\n'
        f'<text x="{one:.0f}" y="{high - 8}" text-anchor="middle">the peer</text>\n</svg>\n'
    )


def bar(i: int, line: dict[str, Any], processor: str, unit: float) -> str:
    """One bar with its name before it and its number behind it."""
    top, long = 8 + i * (BAR + 8), ratio(line) * unit
    name = f"{line['model']}, {dtype_name(line['precision'])}, {processor.split(',')[0]}"
    colour = "#2f6690" if line["precision"] == "torch.float32" else "#7aa6c2"
    return (
        f'<text x="{LEFT - 8}" y="{top + 18}" text-anchor="end">{name}</text>\n'
        f'<rect x="{LEFT}" y="{top}" width="{long:.0f}" height="{BAR}" fill="{colour}"/>\n'
        f'<text x="{LEFT + long + 6:.0f}" y="{top + 18}">{ratio(line):.2f} ×</text>\n'
    )
