"""What an image file holds, without loss and without the library that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PEAK", "Header", "Metadata", "Picture", "Pixels", "Samples"]

Pixels = NDArray[np.uint8]
Samples = NDArray[Any]
"""uint8, uint16 or float32"""

PEAK = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value of white, for each kind of sample."""


@dataclass(frozen=True)
class Metadata:
    """What travels beside the pixels; each output format takes the parts that it can hold."""

    icc: bytes | None = None  # colour profile
    exif: bytes | None = None  # begins with b"Exif\0\0"; the orientation tag is 1, there is no thumbnail
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None  # across, down
    text: Mapping[str, str] = field(default_factory=dict)  # PNG keywords; "Comment" is also JPEG's comment
    iptc: bytes | None = None  # IIM records
    png: Mapping[bytes, bytes] = field(default_factory=dict)  # colour chunks that only PNG has: gAMA, cHRM, cICP, sRGB
    duration: float | None = None  # of this frame of an animation, ms
    loop: int | None = None  # how often an animation is shown, 0 for ever
    left_out: tuple[str, ...] = ()  # what the file says beside its pixels and is not kept, each with its reason

    @property
    def foreign_code(self) -> bool:
        """Whether cICP names primaries or a curve far from sRGB's; 2 is not stated, 1, 6, 14, 15 are television's."""
        code = self.png.get(b"cICP", b"")
        return len(code) == 4 and not (code[0] in (1, 2) and code[1] in (1, 2, 6, 13, 14, 15))


@dataclass(frozen=True)
class Header:
    """A file as `decode` would give it, known without decoding. px, after EXIF orientation."""

    format: str
    width: int
    height: int
    channels: int  # 1 or 3
    alpha: bool
    jpeg_quality: int | None = None
    subsampling: str | None = None
    depth: int = 8  # 8 or 16: integers; 32: floating point
    frames: int = 1  # frames of an animation, pages of a document


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class Picture:
    """An upright picture: pixels as they are shown, orientation already applied."""

    pixels: Samples  # (h, w, c), c = 1 (gray) or 3 (RGB); uint8, uint16 or float32
    alpha: Samples | None = None  # (h, w) of the same kind, its peak is opaque, not premultiplied
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"  # of the file it came from: a name in formats.capabilities.FORMAT_BY_SUFFIX
    jpeg_quality: int | None = None  # 1-100, estimated from the quantisation tables
    subsampling: str | None = None  # of a JPEG: "4:4:4", "4:2:2", "4:2:0"

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if str(dtype) not in PEAK or len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise ValueError(f"pixels are {dtype} {shape}, not uint8, uint16 or float32 of (h, w, 1) or (h, w, 3)")
        if self.alpha is not None and (self.alpha.dtype != dtype or self.alpha.shape != shape[:2]):
            raise ValueError(f"alpha is {self.alpha.dtype} {self.alpha.shape}, not {dtype} {shape[:2]}")

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
    def gray(self) -> bool:
        """True where the file has one channel; RGB with three equal channels is not gray."""
        return self.channels == 1

    @property
    def opaque(self) -> bool:
        """True where nothing is lost by leaving alpha out."""
        return self.alpha is None or bool(self.alpha.min() >= PEAK[str(self.alpha.dtype)])
