"""What of a file survives, per format and from each format to each other, as exiftool, libvips and ImageMagick see it.

    python -m benchmarks.roundtrip        # fills the tables of docs/formats.md; a minute

Needs the programs exiftool, vipsheader and identify. Every source holds all that its format can; exiftool writes what
stands beside the pixels and says turned by a quarter, so that nothing here is both written and read by our own code.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from PIL import Image, ImageCms

from benchmarks.memory import write_weights

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
START, END = "<!-- measured -->", "<!-- end -->"
FORMATS = {"PNG": ".png", "TIFF": ".tif", "JPEG": ".jpg", "WebP": ".webp", "AVIF": ".avif", "BMP": ".bmp"}
WIDTH, HEIGHT = 96, 64

EXIF = {
    "IFD0:Make": "Maker",
    "IFD0:Artist": "Somebody",
    "IFD0:Copyright": "Them",
    "ExifIFD:DateTimeOriginal": "2020:01:02 03:04:05",
    "ExifIFD:ExposureTime": 0.01,
    "ExifIFD:LensModel": "A lens",
    "ExifIFD:UserComment": "A remark",
    "GPS:GPSLatitude": 48.5,
    "GPS:GPSLatitudeRef": "N",
}
XMP = {"XMP-dc:Title": "A title", "XMP-dc:Subject": "keyword", "XMP-xmp:Rating": 4}
IPTC = {"IPTC:Keywords": "keyword", "IPTC:Caption-Abstract": "A caption"}
TEXT = {"PNG:Title": "A heading", "PNG:Author": "A writer"}
SIZES = {"ExifIFD:ExifImageWidth": WIDTH, "ExifIFD:ExifImageHeight": HEIGHT}

P3 = {
    b"rXYZ": (0.51512, 0.2412, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.1571, 0.06657, 0.78407),
}
"""Primaries of Display P3, relative to D50."""

ROWS = {
    "16 bits": ("PNG", "TIFF"),
    "transparency": ("PNG", "TIFF", "WebP", "AVIF"),
    "colour profile": ("PNG", "TIFF", "JPEG", "WebP", "AVIF"),
    "EXIF": ("PNG", "TIFF", "JPEG", "WebP", "AVIF"),
    "XMP": ("PNG", "TIFF", "JPEG", "WebP", "AVIF"),
    "IPTC": ("PNG", "TIFF", "JPEG"),
    "resolution": ("PNG", "TIFF", "JPEG", "WebP", "AVIF", "BMP"),
    "texts": ("PNG",),
    "comment": ("PNG", "JPEG"),
}
"""What a file may hold, and the formats that have a place for it."""
ALWAYS = {
    "turned upright, once": ("PNG", "TIFF", "JPEG", "WebP"),
    "size in EXIF is true": ("PNG", "TIFF", "JPEG", "WebP", "AVIF"),
    "thumbnail dropped": ("JPEG",),
    "note of what was done": ("PNG", "TIFF", "JPEG", "WebP", "AVIF"),
}
"""What must be right of a result, and for which sources or, of the note, results."""


def main() -> None:
    """Make, restore, ask, write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {format: make(folder, format) for format in FORMATS}
        write_weights(folder / "x1.safetensors", 1)
        found = {}
        for target in FORMATS:
            for source, path in restored(folder, sources, target).items():
                found[source, target] = held(sources[source], path, target)
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{START}\n\n{tables(found)}\n{END}{after}", encoding="utf-8")


def make(folder: Path, format: str) -> Path:
    """A file that holds all that its format can."""
    path = folder / "in" / f"{format.lower()}{FORMATS[format]}"
    path.parent.mkdir(exist_ok=True)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [x * 682, y * 1040, 32768 + 20000 * np.sin(x / 9 + y / 7), 65535 - x * 300]
    samples = np.stack(planes, 2).clip(0, 65535).astype(np.uint16)
    if "transparency" not in of(format):
        samples = samples[..., :3]
    if "16 bits" in of(format):
        image = pyvips.Image.new_from_array(samples).copy(interpretation="rgb16")
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile())
        image.write_to_file(str(path))
    else:
        options: dict[str, Any] = {"lossless": True} if format == "WebP" else {}
        options |= {"icc_profile": profile()} if "colour profile" in of(format) else {"dpi": (300, 300)}
        Image.fromarray((samples >> 8).astype(np.uint8)).save(path, **options)
    if format != "BMP":  # which exiftool does not write
        describe(folder, path, format)
    return path


def describe(folder: Path, path: Path, format: str) -> None:
    """What stands beside the pixels, by exiftool."""
    tags: dict[str, object] = {**EXIF, **SIZES, **XMP, **density("IFD0", 2)}
    tags |= IPTC if "IPTC" in of(format) else {}
    tags |= TEXT if "texts" in of(format) else {}
    if format == "PNG":
        per_metre = {"PNG-pHYs:PixelsPerUnitX": 11811, "PNG-pHYs:PixelsPerUnitY": 11811, "PNG-pHYs:PixelUnits": 1}
        tags |= {"PNG:Comment": "A comment", **per_metre}
    if format == "JPEG":
        tags |= {"File:Comment": "A comment", **density("JFIF", 1)}
        Image.new("RGB", (16, 16), "red").save(folder / "thumb.jpg")
        tags |= {"ThumbnailImage<": folder / "thumb.jpg"}
    tags |= {} if format == "AVIF" else {"IFD0:Orientation": 6}  # AVIF keeps that outside of EXIF
    given = [f"-{tag}={value}" for tag, value in tags.items()]
    subprocess.run(["exiftool", "-q", "-m", "-n", "-overwrite_original", *given, path], check=True)


def density(group: str, unit: int) -> dict[str, object]:
    """300 px per inch."""
    return {f"{group}:XResolution": 300, f"{group}:YResolution": 300, f"{group}:ResolutionUnit": unit}


def profile() -> bytes:
    """Little CMS's sRGB with the primaries of Display P3."""
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for place in range(132, 132 + 12 * struct.unpack_from(">I", icc, 128)[0], 12):
        name, start, _ = struct.unpack_from(">4sII", icc, place)
        if name in P3:
            struct.pack_into(">3i", icc, start + 8, *(round(value * 65536) for value in P3[name]))
    return bytes(icc)


def restored(folder: Path, sources: dict[str, Path], target: str) -> dict[str, Path]:
    """Every source through `restore denoise` into one format; transparency is dropped where that has none."""
    out = folder / f"out-{target.lower()}"
    drop = [] if "transparency" in of(target) else ["--alpha", "drop"]
    options: list[str | Path] = ["--weights", folder / "x1.safetensors", "--format", target.lower(), *drop]
    command = [sys.executable, "-m", "restore_cli", "denoise", "--device", "cpu", "--quiet", "-o", f"{out}/", *options]
    subprocess.run([*command, *sources.values()], check=True)
    return {format: out / f"{path.stem}{FORMATS[target]}" for format, path in sources.items()}


def held(source: Path, path: Path, target: str) -> dict[str, bool]:
    """Each property: whether the result has it."""
    old, new = said(source), said(path)
    wide, high, across, unit = answer("identify", "-format", "%w %h %x %U", f"{path}[0]").decode().split()
    density = float(across) * (2.54 if unit == "PixelsPerCentimeter" else 1)
    in_exif = float(str(new.get("IFD0:XResolution", 0)))
    width, height = int(wide), int(high)
    header = answer("vipsheader", path).decode()
    upright = (width, height) == ((WIDTH, HEIGHT) if source.suffix in (".avif", ".bmp") else (HEIGHT, WIDTH))
    return {
        "16 bits": " ushort, " in header,
        "transparency": " 4 bands, " in header,
        "colour profile": icc_of(path) == icc_of(source) != "",
        "EXIF": all(new.get(tag) == value for tag, value in EXIF.items()),
        "XMP": all(new.get(tag) == value for tag, value in XMP.items()),
        "IPTC": all(new.get(tag) == value for tag, value in IPTC.items()),
        "resolution": min(abs(density - 300), abs(in_exif - 300)) < 0.02,
        "texts": all(new.get(tag) == value for tag, value in TEXT.items()),
        "comment": "A comment" in (new.get("PNG:Comment"), new.get("File:Comment")),
        "turned upright, once": upright and new.get("IFD0:Orientation", 1) == 1,
        "size in EXIF is true": all(
            new.get(tag) == value for tag, value in zip(SIZES, (int(width), int(height)), strict=True)
        ),
        "thumbnail dropped": "IFD1:ThumbnailOffset" in old and not any("humbnail" in tag for tag in new),
        "note of what was done": "x1.safetensors" in path.read_bytes().decode("latin-1"),
    }


def answer(*command: str | Path) -> bytes:
    """What a program prints."""
    environment = dict(os.environ)  # without VIPSHOME, which pyvips sets past it and the program would believe
    return subprocess.run(command, capture_output=True, check=True, env=environment).stdout


def said(path: Path) -> dict[str, object]:
    """What exiftool reads."""
    found: dict[str, object] = json.loads(answer("exiftool", "-j", "-n", "-G1", path))[0]
    return found


def icc_of(path: Path) -> str:
    """A hash of the embedded profile, empty without one."""
    data = answer("exiftool", "-icc_profile", "-b", path)
    return hashlib.sha256(data).hexdigest() if data else ""


def of(format: str) -> list[str]:
    """The properties that a format has a place for."""
    return [name for name, formats in ROWS.items() if format in formats]


def tables(found: dict[tuple[str, str], dict[str, bool]]) -> str:
    """Per format, and from each to each."""
    rule = "|---|" + "---|" * len(FORMATS)
    lines = [f"| to the same format | {' | '.join(FORMATS)} |", rule]
    for name, formats in {**ROWS, **ALWAYS}.items():
        cells = [mark(found[format, format][name]) if format in formats else "–" for format in FORMATS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"| from ↓ to → | {' | '.join(FORMATS)} |", rule]
    for source in FORMATS:
        lines.append(f"| **{source}** | {' | '.join(passage(source, to, found[source, to]) for to in FORMATS)} |")
    return "\n".join([*lines, "", versions(), ""])


def mark(good: bool) -> str:
    """A cell."""
    return "yes" if good else "**no**"


def passage(source: str, target: str, found: dict[str, bool]) -> str:
    """How many of the properties that both formats hold arrived, and the names of those that did not."""
    both = [name for name in of(source) if name in of(target)]
    lost = [name for name in both if not found[name]]
    return f"{len(both) - len(lost)} of {len(both)}" + (f", **not {', '.join(lost)}**" if lost else "")


def versions() -> str:
    """The programs that were asked."""
    commands = {
        "exiftool": ["exiftool", "-ver"],
        "": ["vipsheader", "--version"],
        "ImageMagick": ["identify", "-version"],
    }
    texts = []
    for name, command in commands.items():
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        texts.append(f"{name} {said.removeprefix('Version: ImageMagick ').split(' Q')[0]}".strip())
    return f"Asked: {', '.join(texts)}."


if __name__ == "__main__":
    main()
