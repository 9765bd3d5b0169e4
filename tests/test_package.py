"""Laws of the package: which modules print, and what the library exports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import restore_cli

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "restore_cli"


def test_only_the_commands_print_or_read_argv() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "cli" not in path.relative_to(PACKAGE).parts[:1]:
            assert not re.search(r"\bprint\(|sys\.exit|sys\.argv|rich", text), path


def test_the_package_itself_uses_every_function_and_class() -> None:
    """A function that only tests call is dead code. Decorated functions are registered by their decorator."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)} | set(restore_cli.__all__)
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    kinds = (ast.FunctionDef, ast.ClassDef)
    defined = [node for tree in trees for node in tree.body if isinstance(node, kinds) and not node.decorator_list]
    unused = {node.name for node in defined} - used
    assert not unused


def test_the_library_exports_two_names_and_imports_no_torch() -> None:
    assert restore_cli.__all__ == ["load", "restore"]
    code = "import restore_cli, sys; assert 'torch' not in sys.modules; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
