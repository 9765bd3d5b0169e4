"""A writer of uncompressed TIFF and BigTIFF from the specification (TIFF 6.0), without a library."""

from __future__ import annotations

import struct
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEIGHT", "SHORT", "WIDTH", "Order", "tiff"]

Array = NDArray[Any]
Order = Literal["<", ">"]
SHORT, LONG = 3, 4
HEIGHT, WIDTH, ROWS, SIDE = 20, 35, 7, 16
"""size of the pictures, rows per strip, side of a tile, px"""


def parts(samples: Array, tiled: bool) -> list[Array]:
    """Split into strips, the last one shorter, or into tiles padded at the edges."""
    if not tiled:
        return [samples[top : top + ROWS] for top in range(0, HEIGHT, ROWS)]
    across, down = -WIDTH % SIDE, -HEIGHT % SIDE
    whole = np.pad(samples, ((0, down), (0, across), (0, 0)))
    corners = [(y, x) for y in range(0, HEIGHT, SIDE) for x in range(0, WIDTH, SIDE)]
    return [whole[y : y + SIDE, x : x + SIDE] for y, x in corners]


def tiff(
    samples: Array,
    photometric: int,
    *,
    extra: int | None = None,
    tiled: bool = False,
    planes: bool = False,
    order: Order = "<",
    big: bool = False,
    orientation: int = 1,
) -> bytes:
    """Return a TIFF of samples (HEIGHT, WIDTH, channels). `extra` 1 is associated alpha, 2 unassociated."""
    channels, kind = samples.shape[2], samples.dtype
    groups = [samples[..., i : i + 1] for i in range(channels)] if planes else [samples]
    pieces = [part.astype(kind.newbyteorder(order)).tobytes() for group in groups for part in parts(group, tiled)]
    head = 16 if big else 8
    starts = [head + sum(map(len, pieces[:i])) for i in range(len(pieces))]
    sizes = [len(piece) for piece in pieces]
    entries: dict[int, tuple[int, list[int]]] = {
        256: (LONG, [WIDTH]), 257: (LONG, [HEIGHT]), 258: (SHORT, [8 * kind.itemsize] * channels), 259: (SHORT, [1]),
        262: (SHORT, [photometric]), 274: (SHORT, [orientation]), 277: (SHORT, [channels]),
        284: (SHORT, [2 if planes else 1]), 339: (SHORT, [3 if kind == np.float32 else 1] * channels),
    }  # fmt: skip
    entries |= {} if extra is None else {338: (SHORT, [extra])}
    where = {322: [SIDE], 323: [SIDE], 324: starts, 325: sizes} if tiled else {273: starts, 278: [ROWS], 279: sizes}
    entries |= {tag: (LONG, values) for tag, values in where.items()}
    return joined(b"".join(pieces), entries, order, big)


def joined(data: bytes, entries: dict[int, tuple[int, list[int]]], order: Order, big: bool) -> bytes:
    """Join header, samples, directory and the values that do not fit into the directory."""
    count, number = (order + "Q", "Q") if big else (order + "H", "I")
    room, head = struct.calcsize(number), 16 if big else 8
    at = head + len(data)
    behind = at + struct.calcsize(count) + len(entries) * (4 + 2 * room) + room
    directory, values = struct.pack(count, len(entries)), b""
    for tag, (kind, numbers) in sorted(entries.items()):
        value = struct.pack(f"{order}{len(numbers)}{'H' if kind == SHORT else 'I'}", *numbers)
        if len(value) > room:
            value, values = struct.pack(order + number, behind + len(values)), values + value
        directory += struct.pack(f"{order}HH{number}", tag, kind, len(numbers)) + value.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    return mark + start + data + directory + bytes(room) + values
