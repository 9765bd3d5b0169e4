"""Reads an output folder: its files, and the manifest's lines on each output."""

from __future__ import annotations

from pathlib import Path

from restore_cli.jobs.manifest import MANIFEST_NAME, parse_lines

__all__ = ["read_files", "read_outcomes"]


def read_files(folder: Path) -> dict[str, bytes]:
    """Return every file below the folder except manifests."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".restore-manifest" not in str(path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def read_outcomes(folder: str) -> dict[str, list[str]]:
    """Return the final statuses of each output in the manifest, in order."""
    statuses: dict[str, list[str]] = {}
    for _, event in parse_lines(Path(folder) / MANIFEST_NAME):
        if event.get("status", "begun") != "begun":
            statuses.setdefault(event["output"], []).append(event["status"])
            assert event["status"] == "failed" or (event["checkpoint"] and event["model"])
    return statuses
