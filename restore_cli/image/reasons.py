"""Why an image file cannot be read: the exceptions of the readers, and one-line messages with the next command."""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["NOT_FINITE", "UnreadableImage", "UnsupportedImage", "describe_os_error", "join_lines", "suggest_command"]

NOT_FINITE = "contains values that are not finite (NaN or infinity); expected finite numbers"

_CONVERSIONS = {  # suffix of the copy's name, and the ImageMagick command that makes the copy
    "depth": ("-16bit", "magick {0} -depth 16 {1}"),
    "colour": ("-rgb", "magick {0} -colorspace sRGB {1}"),
    "kind": ("-converted", "magick {0} {1}"),
}


class UnsupportedImage(Exception):
    """A valid file that cannot be read without loss. `step` is a key of _CONVERSIONS, a command, or empty."""

    def __init__(self, what: str, step: str = "") -> None:
        super().__init__(what)
        self.what, self.step = what, step


class UnreadableImage(Exception):
    """A damaged file, or no image at all."""


def suggest_command(step: str, name: str) -> str | None:
    """Return the next command to type: an ImageMagick conversion of file `name`, or `step` itself."""
    if step not in _CONVERSIONS:
        return step or None
    addition, text = _CONVERSIONS[step]
    copy = Path(name).with_suffix("").name + addition + ".png"
    return text.format(shlex.quote(name), shlex.quote(copy))


def describe_os_error(error: OSError) -> str:
    known = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "is a folder, not an image",
        PermissionError: "no permission to read it",
    }
    return known.get(type(error)) or error.strerror or f"damaged ({join_lines(error)})"


def join_lines(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__
