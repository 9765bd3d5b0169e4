"""Hides modules that Windows lacks from the package and from its tests: `make tests-portable`.

Python imports this module when it starts, if its folder is on PYTHONPATH. Other packages still see the modules: they
have other code for Windows, which does not run here.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
IMPORTERS = ("restore_cli", "test_", "systems")
"""how the names of the modules begin that do not see HIDDEN"""

import_module = builtins.__import__


def import_unless_hidden(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> object:
    """Import a module, or raise ImportError if one of IMPORTERS asks for a hidden one."""
    if name in HIDDEN and str((globals or {}).get("__name__", "")).startswith(IMPORTERS):
        raise ImportError(f"{name} is hidden")
    return import_module(name, globals, locals, fromlist, level)


vars(builtins)["__import__"] = import_unless_hidden
