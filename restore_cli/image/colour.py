"""Colour profiles of matrix and curves (ICC.1:2022, section 8.3): to sRGB and back in floating point, beyond its gamut.

What lies outside of sRGB keeps values below 0 or above 1 here; nothing is clipped, so going back loses nothing. In
double precision: a gamma that falls steeply to black turns an error of 1e-7 beside a full channel into 5e-4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restore_cli.image.picture import Samples

__all__ = ["ColourConversion", "decode_srgb", "encode_srgb", "is_unsupported_profile", "make_conversion"]

Floats = NDArray[np.float64]
Curve = Callable[[Floats], Floats]

SRGB_TO_XYZ = np.array(  # relative to D50, as profiles are
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
SRGB_TOLERANCE = 6e-3
"""A profile that differs from sRGB by less is sRGB: its many copies are rounded in many ways."""


@dataclass(frozen=True)
class ColourConversion:
    """A profile as two functions on (n, w, c) values in [0, 1]."""

    curves: tuple[tuple[Curve, Curve], ...]
    """of each channel: to linear light and back"""
    matrix: Floats | None
    """linear RGB -> linear sRGB; None for gray"""

    def to_linear(self, rows: Samples) -> Samples:
        """The same colours in linear sRGB, float64; those outside of it get values below 0 or above 1."""
        linear = np.stack([curve(rows[..., i].astype(np.float64)) for i, (curve, _) in enumerate(self.curves)], -1)
        return linear if self.matrix is None else linear @ self.matrix.T

    def from_linear(self, linear: Samples) -> Samples:
        """The inverse, float32."""
        if self.matrix is not None:
            linear = linear @ np.linalg.inv(self.matrix).T
        return np.stack([back(linear[..., i]) for i, (_, back) in enumerate(self.curves)], -1).astype(np.float32)


def make_conversion(icc: bytes | None, channels: int) -> ColourConversion | None:
    """The profile's functions; None where colours stay as they are: no profile, sRGB itself, or a foreign one."""
    found = parse_profile(icc, channels)
    return None if found is None or is_srgb(found, channels) or not is_invertible(found, channels) else found


def is_unsupported_profile(icc: bytes | None, channels: int) -> bool:
    """Whether there is a profile that is neither sRGB nor one of rising curves and a matrix."""
    found = parse_profile(icc, channels)
    return icc is not None and (found is None or not (is_srgb(found, channels) or is_invertible(found, channels)))


def parse_profile(icc: bytes | None, channels: int) -> ColourConversion | None:
    """Curves and matrix as they are stated. A gray picture may come with a profile for RGB: its green is taken."""
    tags = read_icc_tags(icc) if icc else {}
    try:
        if channels == 1:
            return ColourConversion((read_curve(tags.get("kTRC") or tags["gTRC"]),), None)
        columns = [read_xyz(tags[name]) for name in ("rXYZ", "gXYZ", "bXYZ")]
        matrix = np.linalg.inv(SRGB_TO_XYZ) @ np.stack(columns, 1)
        np.linalg.inv(matrix)  # raises where there is none
        return ColourConversion(tuple(read_curve(tags[name]) for name in ("rTRC", "gTRC", "bTRC")), matrix)
    except (KeyError, ValueError, struct.error, np.linalg.LinAlgError):
        return None


def is_srgb(colour: ColourConversion, channels: int) -> bool:
    """Whether the profile is sRGB but for rounding."""
    ramp = make_test_colours(channels)
    return bool(np.abs(encode_srgb(colour.to_linear(ramp)) - ramp).max() < SRGB_TOLERANCE)


def is_invertible(colour: ColourConversion, channels: int) -> bool:
    """Whether going there and back is the identity, in steps of 16 bits."""
    ramp = make_test_colours(channels)
    return bool(np.abs(colour.from_linear(colour.to_linear(ramp)) - ramp).max() < 0.5 / 65535)


def make_test_colours(channels: int) -> Samples:
    """(n, 1, c) grays and corners."""
    grays = np.repeat(np.linspace(0, 1, 1025, dtype=np.float32)[:, None, None], channels, 2)
    corners = np.stack(np.meshgrid(*[[0.0, 0.5, 1.0]] * channels), -1).reshape(-1, 1, channels)
    return np.concatenate([grays, corners.astype(np.float32)])


def read_icc_tags(icc: bytes) -> dict[str, bytes]:
    """The tags of a profile, as far as they lie inside it."""
    (count,) = struct.unpack_from(">I", icc, 128) if len(icc) >= 132 else (0,)
    tags = {}
    for i in range(min(count, 100)):
        if 144 + 12 * i > len(icc):
            break
        name, start, size = struct.unpack_from(">4sII", icc, 132 + 12 * i)
        tags[name.decode("latin-1")] = icc[start : start + size]
    return tags


def read_xyz(tag: bytes) -> Floats:
    """A colorant, (3,)."""
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def read_curve(tag: bytes) -> tuple[Curve, Curve]:
    """A tone curve and its inverse. ValueError for one that is neither a gamma, a table nor parametric."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return identity, identity
        values = np.array(struct.unpack_from(f">{count}H", tag, 12), np.float64)
        return make_gamma_curve(values[0] / 256) if count == 1 else make_table_curve(values / 65535)
    if tag[:4] == b"para":
        kind = struct.unpack_from(">H", tag, 8)[0]
        count = (1, 3, 4, 5, 7)[kind] if kind < 5 else 0
        return make_parametric_curve(kind, np.array(struct.unpack_from(f">{count}i", tag, 12)) / 65536)
    raise ValueError("a tone curve of unknown kind")


def identity(x: Floats) -> Floats:
    """Linear light."""
    return x


def make_gamma_curve(gamma: float) -> tuple[Curve, Curve]:
    """x^γ, mirrored below 0."""
    if gamma <= 0:
        raise ValueError("a gamma that is not positive")
    return (
        lambda x: np.sign(x) * np.abs(x) ** gamma,
        lambda y: np.sign(y) * np.abs(y) ** (1 / gamma),
    )


def make_table_curve(values: Floats) -> tuple[Curve, Curve]:
    """Straight lines between equally spaced values, which must rise."""
    if len(values) < 2 or (np.diff(values) <= 0).any():
        raise ValueError("a tone curve that does not rise")
    places = np.linspace(0, 1, len(values))
    return lambda x: np.interp(x, places, values), lambda y: np.interp(y, values, places)


def make_parametric_curve(kind: int, p: Floats) -> tuple[Curve, Curve]:
    """Section 10.18, table 68: a power and below its break a straight line."""
    g, a, b, c, d, e, f = expand_parameters(kind, p)
    if g <= 0 or a <= 0:
        raise ValueError("a tone curve that does not rise")
    break_value = (a * d + b) ** g + e if d > 0 else e

    def forward(x: Floats) -> Floats:
        upper = np.maximum(a * x + b, 0) ** g + e
        return np.where(x >= d, upper, c * x + f)

    def back(y: Floats) -> Floats:
        upper = (np.maximum(y - e, 0) ** (1 / g) - b) / a
        return np.where(y >= break_value, upper, (y - f) / c if c else 0)

    return forward, back


def expand_parameters(kind: int, p: Floats) -> tuple[float, ...]:
    """(g, a, b, c, d, e, f) of each of the five kinds."""
    g, rest = float(p[0]), [float(v) for v in p[1:]]
    if kind == 0:
        return g, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    a, b = rest[:2]
    if kind == 1:
        return g, a, b, 0.0, -b / a, 0.0, 0.0
    if kind == 2:
        return g, a, b, 0.0, -b / a, rest[2], rest[2]
    c, d = rest[2:4]
    e, f = (rest[4], rest[5]) if kind == 4 else (0.0, 0.0)
    return g, a, b, c, d, e, f


def encode_srgb(linear: Floats) -> Floats:
    """sRGB's curve (IEC 61966-2-1), mirrored below 0."""
    size = np.abs(linear)
    curved: Floats = np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    return curved * np.sign(linear)


def decode_srgb(values: Floats) -> Floats:
    """Its inverse."""
    size = np.abs(values)
    linear: Floats = np.sign(values) * np.where(
        size <= 0.0404482362771082, size / 12.92, ((size + 0.055) / 1.055) ** 2.4
    )
    return linear
