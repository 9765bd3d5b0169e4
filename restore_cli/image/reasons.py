"""What is said of a file that could not be read."""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["NOT_FINITE", "UnreadableImage", "UnsupportedImage", "describe_os_error", "join_lines", "suggest_command"]

NOT_FINITE = "holds values that are not finite, numbers are expected"

_COMMANDS = {  # of ImageMagick, that make a readable copy: what the copy's name gets, and how
    "depth": ("-16bit", "magick {0} -depth 16 {1}"),
    "colour": ("-rgb", "magick {0} -colorspace sRGB {1}"),
    "kind": ("-converted", "magick {0} {1}"),
}


class UnsupportedImage(Exception):
    """A sound file of a kind that would be damaged. `step` names the command that converts it, or is one."""

    def __init__(self, what: str, step: str = "") -> None:
        super().__init__(what)
        self.what, self.step = what, step


class UnreadableImage(Exception):
    """A damaged file."""


def suggest_command(step: str, name: str) -> str | None:
    """The next command to type: one of ImageMagick's for a known step, else the step itself."""
    if step not in _COMMANDS:
        return step or None
    addition, text = _COMMANDS[step]
    copy = Path(name).with_suffix("").name + addition + ".png"
    return text.format(shlex.quote(name), shlex.quote(copy))


def describe_os_error(error: OSError) -> str:
    """The system's reason in our words."""
    known = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "is a folder, not an image",
        PermissionError: "no permission to read it",
    }
    return known.get(type(error)) or error.strerror or f"damaged ({join_lines(error)})"


def join_lines(error: Exception) -> str:
    """What a library said, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
