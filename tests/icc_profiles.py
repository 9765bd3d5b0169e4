"""Makes small colour profiles from their definitions (ICC.1:2022), free of copyright."""

from __future__ import annotations

import struct

__all__ = ["GRAY_22", "LINEAR", "P3", "make_gray_profile", "make_rgb_profile"]


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a version 4 display profile with these tags."""
    start, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    data = struct.pack(">I", len(tags)) + table + body
    head = struct.pack(">I4sI4s4s4s", 128 + len(data), bytes(4), 0x04300000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + data


def curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def make_rgb_profile(columns: list[list[float]], gamma: float) -> bytes:
    """Return a profile. `columns` are red, green and blue as XYZ relative to D50; one gamma is for all."""
    tags = {
        name: b"XYZ " + bytes(4) + fixed(*xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    }
    tags |= {name: curve(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(b"RGB ", {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249), **tags})


def make_gray_profile(gamma: float) -> bytes:
    """Return a profile of one channel."""
    return profile(b"GRAY", {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249), b"kTRC": curve(gamma)})


SRGB = [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.7141]]
P3 = make_rgb_profile([[0.51512, 0.2412, -0.00105], [0.29198, 0.69225, 0.04189], [0.1571, 0.06657, 0.78407]], 2.2)
"""Primaries of Display P3."""
LINEAR = make_rgb_profile(SRGB, 1.0)
GRAY_22 = make_gray_profile(2.2)
