"""The contents of an image file: pixels, alpha, metadata, and the header that is known before decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PEAK", "Floats", "Header", "Metadata", "Picture", "Pixels", "Samples"]

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Samples = NDArray[Any]
"""uint8, uint16 or float32"""

PEAK = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value of white for each sample type."""


@dataclass(frozen=True)
class Metadata:
    """Everything in a file besides its pixels. Each writer stores the parts that its format supports."""

    icc: bytes | None = None
    """colour profile"""
    exif: bytes | None = None
    """begins with b"Exif\\0\\0"; its orientation is 1, and it has no thumbnail"""
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    """horizontal, vertical"""
    text: Mapping[str, str] = field(default_factory=dict)
    """PNG keywords and values; "Comment" is also the comment of a JPEG"""
    iptc: bytes | None = None
    """IIM records"""
    png: Mapping[bytes, bytes] = field(default_factory=dict)
    """colour chunks that only PNG has: gAMA, cHRM, cICP, sRGB, mDCV, cLLI"""
    duration: float | None = None
    """of this frame of an animation, ms"""
    loop: int | None = None
    """how often an animation is played; 0 means forever"""
    left_out: tuple[str, ...] = ()
    """one message for each part of the file that could not be kept, with the reason"""

    @property
    def has_foreign_cicp(self) -> bool:
        """Whether a cICP chunk names primaries or a transfer curve other than those of sRGB.

        The codes are those of ITU-T H.273. 2 means unspecified. The curves 1, 6, 14 and 15 of television are close
        enough to sRGB.
        """
        code = self.png.get(b"cICP", b"")
        return len(code) == 4 and not (code[0] in (1, 2) and code[1] in (1, 2, 6, 13, 14, 15))


@dataclass(frozen=True)
class Header:
    """The properties of a decoded picture, read without decoding it. Sizes are in px, after EXIF orientation."""

    format: str
    """a key of formats.capabilities.FORMAT_NAMES, or "array" for pixels that come from no file"""
    width: int
    height: int
    channels: int
    """1 (gray) or 3 (RGB), without alpha; arrays may have 6 (two RGB views)"""
    alpha: bool
    jpeg_quality: int | None = None
    """1-100, estimated from the quantisation tables"""
    subsampling: str | None = None
    """of a JPEG: "4:4:4", "4:2:2" or "4:2:0\""""
    depth: int = 8
    """8 or 16 for integers, 32 for floating point"""
    frames: int = 1
    """frames of an animation, or pages of a document"""


@dataclass(frozen=True, eq=False)  # the comparison of two arrays has no single truth value
class Picture:
    """One decoded picture, upright: EXIF orientation is already applied."""

    pixels: Samples
    """(h, w, c), c = 1 (gray) or 3 (RGB); uint8, uint16 or float32"""
    alpha: Samples | None = None
    """(h, w), same dtype as the pixels; the peak value is opaque; colours are not premultiplied"""
    metadata: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if str(dtype) not in PEAK or len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise ValueError(f"pixels are {dtype} {shape}, expected uint8, uint16 or float32 of (h, w, 1) or (h, w, 3)")
        if self.alpha is not None and (self.alpha.dtype != dtype or self.alpha.shape != shape[:2]):
            raise ValueError(f"alpha is {self.alpha.dtype} {self.alpha.shape}, expected {dtype} {shape[:2]}")

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[2])

    @property
    def opaque(self) -> bool:
        """Whether alpha can be dropped without loss."""
        return self.alpha is None or bool(self.alpha.min() >= PEAK[str(self.alpha.dtype)])
