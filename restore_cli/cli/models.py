"""`restore models`: lists, downloads, verifies and removes checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from restore_cli.cli.console import Downloads, complain, escape_controls, note, say, say_table
from restore_cli.cli.parsing import Command, Group, examples
from restore_cli.cli.sources import CatalogueOption, sources
from restore_cli.errors import NothingToDo, WeightsError, WeightsUnavailable
from restore_cli.weights.catalogue import Catalogue, read_catalogue
from restore_cli.weights.entry import Entry
from restore_cli.weights.fetch import fetch
from restore_cli.weights.store import locate, remove, verify

__all__ = ["models"]

EXAMPLES = examples(
    ("List the checkpoints that enlarge", "restore models --task sr"),
    ("Show where one comes from, its licence and the command that uses it", "restore models info hat-x4"),
    ("Download two now, so that later runs need no network", "restore models pull hat-x4 restormer-derain"),
)

models = typer.Typer(
    cls=Group,
    help="List, download, verify and remove checkpoints.",
    epilog=EXAMPLES,
    no_args_is_help=False,
)

TaskOption = Annotated[str | None, typer.Option(help="List only checkpoints for this task.", metavar="TASK")]
FamilyOption = Annotated[
    str | None, typer.Option("--model", "-m", help="List only checkpoints of this family.", metavar="FAMILY")
]
NameArgument = Annotated[
    str, typer.Argument(help="A checkpoint that `restore models` lists.", metavar="NAME", show_default=False)
]
NamesArgument = Annotated[
    list[str], typer.Argument(help="Checkpoints that `restore models` lists.", metavar="NAMES", show_default=False)
]


@models.callback(invoke_without_command=True)
def default(
    context: typer.Context, task: TaskOption = None, model: FamilyOption = None, catalogue: CatalogueOption = None
) -> None:
    """List, download, verify and remove checkpoints."""
    if context.invoked_subcommand is None:
        show(task, model, catalogue)


@models.command("list", cls=Command)
def show(task: TaskOption = None, model: FamilyOption = None, catalogue: CatalogueOption = None) -> None:
    """List the checkpoints: name, task, scale, parameters, size, licence, and whether it is on disk."""
    known = read_catalogue(catalogue).entries
    entries = [entry for entry in known if task in (None, entry.task) and model in (None, entry.model)]
    if not entries:
        asked = " ".join(filter(None, (task, model)))
        raise NothingToDo(f"no checkpoint in the catalogue is for {asked}", hint="restore models")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "task", "scale", "parameters", "size", "licence", "on disk"):
        numeric = heading in ("scale", "parameters", "size")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=heading != "licence")
    for entry in entries:
        table.add_row(*(escape(escape_controls(cell)) for cell in table_cells(entry)))
    say_table(table)


def table_cells(entry: Entry) -> Iterable[str]:
    yield entry.name
    yield entry.task
    yield f"×{entry.scale}"
    yield f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "?"
    yield f"{entry.bytes / 1e6:.0f} MB" if entry.bytes else "?"
    yield entry.license
    yield "yes" if locate(entry) else ""


@models.command(cls=Command)
def info(name: NameArgument, catalogue: CatalogueOption = None) -> None:
    """Show everything about one checkpoint, and the command that uses it."""
    entry = read_catalogue(catalogue).find_entry(name)
    path = locate(entry)
    config = ", ".join(f"{key} {value}" for key, value in entry.config.items())
    facts = {
        "name": entry.name,
        "title": entry.title,
        "command": example_command(entry),
        "architecture": f"{entry.architecture}: {config}",
        "parameters": f"{entry.parameters:,}" if entry.parameters else None,
        "licence": entry.license,
        "terms": entry.license_note,
        "paper": entry.paper,
        "sha256": entry.sha256 or "not published; the one of the first download is recorded and enforced",
        "size": f"{entry.bytes:,} bytes" if entry.bytes else "not known",
        "made from": f"{entry.origin.url}, sha256 {entry.origin.sha256}" if entry.origin else None,
        "on disk": str(path) if path else "no",
        "one service": entry.single_source,
    }
    for key, value in facts.items():
        if value:
            say(f"{key:13} {value}")
    for source in entry.sources:
        say(f"{'source':13} {describe_source(source)}")


def describe_source(source: object) -> str:
    """Return a source with its address."""
    revision = f" {getattr(source, 'file', '')} @ {str(source.revision)[:12]}" if hasattr(source, "revision") else ""
    return str(getattr(source, "url", f"{source}{revision}"))


def example_command(entry: Entry) -> str:
    """Return the shortest command that uses the checkpoint."""
    parts = ["restore", entry.task, "--model", entry.model, "--variant", entry.variant]
    parts += ["-s", str(entry.scale)] if entry.task == "sr" else []
    parts += ["--noise", entry.noise] if entry.noise else []
    parts += ["--quality", str(entry.quality)] if entry.quality else []
    return " ".join([*parts, "in.png"])


@models.command(cls=Command)
def pull(
    names: NamesArgument,
    force: Annotated[bool, typer.Option("--force", help="Download again even if it is on disk.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
    catalogue: CatalogueOption = None,
) -> None:
    """Download checkpoints now, so that later runs need no network."""
    known = read_catalogue(catalogue)
    downloads = Downloads(known.find_entry, quiet)
    for entry in [known.find_entry(name) for name in names]:
        path = fetch(entry, force=force, on_event=downloads.handle)
        if not quiet:
            say(f"{entry.name}  {path}")


@models.command("verify", cls=Command)
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Checkpoints. Default: all that are on disk.", metavar="NAMES")
    ] = None,
    catalogue: CatalogueOption = None,
) -> None:
    """Check the sha256 of the checkpoints on disk."""
    failures: list[WeightsError] = []
    for entry in select_entries(read_catalogue(catalogue), names):
        try:
            if verify(entry) is None:
                raise make_missing_error(entry)
            say(f"{entry.name}  sound")
        except WeightsError as error:
            complain(error)
            failures.append(error)
    if failures:
        raise typer.Exit(WeightsError.code)


def select_entries(catalogue: Catalogue, names: list[str] | None) -> list[Entry]:
    """Return the named entries, or all that are on disk. Raises NothingToDo if there are none."""
    if names:
        return [catalogue.find_entry(name) for name in names]
    there = [entry for entry in catalogue.entries if locate(entry)]
    if not there:
        raise NothingToDo("no checkpoint is on disk yet", hint="restore models")
    return there


@models.command("path", cls=Command)
def where(name: NameArgument, catalogue: CatalogueOption = None) -> None:
    """Print the path of a checkpoint on this disk."""
    entry = read_catalogue(catalogue).find_entry(name)
    path = locate(entry)
    if path is None:
        raise make_missing_error(entry)
    say(str(path))


def make_missing_error(entry: Entry) -> WeightsUnavailable:
    """Return the error for a checkpoint that is not on disk."""
    return WeightsUnavailable(f"{entry.name} is not on this disk", hint=f"restore models pull {entry.name}")


@models.command("rm", cls=Command)
def delete(names: NamesArgument, catalogue: CatalogueOption = None) -> None:
    """Remove checkpoints from this disk."""
    known = read_catalogue(catalogue)
    for entry in [known.find_entry(name) for name in names]:
        note(f"{entry.name} {'removed' if remove(entry) else 'was not on disk'}")


models.command("sources", cls=Command)(sources)
