"""Files that are read with some of their bytes replaced, so that a library does not act on a tag that we act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

__all__ = ["Patch", "PatchedFile"]


@dataclass(frozen=True)
class Patch:
    """Bytes to read in place of those at an offset of a file."""

    offset: int
    data: bytes


class PatchedFile:
    """A seekable binary stream as a patch changes it; the file itself is never written.

    libvips calls it, and Python prints exceptions that reach libvips: what cannot be read ends the file instead.
    """

    def __init__(self, stream: IO[bytes], patch: Patch) -> None:
        self.stream, self.patch = stream, patch

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end, and none where the system cannot read."""
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
        """The new position, -1 where there is none."""
        try:
            return self.stream.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()
