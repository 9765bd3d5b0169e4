"""What the package promises: who prints, what the library is, what README says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import restore_cli
from restore_cli.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "restore_cli"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_only_the_commands_print_or_read_argv() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "cli" not in path.relative_to(PACKAGE).parts[:1]:
            assert not re.search(r"\bprint\(|sys\.exit|sys\.argv|rich", text), path


def test_the_package_itself_uses_every_function_and_class() -> None:
    """What tests alone call would be tested in place of what runs. Decorators register theirs with somebody else."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)} | set(restore_cli.__all__)
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    kinds = (ast.FunctionDef, ast.ClassDef)
    defined = [node for tree in trees for node in tree.body if isinstance(node, kinds) and not node.decorator_list]
    unused = {node.name for node in defined} - used
    assert not unused


def test_the_library_is_two_names_and_loads_no_torch() -> None:
    assert restore_cli.__all__ == ["load", "restore"]
    code = "import restore_cli, sys; assert 'torch' not in sys.modules; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command with its long options, as typer built it."""
    root = typer.main.get_command(app)
    tree = [("restore", root)]
    while tree:
        name, command = tree.pop()
        yield name, [opt for param in command.params for opt in param.opts if opt.startswith("--")]
        tree += [(f"{name} {sub}", child) for sub, child in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize(("name", "options"), list(commands()))
def test_every_command_and_option_stands_in_readme(name: str, options: list[str]) -> None:
    assert name in README
    for option in options:
        assert re.search(rf"[` ]{option}[` \n]", README) or option == "--help", option


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_has_help(name: str) -> None:
    command = typer.main.get_command(app)
    for part in name.split()[1:]:
        command = getattr(command, "commands", {})[part]
    assert command.help
    for param in command.params:
        assert getattr(param, "help", None), f"{name}: {param.name}"


def test_exit_codes_stand_in_readme() -> None:
    table = README.split("## Exit codes")[1].split("##")[0]
    assert re.findall(r"^\| (\d+)", table, re.MULTILINE) == ["0", "1", "2", "3", "4", "5", "130", "141"]
