"""Rules for the values of all options of all commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import typer
from command import Run
from images import make_image, save_image

from restore_cli.cli.evaluate import Evaluation
from restore_cli.cli.main import app
from restore_cli.cli.options import OF_TASK, Options, list_options


def options_with_values() -> Iterator[tuple[list[str], str]]:
    """Yield each command with each of its options that takes a value."""
    tree: list[tuple[list[str], typer.core.TyperGroup | typer.core.TyperCommand]]
    tree = [([], typer.main.get_command(app))]  # type: ignore[list-item]  # typer's own commands
    while tree:
        words, command = tree.pop()
        for param in command.params:
            if param.param_type_name == "option" and not getattr(param, "is_flag", False):
                yield words, max(param.opts, key=len)
        tree += [([*words, name], child) for name, child in getattr(command, "commands", {}).items()]


ARGUMENTS = {
    "models info": ["emt-x4"],
    "models pull": ["emt-x4"],
    "models path": ["emt-x4"],
    "models rm": ["emt-x4"],
    "compare": ["a.png", "b.png", "-o", "c.png"],
    "eval": ["sr", "--reference", "a.png"],
}
"""what a command needs; for the tasks an image"""


@pytest.mark.parametrize(("words", "option"), list(options_with_values()), ids=lambda part: str(part))
def test_an_empty_value_is_a_usage_error(words: list[str], option: str, restore: Run) -> None:
    save_image(Path("a.png"), make_image(8, 8))
    save_image(Path("b.png"), make_image(8, 8))
    name = " ".join(words)
    needed = ARGUMENTS.get(name, [] if name.startswith("models") else ["a.png"])
    for empty in ([option, ""], [f"{option}="]):
        ran = restore(*words, *needed, *empty)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
        assert option in ran.err
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("words", [["denoise", ""], ["denoise", "a.png", ""], ["models", "info", ""]])
def test_an_empty_argument_is_a_usage_error(words: list[str], restore: Run) -> None:
    save_image(Path("a.png"), make_image(8, 8))
    ran = restore(*words, *(["-o", "out/"] if "denoise" in words else []))
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
    assert not Path("out").exists()


def numeric_options() -> Iterator[tuple[list[str], str]]:
    """Yield each command with each of its options that takes a number."""
    for words, kind in ((["denoise"], Options), (["eval"], Evaluation)):
        for name, (_, hint) in list_options(kind).items():
            if {int, float} & {hint, *get_args(hint)}:
                task = [OF_TASK[name]] if name in OF_TASK and words == ["denoise"] else words
                yield task, f"--{name.replace('_', '-')}"
    yield ["compare"], "--zoom"


NAMED_NUMBERS = [(["denoise"], "--memory"), (["denoise"], "--resize"), (["denoise"], "--shard"), (["eval"], "--tiles")]
"""text that a command reads as numbers"""


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf", "Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize(("words", "option"), [*numeric_options(), *NAMED_NUMBERS], ids=lambda part: str(part))
def test_a_number_that_is_not_finite_is_a_usage_error(words: list[str], option: str, value: str, restore: Run) -> None:
    save_image(Path("a.png"), make_image(8, 8))
    save_image(Path("b.png"), make_image(8, 8))
    task = ["eval", "denoise", "--model", "lite", "--reference", "a.png"] if words == ["eval"] else words
    needed = [] if words == ["eval"] else ARGUMENTS.get(" ".join(words), ["a.png"])
    ran = restore(*task, *needed, f"{option}={value}")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
    assert option in ran.err
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "b.png"]
