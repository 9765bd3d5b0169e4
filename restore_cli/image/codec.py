"""Files to pictures and back: 8-bit gray and RGB, with alpha and metadata, through Pillow.

What 8 bits of gray or RGB would damage (deeper files, CMYK, animations) is refused with the reason.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ImageFile, JpegImagePlugin, MpoImagePlugin

from restore_cli.atomic import atomic_write
from restore_cli.errors import ImageError, OutputError, RestoreError
from restore_cli.image.header import TITLES, Header, Unreadable, Unsupported, check, sniff
from restore_cli.image.jpeg import estimate_quality
from restore_cli.image.metadata import collect, orientation
from restore_cli.image.picture import Picture, Pixels
from restore_cli.image.pillow import OPENERS, held
from restore_cli.image.writers import HOLDS_ALPHA, LONGEST_SIDE, MOST_BYTES, serialise

__all__ = ["MAX_PIXELS", "SUFFIXES", "Header", "decode", "encode", "probe"]

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
MAX_PIXELS = 500_000_000  # a whole picture is held in memory: about 2 GB here, more in a model

_COMMANDS = {  # of ImageMagick, that make a readable copy: what the copy's name gets, and how
    "depth": ("-8bit", "magick {0} -depth 8 {1}"),
    "colour": ("-rgb", "magick {0} -colorspace sRGB {1}"),
    "frame": ("-first", "magick {0}'[0]' {1}"),
    "kind": ("-converted", "magick {0} {1}"),
}
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"}
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {  # EXIF orientation -> upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def decode(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a file, upright. The content decides the format, not the name. Raises ImageError."""
    with _opened(path, max_pixels) as image:
        image.load()
        turn, metadata = _TURNS[orientation(image)], collect(image)
        pixels, alpha = _planes(image)
        return Picture(
            np.array(turn(pixels), order="C"),
            None if alpha is None else np.array(turn(alpha), order="C"),
            metadata,
            _format(image),
            _quality(image),
            _subsampling(image),
        )


def probe(path: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS) -> Header:
    """What `decode` would give, without decoding pixels; damage behind the header is not found. Raises ImageError."""
    with _opened(path, max_pixels, verify=False) as image:
        width, height = image.size if orientation(image) < 5 else image.size[::-1]
        channels = 1 if image.mode in ("1", "L", "LA", "La") else 3
        alpha = image.has_transparency_data
        return Header(_format(image), width, height, channels, alpha, _quality(image), _subsampling(image))


def encode(picture: Picture, path: Path, *, format: str | None = None) -> None:
    """Writes `path` whole or not at all, as `format` (a value of SUFFIXES) or as its suffix says. Raises OutputError.

    PNG, TIFF (deflate), BMP and WebP are lossless; JPEG is quality 95, AVIF quality 90, both 4:4:4.
    """
    format = format or _format_of(path)
    if format not in TITLES:
        raise ValueError(f"format {format!r} is none of {', '.join(TITLES)}")
    _refuse(picture, path, format)
    try:
        with held():
            data = serialise(picture, format)
    except MemoryError as error:
        raise OutputError(f"{path}: not enough memory to write {picture.width}×{picture.height} px") from error
    except Exception as error:  # Pillow's writers raise whatever their library says
        raise OutputError(f"{path}: cannot be written as {TITLES[format]} ({_line(error)})") from error
    with atomic_write(path) as file:
        file.write(data)


def _format_of(path: Path) -> str:
    if format := SUFFIXES.get(path.suffix.lower()):
        return format
    named = f"the suffix {path.suffix!r} names no format" if path.suffix else "the name has no suffix"
    raise OutputError(f"{path}: {named}; known are {' '.join(SUFFIXES)}", f"-o {shlex.quote(str(path))}.png")


def _refuse(picture: Picture, path: Path, format: str) -> None:
    """Says what the format cannot hold, before work is done."""
    instead = f"-o {shlex.quote(str(path.with_suffix('.png')))}"
    side, size = LONGEST_SIDE.get(format), MOST_BYTES.get(format)
    if not picture.opaque and format not in HOLDS_ALPHA:
        holders = ", ".join(TITLES[name] for name in HOLDS_ALPHA)
        raise OutputError(
            f"{path}: {TITLES[format]} holds no transparency, this picture has some; {holders} do", instead
        )
    if side and max(picture.width, picture.height) > side:
        found = f"{picture.width}×{picture.height} px"
        raise OutputError(f"{path}: {found}, {TITLES[format]} holds at most {side} px a side", instead)
    if size and picture.pixels.nbytes // picture.channels * (picture.channels + 1) > size:
        raise OutputError(f"{path}: {picture.width}×{picture.height} px do not fit into a 4 GiB file", instead)


@contextmanager
def _opened(path: Path | IO[bytes], max_pixels: int, *, verify: bool = True) -> Iterator[ImageFile.ImageFile]:
    """The file's one image, checked and not yet loaded; anything that goes wrong meanwhile is an ImageError."""
    name = str(path) if isinstance(path, Path) else str(getattr(path, "name", "image"))
    try:
        with _stream(path) as stream, held():
            yield _first_image(stream, max_pixels, verify)
    except RestoreError:
        raise
    except Unreadable as error:
        raise ImageError(f"{name}: {error}") from error
    except Unsupported as error:
        raise ImageError(f"{name}: {error.what}", _command(error.step, name)) from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to hold its pixels") from error
    except OSError as error:
        raise ImageError(f"{name}: {_reason(error)}") from error
    except Exception as error:  # Pillow's parsers raise whatever the bytes lead them to
        raise ImageError(f"{name}: damaged, or of a kind that cannot be read ({_line(error)})") from error


@contextmanager
def _stream(path: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """A seekable stream of the file, closed after if it was opened here."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            yield file if file.seekable() else BytesIO(file.read())
    else:
        yield path if path.seekable() else BytesIO(path.read())


def _first_image(stream: IO[bytes], max_pixels: int, verify: bool) -> ImageFile.ImageFile:
    head = _start(stream)
    format = sniff(head)
    check(stream, format)
    image = _open(stream, format)
    width, height = image.size
    if width * height > max_pixels:
        raise Unreadable(f"claims {width}×{height} px, the limit is {max_pixels:_} px".replace("_", ","))
    _refuse_kind(image)
    if format == "PNG":
        if verify:  # checksums, which Pillow leaves alone unless asked; being asked ends the image's use
            image.verify()
            image = _open(stream, format)
        _widen_key(image, bits=head[24])
    return image


def _start(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    head = stream.read(32)
    if not head:
        raise Unreadable("an empty file, 0 bytes")
    return head


def _open(stream: IO[bytes], format: str) -> ImageFile.ImageFile:
    stream.seek(0)
    try:
        return OPENERS[format](stream, "")
    except (SyntaxError, OSError, ValueError) as error:
        raise Unreadable(f"damaged {TITLES[format]}, or of a kind that cannot be read ({_line(error)})") from error


def _widen_key(image: ImageFile.ImageFile, bits: int) -> None:
    """Pillow widens 2- and 4-bit gray to 8 bits, but not the one transparent gray that may stand beside it."""
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * (255 // (2**bits - 1))


def _refuse_kind(image: ImageFile.ImageFile) -> None:
    """One picture of a kind that fits into 8 bits of gray or RGB, or an error."""
    if isinstance(image, MpoImagePlugin.MpoImageFile):
        # Cameras hide a preview behind the photograph, phones a gain map: the photograph is the first. A stereo pair
        # or a panorama is several pictures.
        entries = (image.mpinfo or {}).get(0xB002, [])
        if any(str(entry["Attribute"]["MPType"]).startswith("Multi-Frame") for entry in entries):
            raise Unsupported(f"holds {len(entries)} pictures, one is supported so far", "frame")
    elif (frames := getattr(image, "n_frames", 1)) > 1:
        raise Unsupported(
            f"holds {frames} {'pages' if image.format == 'TIFF' else 'frames'}, one is supported so far", "frame"
        )
    if image.mode not in _MODES:
        step = "colour" if image.mode == "CMYK" else "depth"
        raise Unsupported(f"{image.mode} pixels, 8-bit gray and RGB are supported so far", step)


def _planes(image: ImageFile.ImageFile) -> tuple[Pixels, Pixels | None]:
    """(h, w, 1 or 3) and alpha (h, w), where the file has one: as a channel, in its palette, or as one clear colour."""
    clear = image.info.pop("transparency", None) if image.mode in ("1", "L", "RGB") else None
    palette = "RGBA" if image.has_transparency_data else "RGB"
    mode = {"1": "L", "La": "LA", "P": palette, "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}.get(image.mode, image.mode)
    samples = np.atleast_3d(np.asarray(image if mode == image.mode else image.convert(mode)))
    if mode in ("LA", "RGBA"):
        return samples[:, :, :-1], samples[:, :, -1]
    if clear is None:
        return samples, None
    return samples, np.where(np.all(samples == np.asarray(clear), axis=2), 0, 255).astype(np.uint8)


def _format(image: ImageFile.ImageFile) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)


def _quality(image: ImageFile.ImageFile) -> int | None:
    return estimate_quality(image.quantization) if isinstance(image, JpegImagePlugin.JpegImageFile) else None


def _subsampling(image: ImageFile.ImageFile) -> str | None:
    return _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image))


def _reason(error: OSError) -> str:
    known = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "is a folder, not an image",
        PermissionError: "no permission to read it",
    }
    return known.get(type(error)) or error.strerror or f"damaged ({_line(error)})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _command(step: str, name: str) -> str:
    addition, command = _COMMANDS[step]
    copy = Path(name).with_suffix("").name + addition + ".png"
    return command.format(shlex.quote(name), shlex.quote(copy))
