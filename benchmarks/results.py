"""Measures the checkpoints on this machine and writes docs/results.md.

    python -m benchmarks.results [--bench ../shared/bench] [--weights FILE …] [--only NAME …]

A checkpoint is measured if it is bundled or downloaded, or if --weights names a file with its sha256. The rows of other
checkpoints are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from restore_cli.atomic import atomic_write
from restore_cli.evaluation.evaluate import EvalOptions, Summary, evaluate, summarize
from restore_cli.jobs.types import ModelOptions
from restore_cli.weights.catalogue import Catalogue, Request, read_catalogue
from restore_cli.weights.entry import Entry
from restore_cli.weights.store import locate

PAGE = Path(__file__).parents[1] / "docs/results.md"

EMT, SWINIR = "stated for the official weights", "arXiv:2108.10257, table {}"
PUBLISHED: dict[tuple[str, str], tuple[float, str]] = {
    ("emt-x2", "Set5 ×2"): (38.29, EMT),
    ("emt-x3", "Set5 ×3"): (34.79, EMT),
    ("emt-x4", "Set5 ×4"): (32.64, EMT),
    ("swinir-classical-x2", "Set5 ×2"): (38.42, SWINIR.format(2)),
    ("swinir-classical-x3", "Set5 ×3"): (34.97, SWINIR.format(2)),
    ("swinir-classical-x4", "Set5 ×4"): (32.92, SWINIR.format(2)),
    ("swinir-classical-div2k-x2", "Set5 ×2"): (38.35, SWINIR.format(2)),
    ("swinir-classical-div2k-x3", "Set5 ×3"): (34.89, SWINIR.format(2)),
    ("swinir-classical-div2k-x4", "Set5 ×4"): (32.72, SWINIR.format(2)),
    ("swinir-lightweight-x2", "Set5 ×2"): (38.14, SWINIR.format(3)),
    ("swinir-lightweight-x3", "Set5 ×3"): (34.62, SWINIR.format(3)),
    ("swinir-lightweight-x4", "Set5 ×4"): (32.44, SWINIR.format(3)),
    ("swinir-jpeg-gray-10", "classic5 q10"): (30.27, SWINIR.format(4)),
    ("swinir-jpeg-gray-20", "classic5 q20"): (32.52, SWINIR.format(4)),
    ("swinir-jpeg-gray-30", "classic5 q30"): (33.73, SWINIR.format(4)),
    ("swinir-jpeg-gray-40", "classic5 q40"): (34.52, SWINIR.format(4)),
    ("swinir-denoise-color-15", "CBSD68 σ15"): (34.42, SWINIR.format(6)),
    ("swinir-denoise-color-25", "CBSD68 σ25"): (31.78, SWINIR.format(6)),
    ("swinir-denoise-color-50", "CBSD68 σ50"): (28.56, SWINIR.format(6)),
}
"""(checkpoint, test) -> (PSNR in dB, source). Only figures that were looked up."""

HEAD = """# Results

Each row is one checkpoint on one benchmark. `make results` measures it with `restore eval` in float32 and fills the
table. [Decision 010](decisions/010-what-is-measured.md) says what each number means.

- Super-resolution: PSNR and SSIM on Y (BT.601, 16..235), with as many pixels as the scale cut from every side. Inputs
  are the benchmark's own low-resolution images (LR), or made from the references (HR) with MATLAB's bicubic.
- Other tasks: PSNR and SSIM on RGB, or on the one channel of gray images.
- The baseline is bicubic enlargement, or the degraded input.
- Published is the authors' figure, or the one stated for their weights.

The table has single passes. With `--tta`, emt-x4 reaches 32.743 dB on Set5 ×4 (from LR), 0.105 dB more.

| checkpoint | test | PSNR | SSIM | PSNR-B | baseline PSNR | published PSNR | where |
|---|---|--:|--:|--:|--:|--:|---|
"""

UNMEASURED = """
## Published figures

Of checkpoints that have not been measured here.

| checkpoint | test | published PSNR | where |
|---|---|--:|---|
"""


@dataclass(frozen=True)
class Benchmark:
    """One checkpoint on one benchmark."""

    name: str
    request: Request
    options: EvalOptions

    @property
    def title(self) -> str:
        """The name, and for sr whether inputs are the benchmark's own or made from the references."""
        given = {True: ", from LR", False: ", from HR"}[self.options.input is not None]
        return self.name + (given if self.request.task == "sr" else "")


def list_benchmarks(entry: Entry, bench: Path) -> Iterator[Benchmark]:
    """Yield the benchmarks for a checkpoint. There are none for real-world degradations, which have no reference."""
    request = Request(entry.task, noise=entry.noise, channels=entry.channels)
    if entry.task == "sr" and not entry.variant.startswith("real"):
        for folder in (bench / f"Set5/LR_bicubic/X{entry.scale}", None):
            yield Benchmark(f"Set5 ×{entry.scale}", request, EvalOptions(bench / "Set5/HR", folder))
    elif entry.task == "denoise" and entry.channels == 3 and entry.noise != "real":
        levels = [int(entry.noise)] if entry.noise and entry.noise.isdecimal() else [15, 25, 50]
        yield from (Benchmark(f"CBSD68 σ{n}", request, EvalOptions(bench / "CBSD68", sigma=n)) for n in levels)
    elif entry.task == "dejpeg":
        folders = {"classic5": 1, "LIVE1": 3}
        for quality in [entry.quality] if entry.quality else [10, 20, 30, 40]:
            asked = Request("dejpeg", quality=quality, channels=entry.channels)
            for name, channels in folders.items():
                # colour checkpoints are also measured on gray images, unless a gray checkpoint exists for the quality
                if channels == entry.channels or (channels == 1 and not entry.quality):
                    yield Benchmark(f"{name} q{quality}", asked, EvalOptions(bench / name))


def find_checkpoints(entries: Sequence[Entry], weights: Sequence[Path]) -> Iterator[tuple[Entry, Path | None]]:
    """Yield the entries whose file is on this machine, each with the file if it is one of `weights`."""
    given = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in weights}
    for entry in entries:
        if entry.sha256 in given:
            yield entry, given[entry.sha256]
        elif locate(entry):
            yield entry, None


def measure(entry: Entry, path: Path | None, test: Benchmark) -> Summary:
    """Return the means over the images of a benchmark."""
    alone = Catalogue((entry,), {})
    options = ModelOptions(test.request, alone, weights=path, precision="fp32", offline=True)
    return summarize(list(evaluate(options, test.options)))


def format_row(entry: Entry, test: Benchmark, found: Summary) -> str:
    """Return a row of the page."""
    y = "_y" if test.request.task == "sr" else ""
    base = found.baseline or {}
    published, where = PUBLISHED.get((entry.name, test.name), (None, ""))
    cells = [
        entry.name,
        test.title,
        f"{found.mean[f'psnr{y}']:.3f}",
        f"{found.mean[f'ssim{y}']:.4f}",
        f"{found.mean['psnrb']:.3f}" if "psnrb" in found.mean else "",
        f"{base[f'psnr{y}']:.3f}" if base else "",
        f"{published:.2f}" if published else "",
        where,
    ]
    return f"| {' | '.join(cells)} |"


def read_rows(page: Path) -> dict[tuple[str, str], str]:
    """Return the measured rows on the page, by checkpoint and test."""
    if not page.is_file():
        return {}
    text = page.read_text(encoding="utf-8").partition(UNMEASURED)[0]
    rows = [row for row in text.splitlines() if row.startswith("| ")][1:]
    return {(cells[1].strip(), cells[2].strip()): row for row in rows if len(cells := row.split("|")) > 2}


def write_page(page: Path, rows: dict[tuple[str, str], str], order: Sequence[str]) -> None:
    """Write the page in the catalogue's order, without rows of checkpoints that it no longer has."""
    known = {name: place for place, name in enumerate(order)}
    lines = [row for key, row in sorted(rows.items(), key=lambda item: known.get(item[0][0], 0)) if key[0] in known]
    missing = {name: place for name, place in known.items() if not any(name == key[0] for key in rows)}
    others = [(name, test, *PUBLISHED[name, test]) for name, test in PUBLISHED if name in missing]
    others.sort(key=lambda figure: missing[figure[0]])
    published = "".join(f"| {name} | {test} | {psnr:.2f} | {where} |\n" for name, test, psnr, where in others)
    with atomic_write(page) as file:
        file.write((HEAD + "\n".join(lines) + "\n" + (UNMEASURED + published if published else "")).encode())


def main() -> None:
    """Measure each checkpoint. The page is written after each benchmark, so a stopped run loses only one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=Path("../shared/bench"), help="Set5, CBSD68, LIVE1, classic5")
    parser.add_argument(
        "--weights", type=Path, nargs="*", default=[], help="checkpoint files, recognised by their sha256"
    )
    parser.add_argument("--only", nargs="*", help="names of the catalogue")
    given = parser.parse_args()
    entries = read_catalogue().entries
    rows = read_rows(PAGE)
    for entry, path in find_checkpoints(entries, given.weights):
        for test in list_benchmarks(entry, given.bench) if not given.only or entry.name in given.only else ():
            folders = (test.options.reference, test.options.input or test.options.reference)
            if all(folder.is_dir() for folder in folders):
                rows[entry.name, test.title] = format_row(entry, test, measure(entry, path, test))
                sys.stdout.write(rows[entry.name, test.title] + "\n")
                write_page(PAGE, rows, [entry.name for entry in entries])


if __name__ == "__main__":
    main()
