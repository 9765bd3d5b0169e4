"""What a file of torch.save would have Python import, read from its bytes without running any of them.

PyTorch itself refuses what is not harmless. Its messages advise to load the file with weights_only=False, and it warns
of what it is about to refuse; so a file is looked through before PyTorch sees it.
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

HARMLESS = re.compile(
    r"collections (OrderedDict|Counter)|_codecs encode|(__builtin__|builtins) (bytearray|complex|set)"
    r"|torch (\w+Storage|Size|device|Tensor|bool|b?u?(complex|float|int)\w+)|torch\.storage \w+Storage"
    r"|torch\._utils _rebuild_(tensor|parameter|device_tensor)\w*|torch\.nn\.parameter Parameter"
    r"|torch\._tensor _rebuild_from_type_v2|torch\.serialization _get_layout"
)
"""Containers, tensors and what they consist of."""

TENSORS = {
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
"""What makes tensors of other kinds, by how its name begins."""

PROTOCOL = 2
"""Of the pickles that torch.save writes."""

PARTS = 5
"""Pickles at the beginning of a file of PyTorch before 1.6, which is no archive."""

LONGEST = 2**24
"""Bytes of the pickle in an archive: some hundred for each tensor, whose numbers are elsewhere."""


def check_pickles(path: Path) -> None:
    """Raise WeightsError where the file contains anything but containers, plain values and dense tensors."""
    names: set[str] = set()
    protocols: set[int] = set()
    for stream in pickles(path):
        scan(stream, names, protocols)
    strange = sorted(name for name in names if not HARMLESS.fullmatch(name))
    code = [name for name in strange if not name.startswith(tuple(TENSORS))]
    if code:
        name = code[0].replace(" ", ".")[:100]
        alone = "a file that torch.save(network.state_dict(), ...) has made"
        raise WeightsError(f"{path}: contains code ({name!r}), which restore never runs", alone)
    for start, kind in TENSORS.items():
        if any(name.startswith(start) for name in strange):
            raise WeightsError(f"{path}: holds {kind} tensors, expected are dense ones of floating-point numbers")
    if protocols - {PROTOCOL}:
        raise WeightsError(f"{path}: not a checkpoint that can be read: torch.save did not write it")


def pickles(path: Path) -> Iterator[IO[bytes]]:
    """Yield each pickle of an archive, or the beginning of a file that is none."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as file:
                    yield BytesIO(file.read(LONGEST))


def scan(stream: IO[bytes], names: set[str], protocols: set[int]) -> None:
    """Add the names that pickles one after the other import, as "module name", and their protocols.

    Stops where one is damaged: what PyTorch then says of the file is enough.
    """
    words: list[str] = []
    try:
        for _ in range(PARTS):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names.add(str(argument))
                elif opcode.name == "STACK_GLOBAL":  # of later protocols; both parts are on the stack
                    names.add(" ".join(words[-2:]))
                elif opcode.name == "PROTO":
                    protocols.add(int(argument or 0))
                elif isinstance(argument, str):
                    words.append(argument)
    except (ValueError, IndexError, OverflowError, MemoryError):
        return
