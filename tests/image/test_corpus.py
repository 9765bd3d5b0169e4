"""Unusual files are decoded correctly, and each damaged file gives one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import Run
from corpus import good, smooth, write_bad, write_good

from restore_cli.image.codec import decode
from restore_cli.image.picture import Picture, Samples


def joined(picture: Picture) -> Samples:
    """Return colours and alpha in one array."""
    return picture.pixels if picture.alpha is None else np.concatenate([picture.pixels, picture.alpha[..., None]], 2)


@pytest.mark.parametrize("name", good())
def test_unusual_files_are_decoded_correctly(tmp_path: Path, name: str) -> None:
    make, held = good()[name]
    (tmp_path / name).write_bytes(make())
    found = joined(decode(tmp_path / name))
    if held is None:
        values = found / (255 if found.dtype == np.uint8 else 65535)
        off = np.abs(values - smooth(40, 56) / 255).mean()
        assert off < (0.12 if "cmyk" in name else 0.02)  # CMYK inks cannot make pure blue or pure green
    else:
        assert found.dtype == held.dtype
        assert np.array_equal(found, held)


@pytest.mark.needs("resource")
def test_false_sizes_allocate_no_memory(tmp_path: Path) -> None:
    names = [name for name in write_bad(tmp_path) if name.startswith("bomb")]
    code = """
import sys, resource
from pathlib import Path
from restore_cli.errors import ImageError
from restore_cli.image.codec import decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        decode(Path(name))
    except ImageError:
        continue
    raise SystemExit(name + " is a picture")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown // 1024)
"""
    ran = subprocess.run([sys.executable, "-c", code, *names], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(names) == 9
    assert int(ran.stdout) < 300, f"{ran.stdout} MiB"


def test_folder_of_unusual_and_damaged_files(restore: Run, x2: Path) -> None:
    Path("good").mkdir()
    Path("bad").mkdir()
    sound, damaged = write_good(Path("good")), write_bad(Path("bad"))
    ran = restore("sr", "--weights", x2, "good", "bad", "-o", "out/")
    lines = [line for line in ran.err.splitlines() if line.startswith("restore: ")]
    assert ran.code == 1
    assert len(lines) == len(damaged), ran.err
    for name in damaged:
        assert sum(f"{name}: " in line for line in lines) == 1, (name, ran.err)
    assert len(list(Path("out").glob("[!.]*"))) == len(sound)
