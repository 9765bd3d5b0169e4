"""`restore sr`, `denoise`, `deblur`, `derain`, `dejpeg`: names and options, and nothing that takes long to load."""

from __future__ import annotations

from functools import partial

import typer

from restore_cli.cli.options import OF_TASK, Options, command
from restore_cli.cli.parsing import Command

__all__ = ["add_tasks"]

HELP = {
    "sr": "Enlarge pictures (super-resolution).",
    "denoise": "Remove noise.",
    "deblur": "Remove motion blur, or with --variant defocus the blur of a lens out of focus.",
    "derain": "Remove rain.",
    "dejpeg": "Remove the artefacts of JPEG compression.",
}


def add_tasks(app: typer.Typer) -> None:
    """Five commands with one set of options."""
    for task, text in HELP.items():
        others = [name for name, only in OF_TASK.items() if only != task]
        app.command(task, cls=Command, help=text)(command(Options, partial(start, task), others))


def start(task: str, options: Options) -> None:
    """Load what the work needs, which `--help` does not, and do it."""
    from restore_cli.cli.perform import perform

    perform(task, options)
