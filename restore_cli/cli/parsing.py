"""Reads the command line of each command strictly, and formats its help page."""

from __future__ import annotations

from math import isfinite
from typing import Any

from typer import Context
from typer.core import TyperCommand, TyperGroup

from restore_cli.errors import UsageError

__all__ = ["Command", "Group", "examples"]


class Command(TyperCommand):
    """A command that refuses empty values and numbers that are not finite."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:  # type: ignore[override]  # the public name of it
        """Read the command line into `ctx`. Raises UsageError."""
        rest = super().parse_args(ctx, list(args))
        refuse_empty(self, ctx, args)
        refuse_nonfinite(self, ctx)
        return rest

    def get_params(self, ctx: Context) -> list[Any]:  # type: ignore[override]  # the public name of it
        """Return the parameters as the help page shows them."""
        return tidy_params(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands that does the same for its own options."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:  # type: ignore[override]  # the public name of it
        """Read the command line into `ctx`. Raises UsageError."""
        rest = super().parse_args(ctx, list(args))
        refuse_empty(self, ctx, args)
        refuse_nonfinite(self, ctx)
        return rest

    def get_params(self, ctx: Context) -> list[Any]:  # type: ignore[override]  # the public name of it
        """Return the parameters as the help page shows them."""
        return tidy_params(super().get_params(ctx))


def examples(*pairs: tuple[str, str]) -> str:
    """Return the end of a help page: commands, each with what it does."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"{purpose}:\n  {line}" for purpose, line in pairs)])


def show_no_type(ctx: Context) -> None:
    """Show no type for an argument: its help text describes it better than `<list[str]>`."""


def tidy_params(params: list[Any]) -> list[Any]:
    """Return `params` without types of flags and arguments, and with `--help` in the panel of the option before it."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        elif param.param_type_name == "argument":
            param.display_type_rich = show_no_type
    *others, last = params
    if others and last.name == "help":
        last.rich_help_panel = getattr(others[-1], "rich_help_panel", None)
    return params


def refuse_empty(command: TyperCommand | TyperGroup, ctx: Context, args: list[str]) -> None:
    """Raise UsageError for an empty value, which a script passes if a variable is not set.

    The words are parsed once more, because typer turns an empty path into ".".
    """
    given: dict[str, Any] = command.make_parser(ctx).parse_args(args=list(args))[0]
    for param in command.params:
        value = given.get(param.name or "")
        if "" in (value if isinstance(value, (list, tuple)) else [value]):
            hint = "check that the variable which holds it is set"
            raise UsageError(f"{max(param.opts, key=len)}: the value is empty", hint)


def refuse_nonfinite(command: TyperCommand | TyperGroup, ctx: Context) -> None:
    """Raise UsageError for NaN and infinity, which typer accepts as numbers."""
    for param in command.params:
        value = ctx.params.get(param.name or "")
        if isinstance(value, float) and not isfinite(value):
            raise UsageError(f"{max(param.opts, key=len)} {value}: expected a finite number")
