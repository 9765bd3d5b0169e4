"""The photographs' authors as a page: `python -m training.credits CREDITS.csv docs/model-cards/CREDITS.md`."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

__all__ = ["main", "page"]

HEAD = """# Credits

The checkpoints of `--model lite` were trained on 256×256 px crops of these photographs. Each is free to use under
the licence that stands beside it. The crops were degraded (noise, compression) and are not part of the checkpoints.

| photograph | from | licence | credit |
|---|---|---|---|
"""


def page(rows: list[dict[str, str]]) -> str:
    """One line for each photograph, whatever the number of its crops."""
    lines = {
        (row["source"], row["path"]): " | ".join(cell(row[key]) for key in ("path", "source", "licence", "credit"))
        for row in rows
    }
    return HEAD + "".join(f"| {line} |\n" for _, line in sorted(lines.items()))


def cell(text: str) -> str:
    """Text that stays inside its cell of the table."""
    return " ".join(text.replace("|", "\\|").split())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="columns file, source, path, licence, credit")
    parser.add_argument("page", type=Path)
    given = parser.parse_args()
    with given.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    given.page.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
