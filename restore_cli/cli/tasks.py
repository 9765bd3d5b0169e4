"""Declares `restore sr`, `denoise`, `deblur`, `derain` and `dejpeg` without slow imports."""

from __future__ import annotations

from functools import partial

import typer

from restore_cli.cli.options import OF_TASK, Options, command
from restore_cli.cli.parsing import Command, examples

__all__ = ["add_tasks"]

HELP = {
    "sr": "Enlarge images (super-resolution).",
    "denoise": "Remove noise.",
    "deblur": "Remove motion blur, or with --variant defocus the blur of a lens out of focus.",
    "derain": "Remove rain.",
    "dejpeg": "Remove the artefacts of JPEG compression.",
}

EXAMPLES = {
    "sr": examples(
        ("Enlarge four times and write photo_sr4.png", "restore sr photo.png"),
        ("Enlarge twice with HAT, a whole folder", "restore sr --model hat -s 2 photos/ -o large/"),
        ("Enlarge small, compressed images from the web", "restore sr --model lite --variant real web.jpg"),
        ("Enlarge to a given width", "restore sr photo.png --resize 3000x -o wide.png"),
    ),
    "denoise": examples(
        ("Remove noise of unknown strength and write photo_denoise.jpg", "restore denoise photo.jpg"),
        ("Restore a folder into the same tree under clean/", "restore denoise photos/ -o clean/"),
        (
            "Use the network that was trained on real cameras",
            "restore denoise --model restormer --noise real photo.jpg",
        ),
        ("Show what would be done, and how long it may take", "restore denoise photos/ -o clean/ --dry-run"),
    ),
    "deblur": examples(
        ("Remove motion blur and write photo_deblur.jpg", "restore deblur photo.jpg"),
        ("Remove the blur of a lens out of focus", "restore deblur --variant defocus photo.jpg -o sharp.png"),
    ),
    "derain": examples(
        ("Remove rain and write street_derain.jpg", "restore derain street.jpg"),
        ("Restore a folder into the same tree under dry/", "restore derain photos/ -o dry/"),
    ),
    "dejpeg": examples(
        ("Repair a JPEG and write photo_dejpeg.jpg", "restore dejpeg photo.jpg"),
        ("Choose the checkpoint by the quality of the file", "restore dejpeg --model swinir photo.jpg"),
        ("Read a list of files", "find . -name '*.jpg' -print0 | restore dejpeg --files-from - -0 -o out/"),
    ),
}


def add_tasks(app: typer.Typer) -> None:
    """Add the five commands, which share their options."""
    for task, text in HELP.items():
        others = [name for name, only in OF_TASK.items() if only != task]
        app.command(task, cls=Command, help=text, epilog=EXAMPLES[task])(
            command(Options, partial(import_and_run, task), others)
        )


def import_and_run(task: str, options: Options) -> None:
    """Import what the work needs, and do it. `--help` does not import it."""
    from restore_cli.cli.run_task import run_task

    run_task(task, options)
