"""The command `restore`."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from restore_cli.cli.compare import add_compare
from restore_cli.cli.console import PipeClosed, complain, say, silence
from restore_cli.cli.evaluate import add_eval
from restore_cli.cli.models import models
from restore_cli.cli.tasks import add_tasks
from restore_cli.errors import RestoreError

__all__ = ["app", "main"]

app = typer.Typer(
    name="restore",
    help="Restore images with SwinIR, HAT, Restormer and EMT.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_tasks(app)
add_eval(app)
add_compare(app)
app.add_typer(models, name="models")


def show_version(asked: bool) -> None:
    """Print the version and stop."""
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
    """Restore images with SwinIR, HAT, Restormer and EMT."""


def main() -> None:
    """Run the command; a failure is one line and its exit code, a traceback only under RESTORE_DEBUG=1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files are bytes, and come out as they are
    try:
        app()
    except PipeClosed as closed:
        silence()
        sys.exit(closed.code)
    except RestoreError as error:
        if os.environ.get("RESTORE_DEBUG") == "1":
            raise
        complain(error)
        sys.exit(error.code)
