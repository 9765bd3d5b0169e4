"""A file that is read with some bytes replaced, to hide a tag from a library that would act on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

__all__ = ["Patch", "PatchedFile"]


@dataclass(frozen=True)
class Patch:
    """Bytes that replace those at an offset of a file."""

    offset: int
    data: bytes


class PatchedFile:
    """A seekable binary stream with a patch applied on reading. The file itself is not changed.

    libvips calls the methods through callbacks, where Python prints exceptions instead of raising them. The methods
    therefore report errors as the end of the file.
    """

    def __init__(self, stream: IO[bytes], patch: Patch) -> None:
        self.stream, self.patch = stream, patch

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, and none at the end or after an error of the system."""
        try:
            start = self.stream.tell()
            found = bytearray(self.stream.read(size))
        except (OSError, MemoryError):
            return b""
        offset, data = self.patch.offset, self.patch.data
        first, end = max(start, offset), min(start + len(found), offset + len(data))
        if first < end:
            found[first - start : end - start] = data[first - offset : end - offset]
        return bytes(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Return the new position, or -1 if it is invalid."""
        try:
            return self.stream.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def close(self) -> None:
        self.stream.close()
