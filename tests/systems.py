"""What this system has, for tests that need it, and the import path of the processes that tests start."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["IMPORT_PATH", "IS_ROOT", "is_here"]

ROOT = Path(__file__).parents[1]

IMPORT_PATH = os.pathsep.join(filter(None, [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
"""PYTHONPATH for other processes: this checkout, and what is set already, such as tests/without_unix."""

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def is_here(name: str) -> bool:
    """Return whether a module, or an attribute such as `os.fork`, exists. without_unix hides modules from this."""
    module, _, attribute = name.partition(".")
    try:
        found = __import__(module, globals())
    except ImportError:
        return False
    return not attribute or hasattr(found, attribute)
