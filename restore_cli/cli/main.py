"""The command `restore`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from restore_cli.cli.compare import add_compare
from restore_cli.cli.console import PipeClosed, complain, make_stdout_error, say
from restore_cli.cli.evaluate import add_eval
from restore_cli.cli.models import models
from restore_cli.cli.parsing import Group, examples
from restore_cli.cli.signals import interrupt_on_signals
from restore_cli.cli.standard_streams import open_closed_streams, replace_unencodable, silence
from restore_cli.cli.tasks import add_tasks
from restore_cli.errors import Interrupted, RestoreError, UsageError
from restore_cli.models.processor import keep_freed_memory

__all__ = ["app", "main"]

EXAMPLES = examples(
    ("Enlarge an image four times", "restore sr photo.png"),
    ("Remove noise from a folder of images", "restore denoise photos/ -o clean/"),
    ("List the checkpoints", "restore models"),
)

app = typer.Typer(
    cls=Group,
    name="restore",
    epilog=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_tasks(app)
add_eval(app)
add_compare(app)
app.add_typer(models, name="models")


def show_version(asked: bool) -> None:
    """Print the version and exit."""
    if asked:
        from importlib.metadata import version

        say(f"restore {version('restore-cli')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Restore images: enlarge, denoise, deblur, derain, repair JPEGs, with SwinIR, HAT, Restormer and EMT."""


USAGE_EXCEPTION: type[Exception] = typer.BadParameter.__mro__[1]
"""the exception of typer for a command line that it cannot read"""


def to_usage_error(error: Exception) -> RestoreError:
    """Return the error of typer as one line. Typer itself would print a usage line and a box."""
    context: Any = getattr(error, "ctx", None)
    said: str = getattr(error, "format_message", error.__str__)()
    command = context.command_path if context is not None else "restore"
    return UsageError(said.rstrip("."), hint=f"{command} --help")


def refuse_deleted_folder() -> None:
    """End the process with one line if its working folder was deleted, where oneMKL aborts even with absolute paths."""
    try:
        Path.cwd()
    except FileNotFoundError:
        complain(UsageError("the working folder was deleted", hint="cd to another folder"))
        sys.exit(UsageError.code)


def main() -> None:
    """Run the command. An error is one line and an exit code; RESTORE_DEBUG=1 shows the traceback."""
    keep_freed_memory()
    open_closed_streams()
    replace_unencodable()
    refuse_deleted_folder()
    os.environ.setdefault("VIPS_WARNING", "1")  # libvips warns at exit if pyvips has ended before it
    try:
        with interrupt_on_signals():
            code = app(prog_name="restore", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except USAGE_EXCEPTION as error:
        if (line := to_usage_error(error)).message:  # empty if typer has shown the help instead
            complain(line)
        sys.exit(UsageError.code)
    except typer.Abort:
        sys.exit(Interrupted.code)
    except PipeClosed as closed:
        silence()
        sys.exit(closed.code)
    except OSError as error:
        if error.filename is not None or os.environ.get("RESTORE_DEBUG") == "1":
            raise
        line = make_stdout_error(error)  # typer could not write a help page; our own output raises OutputError
        complain(line)
        sys.exit(line.code)
    except RestoreError as error:
        if os.environ.get("RESTORE_DEBUG") == "1":
            raise
        complain(error)
        sys.exit(error.code)
