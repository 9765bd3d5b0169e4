"""Makes the bundled EMT checkpoints from the authors' files: `python -m training.convert_emt EMT_LSR_x2.pth …`.

The tensors keep their published names. Buffers that restore computes are left out, the rest is rounded to float16
(docs/decisions/047-emt-ships.md). The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from pathlib import Path

from restore_cli.errors import UsageError
from restore_cli.models.load import COMPUTED_KEYS, drop_keys, find_state_dict, read_tensors
from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.entry import Entry
from restore_cli.weights.store import BUNDLED
from training.export import in_float16, serialize, write_file

__all__ = ["convert", "main"]


def convert(file: Path) -> tuple[Entry, bytes]:
    """Return the catalogue entry made from a published EMT file, and the bytes of its bundled checkpoint.

    Raises UsageError if the sha256 of the file is not the origin of any entry.
    """
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    for entry in read_catalogue().entries:
        if entry.origin is not None and entry.origin.sha256 == sha256:
            break
    else:
        raise UsageError(f"{file}: its sha256 {sha256[:12]}… is not the origin of any entry in weights.toml")
    published = drop_keys(find_state_dict(read_tensors(file)[0], file, "params"), COMPUTED_KEYS)
    about = {
        "architecture": entry.architecture,
        "config": json.dumps(dict(entry.config)),
        "license": "MIT, Copyright (c) 2023 Fried Rice Lab",
        "origin": entry.origin.url,
        "origin_sha256": entry.origin.sha256,
    }
    return entry, serialize(in_float16(published), about)


def main(arguments: list[str] | None = None) -> None:
    """Convert each file of the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.convert_emt", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="EMT_LSR_x2.pth, EMT_LSR_x3.pth, EMT_LSR_x4.pth")
    parser.add_argument("--to", type=Path, default=BUNDLED, help="folder to write into")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.to.mkdir(parents=True, exist_ok=True)
    for file in options.files:
        entry, data = convert(file)
        write_file(options.to / f"{entry.name}.safetensors", data)


if __name__ == "__main__":
    main()
