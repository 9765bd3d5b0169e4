"""The rooms of the package and what each may import.

`python tests/architecture.py` writes the table in docs/architecture.md.
"""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["DOC", "LAW", "MODULES", "PACKAGE", "find_cycle", "insert_table", "read_imports", "room_of"]

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "restore_cli"
DOC = ROOT / "docs" / "architecture.md"
START, END = "<!-- rooms: made by python tests/architecture.py -->\n", "<!-- end of rooms -->\n"

GROUND = ("errors", "limits", "contract", "atomic", "pinned", "shared_context", "special_files", "system")
LAW = {
    "ground": (),
    "weights": ("ground",),
    "image": ("ground",),
    "tiling": ("ground",),
    "models.ops": ("ground",),
    "models": ("ground", "weights", "models.ops"),
    "pipeline": ("ground", "weights", "image", "tiling", "models"),
    "jobs": ("ground", "weights", "image", "tiling", "models", "pipeline"),
    "evaluation": ("ground", "weights", "image", "tiling", "models", "pipeline", "jobs"),
    "api": ("ground", "weights", "models", "pipeline"),
    "cli": ("ground", "weights", "image", "tiling", "models", "pipeline", "jobs", "evaluation"),
}
"""Each room with the rooms that its modules may import, besides their own."""


def name_of(path: Path) -> str:
    """Return the module name of a file without `restore_cli.`, such as `image.formats.png`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    """Return the room of a module. The package's __init__ belongs to api, its __main__ to cli."""
    first = module.split(".")[0]
    if first in GROUND:
        return "ground"
    if module.startswith("models.ops"):
        return "models.ops"
    return {"": "api", "__main__": "cli"}.get(first, first)


def read_imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports: at the top, inside functions, and for types."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "restore_cli":
            base = (node.module or "").partition(".")[2]
            names = (f"{base}.{alias.name}".removeprefix(".") for alias in node.names)
            found |= {name if name in MODULES else base for name in names}
        elif isinstance(node, ast.Import):
            names = (alias.name.partition(".")[2] for alias in node.names if alias.name.split(".")[0] == "restore_cli")
            found |= set(names)
    return found - {module}


def find_cycle() -> list[str]:
    """Return modules that import each other in a cycle, or an empty list."""
    graph, done = {module: read_imports(module) for module in MODULES}, set[str]()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        found = next((c for other in sorted(graph[module]) if (c := visit(other, [*path, module]))), [])
        done.add(module)
        return found

    return next((cycle for module in graph if (cycle := visit(module, []))), [])


def describe(module: str) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8"))) or "").split("\n")[0]


def make_table() -> str:
    """Return Markdown: for each room what it may import, and its modules with the first lines of their docstrings."""
    lines = []
    for room, below in LAW.items():
        lines += [f"### {room}", "", f"May import: {', '.join(below) or 'nothing of the package'}.", ""]
        lines += ["| module | what it holds |", "|---|---|"]
        members = [module for module in MODULES if module and room_of(module) == room]
        lines += [f"| `{module}` | {describe(module)} |" for module in members]
        lines.append("")
    return "\n".join(lines)


def insert_table(text: str) -> str:
    """Return the page with the table between its two marks."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{make_table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    DOC.write_text(insert_table(DOC.read_text(encoding="utf-8")), encoding="utf-8")
