"""Which restored or degraded picture belongs to which reference, by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from restore_cli.errors import UsageError
from restore_cli.jobs.paths import Input

__all__ = ["paired"]

# What benchmarks and scripts put behind a name: babyx4, baby_LRBI_x4, img_001_SRF_4_LR, baby_sr4, baby_SwinIR, a.jpg
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
"""How many files without a partner an error names before it counts the rest."""


def paired(references: Sequence[Input], others: Sequence[Input]) -> list[tuple[Input, Input]]:
    """Each reference with its partner: the same name, or the same and usual endings, in the same sub-folder.

    Two single files that were named belong together whatever they are called. UsageError names every file that has no
    partner, on either side, and two that have the same one.
    """
    if len(references) == len(others) == 1 and not any("/" in item.relative for item in (*references, *others)):
        return [(references[0], others[0])]
    folders: dict[PurePath, list[Input]] = defaultdict(list)
    for reference in references:
        folders[PurePath(reference.relative).parent].append(reference)
    found: dict[str, Input] = {}
    lonely: list[Input] = []
    for other in others:
        reference_or_none = partner(other, folders)
        if reference_or_none is None:
            lonely.append(other)
            continue
        first = found.setdefault(reference_or_none.path, other)
        if first is not other:
            raise UsageError(f"{first.path} and {other.path} both fit the reference {reference_or_none.path}")
    missing = [reference for reference in references if reference.path not in found]
    if missing or lonely:
        raise UsageError("; ".join([*told(missing, "no partner for the reference"), *told(lonely, "no reference for")]))
    return [(reference, found[reference.path]) for reference in references]


def partner(other: Input, folders: Mapping[PurePath, Sequence[Input]]) -> Input | None:
    """The reference whose name explains most of the other's; of equal ones that of the same suffix."""
    stem = other.file.stem
    fitting = [
        (len(base), reference.file.suffix == other.file.suffix, reference)
        for reference in folders.get(PurePath(other.relative).parent, ())
        for base in {reference.file.stem, REFERENCE.sub("", reference.file.stem)}
        if stem == base or (stem.startswith(base) and ENDINGS.fullmatch(stem, len(base)))
    ]
    return max(fitting, key=lambda fit: fit[:2])[2] if fitting else None


def told(items: Sequence[Input], what: str) -> list[str]:
    """The files by name, as one phrase; none where there are none."""
    if not items:
        return []
    names = ", ".join(str(item.path) for item in items[:NAMED])
    return [f"{what} {names}{f' and {len(items) - NAMED} more' if len(items) > NAMED else ''}"]
