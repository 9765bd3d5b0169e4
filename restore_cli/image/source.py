"""Files opened for reading: what one says of itself at once, its rows as often as they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import IO

import numpy as np
import pyvips
from PIL import ImageFile, JpegImagePlugin

from restore_cli.errors import ImageError, RestoreError
from restore_cli.image.formats import heic, vips
from restore_cli.image.formats.capabilities import FORMAT_NAMES
from restore_cli.image.formats.jpeg import check_progressive_length, count_stereo_frames, estimate_quality
from restore_cli.image.formats.patched import Patch
from restore_cli.image.formats.pillow import OPENERS, apply_orientation, match_channels, pillow_settings, read_array
from restore_cli.image.formats.png import scan_png
from restore_cli.image.formats.samples import unpremultiply, widen_to_16_bits
from restore_cli.image.formats.sniff import clear_premultiplied_flag, detect_format, read_avif_depth, read_nclx
from restore_cli.image.formats.tiff_reader import (
    CMYK,
    LAB,
    PHOTOMETRIC,
    YCBCR,
    make_alpha_patch,
    read_page_metadata,
    read_pages,
)
from restore_cli.image.metadata.collect import build_metadata, read_orientation, read_pillow_metadata
from restore_cli.image.picture import Header, Metadata, Samples
from restore_cli.image.reasons import UnreadableImage, UnsupportedImage, describe_os_error, join_lines, suggest_command
from restore_cli.image.rows import FetchRows, RowReader, read_blocks

__all__ = ["MAX_PIXELS", "PictureSource", "open_source"]

MAX_PIXELS = 2_000_000_000
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
OpenRows = Callable[[], FetchRows]


@dataclass(frozen=True)
class PictureSource:
    """One picture of a file. Its rows are (n, w, c), upright, alpha last and not multiplied into the colours."""

    name: str
    header: Header
    metadata: Metadata
    opener: OpenRows

    def rows(self) -> RowReader:
        """A fresh stream of its rows; what is damaged behind the header is an ImageError when it is reached."""
        with raise_image_errors(self.name):
            fetch = self.opener()

        def guarded(top: int, bottom: int) -> Samples:
            with raise_image_errors(self.name):
                return fetch(top, bottom)

        return RowReader(guarded, self.header.height, self.header.width)

    @property
    def nbytes(self) -> int:
        """Of all its samples, decoded."""
        return (
            self.header.width * self.header.height * (self.header.channels + self.header.alpha) * self.header.depth // 8
        )

    def decoded(self) -> PictureSource:
        """The same with all its rows in memory. Raises ImageError."""
        parts = list(read_blocks(self.rows(), self.header.width * 4))
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return replace(self, opener=lambda: lambda top, bottom: samples[top:bottom])


def open_source(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> PictureSource:
    """What a file holds; pixels are not decoded yet. Content decides the format, not the name. Raises ImageError."""
    name = str(path) if isinstance(path, Path) else str(getattr(path, "name", "image"))
    with raise_image_errors(name), pillow_settings():
        file = path if isinstance(path, Path) and S_ISREG(path.stat().st_mode) else read_all(path)
        with file.open("rb") if isinstance(file, Path) else BytesIO(file) as stream:
            head = stream.read(32)
            if not head:
                raise UnreadableImage("an empty file, 0 bytes")
            format = detect_format(head)
            header, metadata, opener = FORMATS.get(format, open_with_pillow)(stream, file, format, frame, max_pixels)
    return PictureSource(name, header, metadata, opener)


def read_all(path: Path | IO[bytes]) -> bytes:
    """All of a stream, or of a pipe, which can be read but once."""
    if isinstance(path, Path):
        return path.read_bytes()
    if path.seekable():
        path.seek(0)
    return path.read()


@contextmanager
def raise_image_errors(name: str) -> Iterator[None]:
    """Anything that goes wrong meanwhile is an ImageError of one line."""
    try:
        yield
    except RestoreError:
        raise
    except UnreadableImage as error:
        raise ImageError(f"{name}: {error}") from error
    except UnsupportedImage as error:
        raise ImageError(f"{name}: {error.what}", suggest_command(error.step, name)) from error
    except pyvips.Error as error:
        raise ImageError(f"{name}: {vips.describe_error(error)}") from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to hold its pixels") from error
    except OSError as error:
        raise ImageError(f"{name}: {describe_os_error(error)}") from error
    except Exception as error:  # parsers raise whatever the bytes lead them to
        raise ImageError(f"{name}: damaged, or of a kind that cannot be read ({join_lines(error)})") from error


Found = tuple[Header, Metadata, OpenRows]


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Unreadable for a header that claims more than is allowed: before any memory is asked for."""
    if width < 1 or height < 1:
        raise UnreadableImage(f"damaged: it claims {width}×{height} px")
    if width * height > max_pixels:
        claim = f"claims {width}×{height} px, the limit is {max_pixels:_} px".replace("_", ",")
        raise UnsupportedImage(claim, f"--max-pixels {width * height}")


def open_png(stream: IO[bytes], file: Path | bytes, format: str, frame: int, max_pixels: int) -> Found:
    """PNG: chunks by our own reader, pixels by libvips; the frames of an animation by Pillow."""
    check_size(*read_png_size(stream), max_pixels)
    facts = scan_png(stream)
    if facts.frames > 1 and facts.bits <= 8:
        return open_with_pillow(stream, file, format, frame, max_pixels)
    check_frame(frame, 1)
    turn, metadata = facts.metadata()
    metadata = replace(metadata, png=facts.colours)
    depth = 16 if facts.bits == 16 else 8
    header = Header("PNG", *size_upright(facts.width, facts.height, turn), facts.channels, facts.alpha, depth=depth)
    return header, metadata, make_vips_opener("PNG", file, header, turn)


def read_png_size(stream: IO[bytes]) -> tuple[int, int]:
    """Width and height as claimed: checked before the file is read to its end."""
    stream.seek(0)
    head = stream.read(24)
    if len(head) < 24:
        raise UnreadableImage("damaged PNG: it ends in its header")
    return max(1, int.from_bytes(head[16:20], "big")), max(1, int.from_bytes(head[20:24], "big"))


def open_tiff(stream: IO[bytes], file: Path | bytes, format: str, frame: int, max_pixels: int) -> Found:
    """TIFF: directories by Pillow's reader, pixels by libtiff."""
    pages = read_pages(stream)
    check_frame(frame, len(pages))
    page = pages[frame]
    width, height = page.number(256, 0), page.number(257, 0)
    check_size(width, height, max_pixels)
    turn, metadata = read_page_metadata(page, stream)
    photometric = page.number(PHOTOMETRIC, 0)
    header = Header(
        "TIFF",
        *size_upright(width, height, turn),
        page.channels,
        page.alpha is not None,
        depth=page.depth,
        frames=len(pages),
    )
    if photometric == LAB and page.depth == 8:  # which libvips fails to read
        return header, metadata, make_lab_opener(file, page.index)
    convert = {CMYK: "cmyk", YCBCR: "opaque", LAB: "lab"}.get(photometric)
    patch = make_alpha_patch(page, stream)
    return header, metadata, make_vips_opener("TIFF", file, header, turn, page.index, convert, page.finish, patch)


def make_lab_opener(file: Path | bytes, frame: int) -> OpenRows:
    """8-bit Lab, read whole by Pillow, which turns it upright, and brought to 16-bit sRGB."""

    def opener() -> FetchRows:
        with pillow_settings(), file.open("rb") if isinstance(file, Path) else BytesIO(file) as stream:
            image = open_pillow_image(stream, "TIFF")
            image.seek(frame)
            image.load()
            return vips.make_row_fetcher(vips.lab_to_srgb(np.asarray(image)))

    return opener


def open_jpeg(stream: IO[bytes], file: Path | bytes, format: str, frame: int, max_pixels: int) -> Found:
    """JPEG: markers by Pillow, pixels by libvips, which says what libjpeg only warns of."""
    image = open_pillow_image(stream, format)
    frames = count_stereo_frames(image)
    if frames > 1:
        return open_with_pillow(stream, file, format, frame, max_pixels)
    check_frame(frame, 1)
    check_size(*image.size, max_pixels)
    if "progressive" in image.info:
        check_progressive_length(stream, *image.size)
    turn, metadata = read_orientation(image), read_pillow_metadata(image)
    cmyk = image.mode == "CMYK"
    header = Header(
        "JPEG",
        *size_upright(*image.size, turn),
        1 if image.mode == "L" else 3,
        False,
        estimate_quality(image.quantization) if isinstance(image, JpegImagePlugin.JpegImageFile) else None,
        _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image)),
    )
    metadata = replace(metadata, icc=None) if cmyk else metadata
    return header, metadata, make_vips_opener("JPEG", file, header, turn, convert="cmyk" if cmyk else None)


def of_webp(stream: IO[bytes], file: Path | bytes, format: str, frame: int, max_pixels: int) -> Found:
    """WebP and AVIF: containers by Pillow; pixels of deep AVIF by libvips."""
    if format == "AVIF":
        stream.seek(0)
        data = stream.read()
        if (bits := read_avif_depth(data)) > 8:
            header, metadata, opener = open_deep_avif(stream, data, bits, frame, max_pixels)
        else:
            header, metadata, opener = open_with_pillow(stream, file, format, frame, max_pixels)
        return header, add_nclx(metadata, data), opener
    return open_with_pillow(stream, file, format, frame, max_pixels)


def add_nclx(metadata: Metadata, data: bytes) -> Metadata:
    """With what the container says of colours by number, where it embeds no profile."""
    code = read_nclx(data) if metadata.icc is None else None
    found = replace(metadata, png={b"cICP": code} if code else {})
    return found if found.foreign_code else metadata


def open_deep_avif(stream: IO[bytes], data: bytes, bits: int, frame: int, max_pixels: int) -> Found:
    """10 and 12 bits, widened to 16, upright. Colours that transparency was multiplied into are divided here only."""
    check_frame(frame, 1)
    image = open_pillow_image(stream, "AVIF")
    check_size(*image.size, max_pixels)
    metadata = read_pillow_metadata(image)
    plain = clear_premultiplied_flag(data)
    premultiplied = plain != data
    pixels = vips.open_image("AVIF", plain)
    channels, alpha = (1 if pixels.bands < 3 else 3), pixels.bands in (2, 4)
    header = Header("AVIF", pixels.width, pixels.height, channels, alpha, depth=16)

    def finish(rows: Samples) -> Samples:
        rows = widen_to_16_bits(rows >> (16 - bits), bits)  # libheif fills up with zeros: white would not be white
        return unpremultiply(rows) if premultiplied else rows

    return header, metadata, make_vips_opener("AVIF", plain, header, 1, finish=finish)


def open_heic(stream: IO[bytes], file: Path | bytes, format: str, frame: int, max_pixels: int) -> Found:
    """One picture of a HEIC file; it is held whole."""
    data = file.read_bytes() if isinstance(file, Path) else file
    pictures = heic.read_pictures(data)
    check_frame(frame, len(pictures))
    image = pictures[frame]
    (width, height), info = image.size, heic.read_info(image)
    check_size(width, height, max_pixels)
    _, metadata = build_metadata(info.get("icc_profile"), info.get("exif"), info.get("xmp"), None, {}, None)
    channels, depth = (1 if image.mode.startswith(("L", "I")) else 3), 16 if info["bit_depth"] > 8 else 8
    header = Header("HEIC", width, height, channels, image.has_alpha, depth=depth, frames=len(pictures))

    def opener() -> FetchRows:
        picture = heic.read_pictures(data)[frame]
        samples = heic.read_samples(picture)
        samples = unpremultiply(samples) if picture.premultiplied_alpha else samples
        return lambda top, bottom: samples[top:bottom]

    return header, add_nclx(metadata, data), opener


def open_with_pillow(stream: IO[bytes], file: Path | bytes, format: str, frame: int, max_pixels: int) -> Found:
    """One frame of anything that Pillow reads in 8 bits; it is held whole."""
    image = open_pillow_image(stream, format)
    frames = int(getattr(image, "n_frames", 1))
    check_frame(frame, frames)
    check_size(*image.size, max_pixels)
    turn, metadata = read_orientation(image), read_pillow_metadata(image)
    if format == "PNG":
        facts = scan_png(stream)
        turn, metadata = facts.metadata()
    if frames > 1:
        metadata = add_frame_timing(image, frame, metadata)
        image = open_pillow_image(stream, format)
    channels = 1 if image.mode in ("1", "L", "LA", "La") else 3
    alpha = image.has_transparency_data
    size = size_upright(*image.size, turn)
    header = Header("JPEG" if format == "JPEG" else format, *size, channels, alpha, frames=frames)

    def opener() -> FetchRows:
        with pillow_settings(), file.open("rb") if isinstance(file, Path) else BytesIO(file) as again:
            picture = open_pillow_image(again, format)
            picture.seek(frame)
            picture.load()
            samples = match_channels(apply_orientation(read_array(picture), turn), header)
        return lambda top, bottom: samples[top:bottom]

    return header, metadata, opener


def add_frame_timing(image: ImageFile.ImageFile, frame: int, metadata: Metadata) -> Metadata:
    """How long a frame is shown, which is known once it is decoded."""
    image.seek(frame)
    image.load()
    duration, loop = image.info.get("duration"), image.info.get("loop")
    return replace(
        metadata,
        duration=float(duration) if isinstance(duration, int | float) and duration >= 0 else None,
        loop=loop if isinstance(loop, int) else None,
    )


FORMATS: dict[str, Callable[[IO[bytes], Path | bytes, str, int, int], Found]] = {
    "PNG": open_png,
    "TIFF": open_tiff,
    "JPEG": open_jpeg,
    "WEBP": of_webp,
    "AVIF": of_webp,
    "HEIC": open_heic,
}


def open_pillow_image(stream: IO[bytes], format: str) -> ImageFile.ImageFile:
    """The file as Pillow sees it, not yet decoded."""
    stream.seek(0)
    try:
        return OPENERS[format](stream, "")
    except (SyntaxError, OSError, ValueError) as error:
        raise UnreadableImage(
            f"damaged {FORMAT_NAMES[format]}, or of a kind that cannot be read ({join_lines(error)})"
        ) from error


def check_frame(frame: int, frames: int) -> None:
    """Frames are counted from 0 here, from 1 by people."""
    if frame >= frames:
        raise UnsupportedImage(
            f"holds {frames} picture{'s' if frames > 1 else ''}, --frame {frame + 1} is not there", ""
        )


def size_upright(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height after orientation."""
    return (width, height) if orientation < 5 else (height, width)


def make_vips_opener(
    format: str,
    file: Path | bytes,
    header: Header,
    orientation: int,
    page: int = 0,
    convert: str | None = None,
    finish: Callable[[Samples], Samples] | None = None,
    patch: Patch | None = None,
) -> OpenRows:
    """Rows in the order of the file; a turned picture is unpacked first, beyond 100 MB into a temporary file."""

    def opener() -> FetchRows:
        image = vips.open_image(format, file, page=page, sequential=orientation == 1, patch=patch)
        image = vips.to_srgb(image, convert) if convert else image
        image = vips.turn_upright(image, orientation) if orientation != 1 else image
        channels = header.channels + header.alpha
        if (image.width, image.height, image.bands) != (header.width, header.height, channels):
            found = f"{image.width}×{image.height} px in {image.bands} channels"
            expected = f"{header.width}×{header.height} px in {channels}"
            raise UnreadableImage(f"damaged {FORMAT_NAMES[format]}: its header says {expected}, its pixels are {found}")
        fetch = vips.make_row_fetcher(image)
        return fetch if finish is None else lambda top, bottom: finish(fetch(top, bottom))

    return opener
