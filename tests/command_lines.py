"""Finds the command lines in help pages and documents, and lets the program parse them without running them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from textwrap import dedent
from typing import Any

import typer

from restore_cli.cli.main import app
from restore_cli.cli.options import OF_TASK
from restore_cli.weights.catalogue import Request, read_catalogue
from restore_cli.weights.entry import TASKS

__all__ = ["COMMANDS", "check_command_lines", "find_code_blocks"]

EAGER = {"--help", "--version", "--install-completion", "--show-completion"}
"""Options that print and exit while the command line is parsed."""


def walk_commands() -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name, a group before its commands."""
    waiting = [("restore", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop(0)
        yield name, command
        waiting += [(f"{name} {sub}", child) for sub, child in getattr(command, "commands", {}).items()]


COMMANDS: dict[str, Any] = dict(walk_commands())


def find_code_blocks(text: str, languages: Collection[str] = ("", "bash", "console")) -> Iterator[str]:
    """Yield the code blocks of a Markdown page in these languages: by default what is typed into a shell."""
    for _, language, block in re.findall(r"^( *)```(\w*)\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE):
        if language in languages:
            typed = re.findall(r"^\$ (.*\n)", block, re.MULTILINE) if language == "console" else [dedent(block)]
            yield "".join(typed)


def check_command_lines(text: str) -> int:
    """Parse each command line of `restore` in `text` as the program does. Return how many there are.

    Raises what the program raises for a command, an option, a value or a checkpoint that does not exist.
    """
    found = 0
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        lexer.commenters = "#"
        words: list[str] = []
        for word in [*lexer, "|"]:
            if set(word) <= set("|;&<>"):
                found += check_command_line(words)
                words = []
            else:
                words.append(word)
    return found


def check_command_line(words: list[str]) -> bool:
    """Parse the words if they contain a command line of `restore`. Return whether they do."""
    if "restore" not in words:
        return False
    rest = words[words.index("restore") + 1 :]
    name, command = "restore", COMMANDS["restore"]
    while rest and f"{name} {rest[0]}" in COMMANDS:
        name = f"{name} {rest.pop(0)}"
        command = COMMANDS[name]
    if EAGER & set(rest):
        assert {word for word in rest if word.startswith("--")} <= {
            opt for p in command.params for opt in p.opts
        } | EAGER
        return True
    context = command.make_context(name, rest)
    task = context.params.get("task", name.split()[-1])
    elsewhere = context.params.get("weights") or context.params.get("catalogue")
    if task in TASKS and not elsewhere:
        only = {field: context.params.get(field) for field in ("model", "variant", *OF_TASK)}
        read_catalogue().select(Request(task, **only))
    return True
