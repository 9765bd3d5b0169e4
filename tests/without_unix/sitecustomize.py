"""Hides modules that Windows lacks from the package: `make tests-portable`.

Python imports this module when it starts, if its folder is on PYTHONPATH. The tests themselves still see the modules.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = {"fcntl", "resource"}

import_module = builtins.__import__


def import_unless_hidden(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> object:
    """Import a module, or raise ImportError if the package asks for a hidden one."""
    if name in HIDDEN and str((globals or {}).get("__name__", "")).startswith("restore_cli"):
        raise ImportError(f"{name} is hidden")
    return import_module(name, globals, locals, fromlist, level)


vars(builtins)["__import__"] = import_unless_hidden
