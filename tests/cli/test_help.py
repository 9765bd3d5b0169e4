"""Help pages: the order of panels, examples that the program accepts, no slow imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_lines import COMMANDS, check_command_lines

PANELS = ["Arguments", "Model", "Input", "Output", "Image", "Measurement", "Speed and memory", "Batch", "Reporting"]
TASKS = ["sr", "denoise", "deblur", "derain", "dejpeg"]


def page(*words: str) -> str:
    """Return the help page of a command in a terminal of 80 columns. Its process must not import slow modules."""
    code = (
        f"import sys; sys.argv = ['restore', *{words!r}, '--help']\n"
        "from restore_cli.cli.main import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\n"
        "assert not {'torch', 'numpy', 'PIL', 'pyvips'} & set(sys.modules)"
    )
    environment = {"COLUMNS": "80", "LANG": "C.UTF-8", "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, encoding="utf-8"
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("command", [*TASKS, "eval"])
def test_options_are_in_panels_of_one_order(command: str) -> None:
    found = [line.split("─")[1].strip() for line in page(command).splitlines() if line.startswith("╭")]
    left_out = {"Output", "Image", "Batch"} if command == "eval" else {"Measurement"}
    assert found == [panel for panel in PANELS if panel not in left_out]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_page_shows_every_option_of_its_command_and_fits(name: str) -> None:
    text = page(*name.split()[1:])
    assert all(len(line) <= 80 for line in text.splitlines())
    for param in COMMANDS[name].params:
        for option in (*param.opts, *param.secondary_opts):
            assert option in text or param.param_type_name == "argument"


@pytest.mark.parametrize(
    "name", ["restore", *(f"restore {command}" for command in [*TASKS, "eval", "compare", "models"])]
)
def test_a_page_ends_with_examples_that_can_be_typed(name: str) -> None:
    shown = page(*name.split()[1:]).split("\n Examples ")[1]
    lines = [line.strip() for line in shown.splitlines() if line.startswith("   ") and line.strip()]
    assert len(lines) >= 2
    for line in lines:
        assert check_command_lines(line) >= 1
