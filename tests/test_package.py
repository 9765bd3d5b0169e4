"""Laws of the package: which modules print, and what the library exports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

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


def test_the_library_exports_its_functions_and_imports_no_torch() -> None:
    assert restore_cli.__all__ == ["list_models", "load", "restore", "restore_file", "restore_stream"]
    code = "import restore_cli, sys; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def find_runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those that only type checkers see."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from find_runtime_nodes(node)


def test_every_package_that_is_imported_is_declared() -> None:
    """Those that come with another one may be gone in its next version."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in find_runtime_nodes(tree)]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    tops = {name.split(".")[0] for name in imported} - sys.stdlib_module_names - {"restore_cli"}
    tops -= {"triton", "tqdm"}  # imported where a build of PyTorch or its compiler has brought them
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(line for extra in ("heic", "jxl", "cluster", "spandrel", "spandrel-extra") for line in optional[extra]),
    ]
    declared = {re.split(r"[^\w-]", line)[0] for line in lines}
    found = packages_distributions()
    undeclared = {top for top in tops if not declared & {name.replace("_", "-") for name in found.get(top, [top])}}
    assert undeclared == set()


def test_ci_runs_every_version_of_python_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    matrices = re.findall(r"python: \[(.*)\]", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert matrices
    assert {tuple(re.findall(r"[\d.]+", matrix)) for matrix in matrices} == {tuple(named)}


@pytest.mark.parametrize("file", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_docker_images_pin_python_and_every_package(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert re.search(r"^FROM python:\d+\.\d+\.\d+-", text, re.MULTILINE)
    assert all("-c /source/constraints.txt" in line for line in re.findall(r"pip install.*", text))
