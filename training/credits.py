"""Writes a page of the photographs' authors: `python -m training.credits CREDITS.csv docs/model-cards/CREDITS.md`."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

__all__ = ["main", "make_page"]

HEAD = """# Credits

The checkpoints of `--model lite` were trained on 256×256 px crops of these photographs. Each is free to use under
the licence in its row. The crops were degraded (noise, compression) and are not part of the checkpoints.

| photograph | from | licence | credit |
|---|---|---|---|
"""


def make_page(rows: list[dict[str, str]]) -> str:
    """Return the page, with one line for each photograph even if it has several crops."""
    lines = {
        (row["source"], row["path"]): " | ".join(
            escape_cell(row[key]) for key in ("path", "source", "licence", "credit")
        )
        for row in rows
    }
    return HEAD + "".join(f"| {line} |\n" for _, line in sorted(lines.items()))


def escape_cell(text: str) -> str:
    """Return text without characters that would end a cell of the table."""
    return " ".join(text.replace("|", "\\|").split())


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="columns file, source, path, licence, credit")
    parser.add_argument("page", type=Path)
    given = parser.parse_args()
    with given.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    given.page.write_text(make_page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
