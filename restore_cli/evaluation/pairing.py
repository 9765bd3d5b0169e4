"""Pairs restored or degraded images with their references by the names of the files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from restore_cli.errors import UsageError
from restore_cli.jobs.paths import Input

__all__ = ["pair_files"]

# Endings of benchmarks and scripts: babyx4, baby_LRBI_x4, img_001_SRF_4_LR, baby_sr4, baby_SwinIR, a.jpg
ENDINGS = re.compile(
    r"(?: [_-]? x\d+"
    r"| [_-] (?: LR (?:BI|BD|DN)? | SRF [_-] \d+ | SR \d* | bicubic | noisy | noise \d* | blur (?:ry)? | rain (?:y)?"
    r"      | jpe?g \d* | q \d+ | denoise | deblur | derain | dejpeg | restored | out | rlt"
    r"      | emt | swinir | hat | restormer )"
    r"| \. (?: png | jpe?g | webp | tiff? | bmp | avif ) )+",
    re.IGNORECASE | re.VERBOSE,
)
REFERENCE = re.compile(r"(?:[_-]SRF[_-]\d+)?[_-](?:HR|GT|clean|sharp)$", re.IGNORECASE)
NAMED = 8
"""files without a partner that an error names; it counts the others"""


def pair_files(references: Sequence[Input], others: Sequence[Input]) -> list[tuple[Input, Input]]:
    """Return each reference with its partner: a file in the same sub-folder with the same name or a usual ending.

    Two single files are a pair whatever their names are. Raises UsageError for files without a partner, and for two
    files with the same reference.
    """
    if len(references) == len(others) == 1 and not any("/" in item.relative for item in (*references, *others)):
        return [(references[0], others[0])]
    folders: dict[PurePath, list[Input]] = defaultdict(list)
    for reference in references:
        folders[PurePath(reference.relative).parent].append(reference)
    found: dict[str, Input] = {}
    lonely: list[Input] = []
    for other in others:
        reference_or_none = find_reference(other, folders)
        if reference_or_none is None:
            lonely.append(other)
            continue
        first = found.setdefault(reference_or_none.path, other)
        if first is not other:
            raise UsageError(f"{first.path} and {other.path} both fit the reference {reference_or_none.path}")
    missing = [reference for reference in references if reference.path not in found]
    if missing or lonely:
        parts = describe_files(missing, "no partner for the reference") + describe_files(lonely, "no reference for")
        raise UsageError("; ".join(parts))
    return [(reference, found[reference.path]) for reference in references]


def find_reference(other: Input, folders: Mapping[PurePath, Sequence[Input]]) -> Input | None:
    """Return the reference with the longest name that begins the name of `other`, or None. A tie goes to its suffix."""
    stem = other.file.stem
    fitting = [
        (len(base), reference.file.suffix == other.file.suffix, reference)
        for reference in folders.get(PurePath(other.relative).parent, ())
        for base in {reference.file.stem, REFERENCE.sub("", reference.file.stem)}
        if stem == base or (stem.startswith(base) and ENDINGS.fullmatch(stem, len(base)))
    ]
    return max(fitting, key=lambda fit: fit[:2])[2] if fitting else None


def describe_files(items: Sequence[Input], what: str) -> list[str]:
    """Return a phrase with the names of the files, or nothing if there are none."""
    if not items:
        return []
    names = ", ".join(str(item.path) for item in items[:NAMED])
    return [f"{what} {names}{f' and {len(items) - NAMED} more' if len(items) > NAMED else ''}"]
