"""How every command reads its options: no option takes an empty value."""

from __future__ import annotations

from typing import Any

from typer import Context
from typer.core import TyperCommand, TyperGroup

from restore_cli.errors import UsageError

__all__ = ["Command", "Group"]


class Command(TyperCommand):
    """A command that refuses values which no option can have."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:  # type: ignore[override]  # the public name of it
        """Read the command line into `ctx`. Raises UsageError."""
        rest = super().parse_args(ctx, list(args))
        refuse_empty(self, ctx, args)
        return rest


class Group(TyperGroup):
    """A group of commands whose own options are checked in the same way."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:  # type: ignore[override]  # the public name of it
        """Read the command line into `ctx`. Raises UsageError."""
        rest = super().parse_args(ctx, list(args))
        refuse_empty(self, ctx, args)
        return rest


def refuse_empty(command: TyperCommand | TyperGroup, ctx: Context, args: list[str]) -> None:
    """Raise UsageError for an empty value, which is what a script's unset variable becomes.

    The words are read once more because typer makes the path "." of an empty one.
    """
    given: dict[str, Any] = command.make_parser(ctx).parse_args(args=list(args))[0]
    for param in command.params:
        value = given.get(param.name or "")
        if "" in (value if isinstance(value, (list, tuple)) else [value]):
            hint = "check that the variable which holds it is set"
            raise UsageError(f"{max(param.opts, key=len)}: the value is empty", hint)
