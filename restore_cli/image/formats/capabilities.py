"""The name, suffixes and limits of each image format."""

from __future__ import annotations

__all__ = [
    "ALPHA_FORMATS",
    "FORMAT_BY_SUFFIX",
    "FORMAT_NAMES",
    "MAX_SAMPLE_BYTES",
    "MAX_SIDE",
    "MULTI_FRAME_FORMATS",
    "READABLE_SUFFIXES",
    "READ_ONLY_SUFFIXES",
    "SUFFIX_BY_FORMAT",
    "WRITABLE_DEPTHS",
]

FORMAT_NAMES = {name: name for name in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF", "HEIC", "GIF", "JXL")} | {
    "WEBP": "WebP",
    "JXL": "JPEG XL",
}
"""How messages spell each format."""
SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "AVIF": (".avif",),
    "JXL": (".jxl",),
}
"""The suffixes of each format that can be written, the usual one first."""
FORMAT_BY_SUFFIX = {suffix: format for format, suffixes in SUFFIXES.items() for suffix in suffixes}
SUFFIX_BY_FORMAT = {format: suffixes[0] for format, suffixes in SUFFIXES.items()}
READ_ONLY_SUFFIXES = (".heic", ".heif", ".gif")
READABLE_SUFFIXES = (*FORMAT_BY_SUFFIX, *READ_ONLY_SUFFIXES)
"""The suffixes of the files that are inputs when a folder is searched."""

# What the writers support.
ALPHA_FORMATS = ("PNG", "WEBP", "TIFF", "AVIF", "JXL")
MULTI_FRAME_FORMATS = ("TIFF", "PNG", "WEBP", "AVIF")
WRITABLE_DEPTHS = {
    "PNG": (8, 16),
    "TIFF": (8, 16, 32),
    "JPEG": (8,),
    "WEBP": (8,),
    "BMP": (8,),
    "AVIF": (8,),
    "JXL": (8, 16, 32),
}
MAX_SIDE = {"PNG": 2**31 - 1, "JPEG": 65500, "WEBP": 16383, "AVIF": 65535}  # px, limits of the encoders
MAX_SAMPLE_BYTES = {"BMP": 2**32 - 2**16}  # BMP stores offsets in 32 bits
