"""The import law: every module imports only from rooms below its own, lazily too, and there is no cycle.

No two modules define a function or a class of the same name.
"""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest
from architecture import DOC, LAW, MODULES, find_cycle, insert_table, read_imports, room_of


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_rooms_below(module: str) -> None:
    room = room_of(module)
    for other in read_imports(module):
        assert room_of(other) in (room, *LAW[room]), f"{module} imports {other}"


def test_every_module_belongs_to_a_room() -> None:
    assert {room_of(module) for module in MODULES} == set(LAW)


def test_rooms_are_ordered() -> None:
    rooms = list(LAW)
    for place, room in enumerate(rooms):
        assert set(LAW[room]) <= set(rooms[:place])


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert find_cycle() == []


def test_a_name_means_one_thing() -> None:
    nodes = [node for path in MODULES.values() for node in ast.parse(path.read_text(encoding="utf-8")).body]
    names = Counter(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_page_on_architecture_shows_the_rooms_as_they_are() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert text == insert_table(text), "run python tests/architecture.py"


@pytest.mark.parametrize("family", ["swinir", "hat", "restormer", "emt", "layers"])
def test_a_family_file_imports_only_published_layers_and_references(family: str) -> None:
    assert read_imports(f"models.{family}") <= {"models.layers", "models.ops.attention", "weights.architectures"}
    text = MODULES[f"models.{family}"].read_text(encoding="utf-8")
    assert not re.search("autocast|is_grad_enabled|is_compiling|inference_mode|float16|mkldnn|fast_", text)
