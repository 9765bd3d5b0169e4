"""One function per format that reads a file's header and metadata, and prepares reading its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ImageFile, JpegImagePlugin

from restore_cli.image.formats import heic, jxl, vips
from restore_cli.image.formats.capabilities import FORMAT_NAMES
from restore_cli.image.formats.gif import scan_gif
from restore_cli.image.formats.jpeg import check_progressive_length, count_stereo_frames, estimate_quality
from restore_cli.image.formats.jxl_header import read_header
from restore_cli.image.formats.patched import Patch
from restore_cli.image.formats.pillow import PLUGINS, apply_orientation, match_channels, pillow_settings, read_array
from restore_cli.image.formats.png import scan_png
from restore_cli.image.formats.samples import unpremultiply, widen_to_16_bits
from restore_cli.image.formats.sniff import clear_premultiplied_flag, read_avif_depth, read_nclx
from restore_cli.image.formats.tiff_reader import (
    CMYK,
    HEIGHT,
    LAB,
    PHOTOMETRIC,
    WIDTH,
    YCBCR,
    make_alpha_patch,
    read_page_metadata,
    read_pages,
)
from restore_cli.image.metadata.collect import build_metadata, read_orientation, read_pillow_metadata
from restore_cli.image.picture import Header, Metadata, Samples
from restore_cli.image.picture_source import OpenRows
from restore_cli.image.reasons import UnreadableImage, UnsupportedImage, join_lines
from restore_cli.image.rows import FetchRows

__all__ = ["OPENERS", "OpenRequest", "open_with_pillow"]

Opened = tuple[Header, Metadata, OpenRows]
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


@dataclass(frozen=True)
class OpenRequest:
    """A file to open: a stream that is open now, and the path or bytes from which it can be opened again."""

    stream: IO[bytes]
    file: Path | bytes
    format: str
    frame: int
    """counts from 0"""
    max_pixels: int

    def check_frame(self, frames: int) -> None:
        """Raise UnsupportedImage if the file does not have the requested frame."""
        if self.frame >= frames:
            pictures = f"{frames} picture{'s' if frames > 1 else ''}"
            raise UnsupportedImage(f"contains {pictures}; --frame {self.frame + 1} does not exist")

    def check_size(self, width: int, height: int) -> None:
        """Refuse a size before memory is allocated. Raises UnreadableImage, UnsupportedImage."""
        if width < 1 or height < 1:
            raise UnreadableImage(f"damaged: its header states {width}×{height} px")
        if width * height > self.max_pixels:
            limit = f"{self.max_pixels:_} px".replace("_", ",")
            raise UnsupportedImage(f"has {width}×{height} px; the limit is {limit}", f"--max-pixels {width * height}")


def open_png(request: OpenRequest) -> Opened:
    """Check the chunks here and read the pixels with libvips. Pillow reads animations."""
    chunks = scan_png(request.stream, request.check_size)
    if chunks.frames > 1 and chunks.bits <= 8:
        return open_with_pillow(request)
    request.check_frame(1)
    orientation, metadata = chunks.build_metadata()
    metadata = replace(metadata, png=chunks.colours)
    depth = 16 if chunks.bits == 16 else 8
    size = size_upright(chunks.width, chunks.height, orientation)
    header = Header("PNG", *size, chunks.channels, chunks.has_alpha, depth=depth)
    return header, metadata, make_vips_opener(request.file, header, orientation)


def open_tiff(request: OpenRequest) -> Opened:
    """Read the directories with Pillow's parser, and the pixels with libtiff through libvips."""
    pages = read_pages(request.stream)
    request.check_frame(len(pages))
    page = pages[request.frame]
    width, height = page.read_int(WIDTH, 0), page.read_int(HEIGHT, 0)
    request.check_size(width, height)
    orientation, metadata = read_page_metadata(page, request.stream)
    photometric = page.read_int(PHOTOMETRIC, 0)
    size, alpha = size_upright(width, height, orientation), page.alpha is not None
    header = Header("TIFF", *size, page.channels, alpha, depth=page.depth, frames=len(pages))
    if photometric == LAB and page.depth == 8:  # libvips fails to read it
        opener = make_pillow_opener(request.file, "TIFF", page.index, vips.lab_to_srgb)
        return header, metadata, opener
    kind = {CMYK: "cmyk", YCBCR: "opaque", LAB: "lab"}.get(photometric)
    convert_rows, patch = page.get_conversion(), make_alpha_patch(page, request.stream)
    opener = make_vips_opener(request.file, header, orientation, page.index, kind, convert_rows, patch)
    return header, metadata, opener


def make_pillow_opener(
    file: Path | bytes, format: str, frame: int, read: Callable[[ImageFile.ImageFile], Samples]
) -> OpenRows:
    """Return an opener of one frame that Pillow decodes. `read` returns its samples. All of it is held in memory."""

    def open_rows() -> FetchRows:
        with pillow_settings(), reopen(file) as stream:
            image = open_pillow_image(stream, format)
            image.seek(frame)
            image.load()
            samples = read(image)
        return lambda top, bottom: samples[top:bottom]

    return open_rows


def reopen(file: Path | bytes) -> IO[bytes]:
    """Open a file once more."""
    return file.open("rb") if isinstance(file, Path) else BytesIO(file)


def open_jpeg(request: OpenRequest) -> Opened:
    """Read the markers with Pillow and the pixels with libvips, which reports what libjpeg only warns of."""
    image = open_pillow_image(request.stream, request.format)
    if count_stereo_frames(image) > 1:
        return open_with_pillow(request)
    request.check_frame(1)
    request.check_size(*image.size)
    if "progressive" in image.info:
        check_progressive_length(request.stream, *image.size)
    orientation, metadata = read_orientation(image), read_pillow_metadata(image)
    cmyk = image.mode == "CMYK"
    size, channels = size_upright(*image.size, orientation), 1 if image.mode == "L" else 3
    quality = estimate_quality(image.quantization) if isinstance(image, JpegImagePlugin.JpegImageFile) else None
    subsampling = _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image))
    header = Header("JPEG", *size, channels, False, quality, subsampling)
    metadata = replace(metadata, icc=None) if cmyk else metadata
    return header, metadata, make_vips_opener(request.file, header, orientation, convert="cmyk" if cmyk else None)


def open_avif(request: OpenRequest) -> Opened:
    """Read 8-bit AVIF with Pillow, 10 and 12 bits with libvips."""
    request.stream.seek(0)
    data = request.stream.read()
    bits = read_avif_depth(data)
    header, metadata, opener = open_deep_avif(request, data, bits) if bits > 8 else open_with_pillow(request)
    return header, add_nclx(metadata, data), opener


def add_nclx(metadata: Metadata, data: bytes) -> Metadata:
    """Return the metadata with the nclx codes of an AVIF or HEIC, if it has no profile and they differ from sRGB."""
    code = read_nclx(data) if metadata.icc is None else None
    found = replace(metadata, png={b"cICP": code} if code else {})
    return found if found.has_foreign_cicp else metadata


def open_deep_avif(request: OpenRequest, data: bytes, bits: int) -> Opened:
    """Open an AVIF of 10 or 12 bits, scaled to 16. libvips applies the orientation."""
    request.check_frame(1)
    image = open_pillow_image(request.stream, "AVIF")
    request.check_size(*image.size)
    metadata = read_pillow_metadata(image)
    plain = clear_premultiplied_flag(data)  # else some versions of libvips divide by alpha themselves
    premultiplied = plain != data
    pixels = vips.open_image("AVIF", plain)
    channels, alpha = (1 if pixels.bands < 3 else 3), pixels.bands in (2, 4)
    header = Header("AVIF", pixels.width, pixels.height, channels, alpha, depth=16)

    def convert_rows(rows: Samples) -> Samples:
        rows = widen_to_16_bits(rows >> (16 - bits), bits)  # libheif appends zero bits, which would darken white
        return unpremultiply(rows) if premultiplied else rows

    return header, metadata, make_vips_opener(plain, header, 1, convert_rows=convert_rows)


def open_heic(request: OpenRequest) -> Opened:
    """Open one picture of a HEIC file. The whole picture is held in memory."""
    data = request.file.read_bytes() if isinstance(request.file, Path) else request.file
    frame, pictures = request.frame, heic.read_pictures(data)
    request.check_frame(len(pictures))
    image = pictures[frame]
    (width, height), info = image.size, image.info
    request.check_size(width, height)
    _, metadata = build_metadata(info.get("icc_profile"), info.get("exif"), info.get("xmp"), None, {}, None)
    channels, depth = (1 if image.mode.startswith(("L", "I")) else 3), 16 if info["bit_depth"] > 8 else 8
    header = Header("HEIC", width, height, channels, image.has_alpha, depth=depth, frames=len(pictures))

    def open_rows() -> FetchRows:
        picture = heic.read_pictures(data)[frame]
        samples = heic.read_heic_samples(picture)
        samples = unpremultiply(samples) if picture.premultiplied_alpha else samples
        return lambda top, bottom: samples[top:bottom]

    return header, add_nclx(metadata, data), open_rows


def open_jxl(request: OpenRequest) -> Opened:
    """Open a JPEG XL file. The whole picture is held in memory."""
    data = request.file.read_bytes() if isinstance(request.file, Path) else request.file
    stated = read_header(data)
    request.check_frame(1)
    request.check_size(stated.width, stated.height)
    channels, metadata = jxl.read_metadata(data)
    header = Header("JXL", stated.width, stated.height, channels, stated.alpha, depth=stated.depth)

    def open_rows() -> FetchRows:
        samples = jxl.decode_jxl(data, stated, channels)
        samples = unpremultiply(samples) if stated.premultiplied else samples
        return lambda top, bottom: samples[top:bottom]

    return header, metadata, open_rows


def open_gif(request: OpenRequest) -> Opened:
    """Open one frame of a GIF as it is displayed, drawn over the frames before it."""
    structure = scan_gif(request.stream)
    request.check_frame(structure.frames)
    request.check_size(structure.width, structure.height)
    image = open_pillow_image(request.stream, "GIF")
    metadata = read_pillow_metadata(image)
    if structure.frames > 1:
        metadata = add_frame_timing(image, request.frame, metadata)
    header = Header("GIF", *image.size, 3, structure.transparent, frames=structure.frames)
    mode = "RGBA" if structure.transparent else "RGB"
    opener = make_pillow_opener(request.file, "GIF", request.frame, lambda image: np.asarray(image.convert(mode)))
    return header, metadata, opener


def open_with_pillow(request: OpenRequest) -> Opened:
    """Open one frame of a file that Pillow decodes to 8 bits. The whole frame is held in memory."""
    stream, format, frame = request.stream, request.format, request.frame
    image = open_pillow_image(stream, format)
    frames = int(getattr(image, "n_frames", 1))
    request.check_frame(frames)
    request.check_size(*image.size)
    orientation, metadata = read_orientation(image), read_pillow_metadata(image)
    if format == "PNG":
        orientation, metadata = scan_png(stream).build_metadata()
    if frames > 1:
        metadata = add_frame_timing(image, frame, metadata)
        image = open_pillow_image(stream, format)
    channels = 1 if image.mode in ("1", "L", "LA", "La") else 3
    size = size_upright(*image.size, orientation)
    header = Header(format, *size, channels, image.has_transparency_data, frames=frames)

    def read(picture: ImageFile.ImageFile) -> Samples:
        return match_channels(apply_orientation(read_array(picture), orientation), header)

    return header, metadata, make_pillow_opener(request.file, format, frame, read)


def add_frame_timing(image: ImageFile.ImageFile, frame: int, metadata: Metadata) -> Metadata:
    """Return the metadata with the duration of a frame and the loop count. Pillow knows them after decoding."""
    image.seek(frame)
    image.load()
    duration, loop = image.info.get("duration"), image.info.get("loop")
    duration = float(duration) if isinstance(duration, int | float) and duration >= 0 else None
    return replace(metadata, duration=duration, loop=loop if isinstance(loop, int) else None)


OPENERS: dict[str, Callable[[OpenRequest], Opened]] = {
    "PNG": open_png,
    "TIFF": open_tiff,
    "JPEG": open_jpeg,
    "AVIF": open_avif,
    "HEIC": open_heic,
    "GIF": open_gif,
    "JXL": open_jxl,
}
"""Formats that Pillow alone cannot read without loss."""


def open_pillow_image(stream: IO[bytes], format: str) -> ImageFile.ImageFile:
    """Open a file with Pillow without decoding it. Raises UnreadableImage."""
    stream.seek(0)
    try:
        return PLUGINS[format](stream, "")
    except (SyntaxError, OSError, ValueError) as error:
        found = f"damaged {FORMAT_NAMES[format]}, or a variant that cannot be read"
        raise UnreadableImage(f"{found} ({join_lines(error)})") from error


def size_upright(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return width and height after an EXIF orientation is applied."""
    return (width, height) if orientation < 5 else (height, width)


def make_vips_opener(
    file: Path | bytes,
    header: Header,
    orientation: int,
    page: int = 0,
    convert: str | None = None,
    convert_rows: Callable[[Samples], Samples] | None = None,
    patch: Patch | None = None,
) -> OpenRows:
    """Return an opener that reads rows with libvips.

    Upright pictures are read sequentially. Others are decoded first; above 100 MB they go to a temporary file.
    `convert` is a kind that `vips.to_srgb` knows. `convert_rows` is applied to each block.
    """

    def open_rows() -> FetchRows:
        image = vips.open_image(header.format, file, page=page, sequential=orientation == 1, patch=patch)
        image = vips.to_srgb(image, convert) if convert else image
        image = vips.turn_upright(image, orientation) if orientation != 1 else image
        channels = header.channels + header.alpha
        if (image.width, image.height, image.bands) != (header.width, header.height, channels):
            stated = f"its header states {header.width}×{header.height} px in {channels} channels"
            found = f"its pixels have {image.width}×{image.height} px in {image.bands}"
            raise UnreadableImage(f"damaged {FORMAT_NAMES[header.format]}: {stated}, {found}")
        fetch = vips.make_row_fetcher(image)
        return fetch if convert_rows is None else lambda top, bottom: convert_rows(fetch(top, bottom))

    return open_rows
