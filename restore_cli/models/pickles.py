"""Checks what a file of torch.save would import, without running any of it.

PyTorch refuses unsafe files, too, but its messages recommend to load them with weights_only=False, and it warns before
it refuses. So each file is checked before PyTorch opens it.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

from restore_cli.errors import WeightsError

__all__ = ["check_pickles"]

SAFE_NAMES = re.compile(
    r"collections (OrderedDict|Counter)|_codecs encode|(__builtin__|builtins) (bytearray|complex|set)"
    r"|torch (\w+Storage|Size|device|Tensor|bool|b?u?(complex|float|int)\w+)|torch\.storage \w+Storage"
    r"|torch\._utils _rebuild_(tensor|parameter|device_tensor)\w*|torch\.nn\.parameter Parameter"
    r"|torch\._tensor _rebuild_from_type_v2|torch\.serialization _get_layout"
)
"""Names of containers, tensors and their parts, as "module name"."""

UNSUPPORTED_TENSORS = {
    "torch._utils _rebuild_sparse_tensor": "sparse",
    "torch.sparse": "sparse",
    "torch._utils _rebuild_qtensor": "quantised",
    "torch q": "quantised",
    "torch per_": "quantised",
    "torch._utils _rebuild_nested_tensor": "nested",
    "torch.nested": "nested",
    "torch._dynamo": "nested",
    "torch._utils _rebuild_meta_tensor": "empty (meta)",
    "torch.distributed": "distributed",
}
"""Prefixes of the names that build other kinds of tensors."""

PROTOCOL = 2
"""Pickle protocol of torch.save."""

LEGACY_PICKLES = 5
"""Pickles at the start of a file of PyTorch before 1.6, which is not an archive."""

MAX_PICKLE_BYTES = 2**24
"""Bytes that are read of a pickle in an archive. It has some hundred per tensor; the data are in other entries."""


def check_pickles(path: Path) -> None:
    """Raise WeightsError if the file contains anything but containers, plain values and dense tensors."""
    names: set[str] = set()
    protocols: set[int] = set()
    for stream in open_pickles(path):
        collect_names(stream, names, protocols)
    strange = sorted(name for name in names if not SAFE_NAMES.fullmatch(name))
    code = [name for name in strange if not name.startswith(tuple(UNSUPPORTED_TENSORS))]
    if code:
        name = code[0].replace(" ", ".")[:100]
        hint = "a file that torch.save(network.state_dict(), ...) has made"
        raise WeightsError(f"{path}: contains code ({name!r}), which restore never runs", hint)
    for start, kind in UNSUPPORTED_TENSORS.items():
        if any(name.startswith(start) for name in strange):
            raise WeightsError(f"{path}: has {kind} tensors, expected dense floating-point tensors")
    if protocols - {PROTOCOL}:
        raise WeightsError(f"{path}: not a readable checkpoint: not written by torch.save")


def open_pickles(path: Path) -> Iterator[IO[bytes]]:
    """Yield each pickle of an archive, or the whole file if it is not an archive."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as file:
                    yield BytesIO(file.read(MAX_PICKLE_BYTES))


def collect_names(stream: IO[bytes], names: set[str], protocols: set[int]) -> None:
    """Add the names that consecutive pickles import, as "module name", and their protocols.

    Stops at damaged bytes, which PyTorch reports.
    """
    words: list[str] = []
    try:
        for _ in range(LEGACY_PICKLES):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names.add(str(argument))
                elif opcode.name == "STACK_GLOBAL":  # protocol 4: module and name are on the stack
                    names.add(" ".join(words[-2:]))
                elif opcode.name == "PROTO":
                    protocols.add(int(argument or 0))
                elif isinstance(argument, str):
                    words.append(argument)
    except (ValueError, IndexError, OverflowError, MemoryError):
        return
