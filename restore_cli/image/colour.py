"""Conversion between matrix/curve colour profiles (ICC.1:2022, section 8.3) and linear sRGB, without loss.

Colours outside sRGB get values below 0 or above 1. Nothing is clipped, so the way back is exact. Float64 is needed:
near black a steep curve turns an error of 1e-7 into one of 5e-4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from restore_cli.image.picture import Floats, Samples

__all__ = ["ColourConversion", "decode_srgb", "encode_srgb", "is_unsupported_profile", "make_conversion"]

Curve = Callable[[Floats], Floats]

SRGB_TO_XYZ = np.array(  # for white point D50, like ICC profiles
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
SRGB_TOLERANCE = 6e-3
"""Profiles within this distance count as sRGB. Its many published copies are rounded differently."""


@dataclass(frozen=True)
class ColourConversion:
    """A profile as two functions on pixels (n, w, c), where the profile's own range is [0, 1]."""

    curves: tuple[tuple[Curve, Curve], ...]
    """for each channel: to linear light, and back"""
    matrix: Floats | None
    """(3, 3), linear RGB to linear sRGB; None for gray"""

    def to_linear(self, rows: Samples) -> Samples:
        """Convert to linear sRGB, float64. Colours outside sRGB get values below 0 or above 1."""
        linear = np.stack([curve(rows[..., i].astype(np.float64)) for i, (curve, _) in enumerate(self.curves)], -1)
        return linear if self.matrix is None else linear @ self.matrix.T

    def from_linear(self, linear: Samples) -> Samples:
        """Convert back, float32."""
        if self.matrix is not None:
            linear = linear @ np.linalg.inv(self.matrix).T
        return np.stack([back(linear[..., i]) for i, (_, back) in enumerate(self.curves)], -1).astype(np.float32)


def make_conversion(icc: bytes | None, channels: int) -> ColourConversion | None:
    """Return the conversion for a profile, or None if there is no profile, it is sRGB, or it is not supported."""
    found = parse_profile(icc, channels)
    return None if found is None or is_srgb(found, channels) or not is_invertible(found, channels) else found


def is_unsupported_profile(icc: bytes | None, channels: int) -> bool:
    """Whether there is a profile that is neither sRGB nor made of a matrix and rising curves."""
    found = parse_profile(icc, channels)
    return icc is not None and (found is None or not (is_srgb(found, channels) or is_invertible(found, channels)))


def parse_profile(icc: bytes | None, channels: int) -> ColourConversion | None:
    """Return the profile's curves and matrix, or None. A gray picture with an RGB profile uses its green curve."""
    tags = read_icc_tags(icc) if icc else {}
    try:
        if channels == 1:
            return ColourConversion((read_curve(tags.get("kTRC") or tags["gTRC"]),), None)
        columns = [np.array(struct.unpack_from(">3i", tags[name], 8)) / 65536 for name in ("rXYZ", "gXYZ", "bXYZ")]
        matrix = np.linalg.inv(SRGB_TO_XYZ) @ np.stack(columns, 1)
        np.linalg.inv(matrix)  # raises if it is singular
        return ColourConversion(tuple(read_curve(tags[name]) for name in ("rTRC", "gTRC", "bTRC")), matrix)
    except (KeyError, ValueError, struct.error, np.linalg.LinAlgError):
        return None


def is_srgb(colour: ColourConversion, channels: int) -> bool:
    """Whether the profile is sRGB, up to rounding."""
    ramp = make_test_colours(channels)
    return bool(np.abs(encode_srgb(colour.to_linear(ramp)) - ramp).max() < SRGB_TOLERANCE)


def is_invertible(colour: ColourConversion, channels: int) -> bool:
    """Whether a conversion there and back is exact to half a step of 16 bits."""
    ramp = make_test_colours(channels)
    return bool(np.abs(colour.from_linear(colour.to_linear(ramp)) - ramp).max() < 0.5 / 65535)


def make_test_colours(channels: int) -> Samples:
    """Return grays, and all combinations of 0, 0.5 and 1: (n, 1, c)."""
    grays = np.repeat(np.linspace(0, 1, 1025, dtype=np.float32)[:, None, None], channels, 2)
    corners = np.stack(np.meshgrid(*[[0.0, 0.5, 1.0]] * channels), -1).reshape(-1, 1, channels)
    return np.concatenate([grays, corners.astype(np.float32)])


def read_icc_tags(icc: bytes) -> dict[str, bytes]:
    """Return the data of each tag by its signature. Data beyond the end of the profile is missing."""
    (count,) = struct.unpack_from(">I", icc, 128) if len(icc) >= 132 else (0,)
    tags = {}
    for i in range(min(count, 100)):
        if 144 + 12 * i > len(icc):
            break
        name, start, size = struct.unpack_from(">4sII", icc, 132 + 12 * i)
        tags[name.decode("latin-1")] = icc[start : start + size]
    return tags


def read_curve(tag: bytes) -> tuple[Curve, Curve]:
    """Return a tone curve and its inverse. Raises ValueError if it is no gamma, no table and not parametric."""
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
    raise ValueError("the tone curve has an unknown type")


def identity(x: Floats) -> Floats:
    return x


def make_gamma_curve(gamma: float) -> tuple[Curve, Curve]:
    """Return x^gamma, mirrored below 0, and its inverse."""
    if gamma <= 0:
        raise ValueError(f"gamma is {gamma}, expected a number above 0")
    return lambda x: np.sign(x) * np.abs(x) ** gamma, lambda y: np.sign(y) * np.abs(y) ** (1 / gamma)


def make_table_curve(values: Floats) -> tuple[Curve, Curve]:
    """Return linear interpolation between equally spaced rising values, and its inverse."""
    if len(values) < 2 or (np.diff(values) <= 0).any():
        raise ValueError("the tone curve does not rise")
    places = np.linspace(0, 1, len(values))
    return lambda x: np.interp(x, places, values), lambda y: np.interp(y, values, places)


def make_parametric_curve(kind: int, p: Floats) -> tuple[Curve, Curve]:
    """Return a power curve with a linear part below `d` (section 10.18, table 68), and its inverse."""
    g, a, b, c, d, e, f = expand_parameters(kind, p)
    if g <= 0 or a <= 0:
        raise ValueError("the tone curve does not rise")
    break_value = (a * d + b) ** g + e if d > 0 else e

    def forward(x: Floats) -> Floats:
        upper = np.maximum(a * x + b, 0) ** g + e
        return np.where(x >= d, upper, c * x + f)

    def inverse(y: Floats) -> Floats:
        upper = (np.maximum(y - e, 0) ** (1 / g) - b) / a
        return np.where(y >= break_value, upper, (y - f) / c if c else 0)

    return forward, inverse


def expand_parameters(kind: int, p: Floats) -> tuple[float, ...]:
    """Return (g, a, b, c, d, e, f) of a parametric curve of one of the five types."""
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
    """Apply the sRGB transfer curve (IEC 61966-2-1), mirrored below 0."""
    size = np.abs(linear)
    curved: Floats = np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    return curved * np.sign(linear)


def decode_srgb(values: Floats) -> Floats:
    """Invert `encode_srgb`."""
    size = np.abs(values)
    linear: Floats = np.where(size <= 0.0404482362771082, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    return np.sign(values) * linear
