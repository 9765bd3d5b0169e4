"""`restore models sources`: checks whether checkpoints can still be downloaded, and from where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from restore_cli.cli.console import note, say
from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.entry import BundledSource, HubSource
from restore_cli.weights.source_checks import SourceCheck, check_sources

__all__ = ["CatalogueOption", "sources"]

CatalogueOption = Annotated[
    Path | None,
    typer.Option(help="Also read checkpoints from this file, which has the form of weights.toml.", metavar="FILE"),
]


def sources(
    names: Annotated[
        list[str] | None, typer.Argument(help="Checkpoints. Default: the whole catalogue.", metavar="NAMES")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per source, then a summary.")] = False,
    catalogue: CatalogueOption = None,
) -> None:
    """Ask every source whether it still has the checkpoint, without downloading it."""
    known = read_catalogue(catalogue)
    entries = [known.find_entry(name) for name in dict.fromkeys(names)] if names else list(known.entries)
    found = check_sources(entries)
    for finding in found:
        say(json.dumps(finding_to_json(finding), ensure_ascii=False) if as_json else finding_to_line(finding))
    usable = {finding.entry.name for finding in found if finding.usable}
    without = [entry.name for entry in entries if entry.name not in usable]
    counts = {
        "entries": len(entries),
        "sources": len(found),
        "usable": sum(finding.usable for finding in found),
        "unreachable": sum(finding.info is None for finding in found),
    }
    if as_json:
        code = WeightsUnavailable.code if without else 0
        say(json.dumps({"summary": counts | {"without": without, "exit_code": code}}))
    else:
        note(", ".join(f"{number} {what}" for what, number in counts.items()))
    if without:
        again = f"restore models sources {' '.join(without)}, later" if len(without) < 4 else "the same command later"
        raise WeightsUnavailable(f"no source answers with the file of {', '.join(without)}", again)


def finding_to_line(finding: SourceCheck) -> str:
    """Return a line about one source."""
    start = f"{finding.entry.name}  {finding.source}  "
    if finding.info is None:
        return f"{start}{finding.error}"
    size = compare_value(finding.info.size, finding.right_size, finding.entry.bytes, "{:,} bytes")
    sha256 = compare_value(finding.info.sha256, finding.right_sha256, finding.entry.sha256, "{:.12}…")
    revision = f", revision {finding.info.revision[:12]}" if finding.info.revision else ""
    return f"{start}reachable, size {size}, sha256 {sha256}{revision}"


def compare_value(found: int | str | None, right: bool | None, expected: int | str | None, form: str) -> str:
    """Return a value of the source, compared with that of the catalogue."""
    if found is None:
        return "not stated"
    if right:
        return "as expected"
    beside = f", expected {form.format(expected)}" if right is False else " (none in the catalogue)"
    return form.format(found) + beside


def finding_to_json(finding: SourceCheck) -> dict[str, Any]:
    """Return an object about one source."""
    source, answer = finding.source, finding.info
    return {
        "name": finding.entry.name,
        "source": str(source),
        "address": None if isinstance(source, BundledSource | HubSource) else source.url,
        "file": source.file if isinstance(source, BundledSource | HubSource) else None,
        "reachable": answer is not None,
        "usable": finding.usable,
        "size": answer.size if answer else None,
        "size_as_expected": finding.right_size,
        "sha256": answer.sha256 if answer else None,
        "sha256_as_expected": finding.right_sha256,
        "revision": answer.revision if answer else None,
        "error": finding.error,
    }
