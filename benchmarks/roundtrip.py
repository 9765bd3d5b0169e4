"""Checks what each format keeps, and what is kept between formats, with exiftool, libvips and ImageMagick.

    python -m benchmarks.roundtrip        # fills the tables of docs/formats.md; a minute

It needs the programs exiftool, vipsheader and identify. Every source holds everything that its format can hold.
exiftool writes the metadata and an orientation of a quarter turn, so our own code does not check itself.
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
"""Properties of a file, and the formats that can store them."""
ALWAYS = {
    "turned upright, once": ("PNG", "TIFF", "JPEG", "WebP"),
    "size in EXIF is true": ("PNG", "TIFF", "JPEG", "WebP", "AVIF"),
    "thumbnail dropped": ("JPEG",),
    "note of what was done": ("PNG", "TIFF", "JPEG", "WebP", "AVIF"),
}
"""Properties that every result must have, and the source formats (for the note: output formats) that are checked."""


def main() -> None:
    """Make a source per format, restore each into each format, check the results and write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {format: make_source(folder, format) for format in FORMATS}
        write_weights(folder / "x1.safetensors", 1)
        found = {}
        for target in FORMATS:
            for source, path in restore_all(folder, sources, target).items():
                found[source, target] = check_properties(sources[source], path, target)
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{START}\n\n{make_tables(found)}\n{END}{after}", encoding="utf-8")


def make_source(folder: Path, format: str) -> Path:
    """Write a file that holds everything that its format can hold."""
    path = folder / "in" / f"{format.lower()}{FORMATS[format]}"
    path.parent.mkdir(exist_ok=True)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [x * 682, y * 1040, 32768 + 20000 * np.sin(x / 9 + y / 7), 65535 - x * 300]
    samples = np.stack(planes, 2).clip(0, 65535).astype(np.uint16)
    if "transparency" not in list_properties(format):
        samples = samples[..., :3]
    if "16 bits" in list_properties(format):
        image = pyvips.Image.new_from_array(samples).copy(interpretation="rgb16")
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", make_profile())
        image.write_to_file(str(path))
    else:
        options: dict[str, Any] = {"lossless": True} if format == "WebP" else {}
        options |= (
            {"icc_profile": make_profile()} if "colour profile" in list_properties(format) else {"dpi": (300, 300)}
        )
        Image.fromarray((samples >> 8).astype(np.uint8)).save(path, **options)
    if format != "BMP":  # exiftool does not write BMP
        write_metadata(folder, path, format)
    return path


def write_metadata(folder: Path, path: Path, format: str) -> None:
    """Add metadata with exiftool."""
    tags: dict[str, object] = {**EXIF, **SIZES, **XMP, **make_density("IFD0", 2)}
    tags |= IPTC if "IPTC" in list_properties(format) else {}
    tags |= TEXT if "texts" in list_properties(format) else {}
    if format == "PNG":
        per_metre = {"PNG-pHYs:PixelsPerUnitX": 11811, "PNG-pHYs:PixelsPerUnitY": 11811, "PNG-pHYs:PixelUnits": 1}
        tags |= {"PNG:Comment": "A comment", **per_metre}
    if format == "JPEG":
        tags |= {"File:Comment": "A comment", **make_density("JFIF", 1)}
        Image.new("RGB", (16, 16), "red").save(folder / "thumb.jpg")
        tags |= {"ThumbnailImage<": folder / "thumb.jpg"}
    tags |= {} if format == "AVIF" else {"IFD0:Orientation": 6}  # AVIF stores the orientation outside of EXIF
    given = [f"-{tag}={value}" for tag, value in tags.items()]
    subprocess.run(["exiftool", "-q", "-m", "-n", "-overwrite_original", *given, path], check=True)


def make_density(group: str, unit: int) -> dict[str, object]:
    """Return the tags for 300 px per inch."""
    return {f"{group}:XResolution": 300, f"{group}:YResolution": 300, f"{group}:ResolutionUnit": unit}


def make_profile() -> bytes:
    """Return Little CMS's sRGB profile with the primaries of Display P3."""
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for place in range(132, 132 + 12 * struct.unpack_from(">I", icc, 128)[0], 12):
        name, start, _ = struct.unpack_from(">4sII", icc, place)
        if name in P3:
            struct.pack_into(">3i", icc, start + 8, *(round(value * 65536) for value in P3[name]))
    return bytes(icc)


def restore_all(folder: Path, sources: dict[str, Path], target: str) -> dict[str, Path]:
    """Restore every source into one format with `restore denoise`. Alpha is dropped if the format has none."""
    out = folder / f"out-{target.lower()}"
    drop = [] if "transparency" in list_properties(target) else ["--alpha", "drop"]
    options: list[str | Path] = ["--weights", folder / "x1.safetensors", "--format", target.lower(), *drop]
    command = [sys.executable, "-m", "restore_cli", "denoise", "--device", "cpu", "--quiet", "-o", f"{out}/", *options]
    subprocess.run([*command, *sources.values()], check=True)
    return {format: out / f"{path.stem}{FORMATS[target]}" for format, path in sources.items()}


def check_properties(source: Path, path: Path, target: str) -> dict[str, bool]:
    """Return whether the result has each property."""
    old, new = read_tags(source), read_tags(path)
    wide, high, across, unit = run_program("identify", "-format", "%w %h %x %U", f"{path}[0]").decode().split()
    density = float(across) * (2.54 if unit == "PixelsPerCentimeter" else 1)
    in_exif = float(str(new.get("IFD0:XResolution", 0)))
    width, height = int(wide), int(high)
    header = run_program("vipsheader", path).decode()
    upright = (width, height) == ((WIDTH, HEIGHT) if source.suffix in (".avif", ".bmp") else (HEIGHT, WIDTH))
    return {
        "16 bits": " ushort, " in header,
        "transparency": " 4 bands, " in header,
        "colour profile": hash_profile(path) == hash_profile(source) != "",
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


def run_program(*command: str | Path) -> bytes:
    """Return the standard output of a program."""
    environment = dict(
        os.environ
    )  # lacks the VIPSHOME that pyvips sets for this process, which would mislead vipsheader
    return subprocess.run(command, capture_output=True, check=True, env=environment).stdout


def read_tags(path: Path) -> dict[str, object]:
    """Return the tags that exiftool reads."""
    found: dict[str, object] = json.loads(run_program("exiftool", "-j", "-n", "-G1", path))[0]
    return found


def hash_profile(path: Path) -> str:
    """Return a hash of the embedded profile, or an empty text without one."""
    data = run_program("exiftool", "-icc_profile", "-b", path)
    return hashlib.sha256(data).hexdigest() if data else ""


def list_properties(format: str) -> list[str]:
    """Return the properties that a format can store."""
    return [name for name, formats in ROWS.items() if format in formats]


def make_tables(found: dict[tuple[str, str], dict[str, bool]]) -> str:
    """Return the table per format and the table from each format to each other."""
    rule = "|---|" + "---|" * len(FORMATS)
    lines = [f"| to the same format | {' | '.join(FORMATS)} |", rule]
    for name, formats in {**ROWS, **ALWAYS}.items():
        cells = [format_cell(found[format, format][name]) if format in formats else "–" for format in FORMATS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"| from ↓ to → | {' | '.join(FORMATS)} |", rule]
    for source in FORMATS:
        lines.append(
            f"| **{source}** | {' | '.join(format_transfer(source, to, found[source, to]) for to in FORMATS)} |"
        )
    return "\n".join([*lines, "", list_versions(), ""])


def format_cell(good: bool) -> str:
    return "yes" if good else "**no**"


def format_transfer(source: str, target: str, found: dict[str, bool]) -> str:
    """Return how many of the properties that both formats can store were kept, and the names of the others."""
    both = [name for name in list_properties(source) if name in list_properties(target)]
    lost = [name for name in both if not found[name]]
    return f"{len(both) - len(lost)} of {len(both)}" + (f", **not {', '.join(lost)}**" if lost else "")


def list_versions() -> str:
    """Return a line with the versions of the programs."""
    commands = {
        "exiftool": ["exiftool", "-ver"],
        "": ["vipsheader", "--version"],
        "ImageMagick": ["identify", "-version"],
    }
    texts = []
    for name, command in commands.items():
        version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        texts.append(f"{name} {version.removeprefix('Version: ImageMagick ').split(' Q')[0]}".strip())
    return f"Checked with {', '.join(texts)}."


if __name__ == "__main__":
    main()
