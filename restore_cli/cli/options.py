"""The options of the commands. Each option is declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeGuard, TypeVar, get_type_hints

from typer import Argument, Option

__all__ = ["OF_TASK", "InputFlags", "ModelFlags", "Options", "OutputFlags", "RunFlags", "command", "list_options"]

Taken = TypeVar("Taken")

OF_TASK = {"scale": "sr", "noise": "denoise", "quality": "dejpeg"}
"""options that only one task has"""

MODEL, INPUT, OUTPUT, IMAGE = "Model", "Input", "Output", "Image"
MEASUREMENT, SPEED, BATCH, REPORTING = "Measurement", "Speed and memory", "Batch", "Reporting"
PANELS = (None, MODEL, INPUT, OUTPUT, IMAGE, MEASUREMENT, SPEED, BATCH, REPORTING)
"""The panels of a help page in their order. Arguments have no panel."""


def complete_families(incomplete: str) -> list[str]:
    """Return completions of --model."""
    from restore_cli.weights.catalogue import read_catalogue

    return sorted({entry.model for entry in read_catalogue().entries if entry.model.startswith(incomplete)})


def complete_variants(incomplete: str) -> list[str]:
    """Return completions of --variant."""
    from restore_cli.weights.catalogue import read_catalogue

    return sorted({entry.variant for entry in read_catalogue().entries if entry.variant.startswith(incomplete)})


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Options of the model. Each field is an option of the same name."""

    model: Annotated[
        str | None,
        Option(
            "--model",
            "-m",
            help="Model family: emt, lite, swinir, hat or restormer. Default: depends on the task.",
            metavar="FAMILY",
            autocompletion=complete_families,
            rich_help_panel=MODEL,
        ),
    ] = None
    variant: Annotated[
        str | None,
        Option(
            help="Variant of the family; `restore models` lists them.",
            metavar="NAME",
            autocompletion=complete_variants,
            rich_help_panel=MODEL,
        ),
    ] = None
    scale: Annotated[
        int | None,
        Option("--scale", "-s", help="Enlarge by this factor. Default: 4.", metavar="N", rich_help_panel=MODEL),
    ] = None
    noise: Annotated[
        str | None,
        Option(
            help="Noise to remove: 15, 25 or 50 (σ of 255), blind, or real. Default: the model's.",
            metavar="LEVEL",
            rich_help_panel=MODEL,
        ),
    ] = None
    quality: Annotated[
        int | None,
        Option(
            help="JPEG quality of the input, 1 to 100. Default: read from the file.",
            metavar="N",
            rich_help_panel=MODEL,
        ),
    ] = None
    weights: Annotated[
        Path | None,
        Option(
            help="Use this checkpoint file (.pth or .safetensors) instead of one from the catalogue.",
            metavar="FILE",
            rich_help_panel=MODEL,
        ),
    ] = None
    catalogue: Annotated[
        Path | None,
        Option(
            help="Also read checkpoints from this file, which has the form of weights.toml.",
            metavar="FILE",
            rich_help_panel=MODEL,
        ),
    ] = None
    offline: Annotated[
        bool,
        Option(
            "--offline", help="Do not use the network, only checkpoints that are on this disk.", rich_help_panel=MODEL
        ),
    ] = False
    device: Annotated[
        str,
        Option(
            help="auto, cpu, cuda, cuda:N or mps; several separated by commas; or all.",
            metavar="DEVICE",
            rich_help_panel=SPEED,
        ),
    ] = "auto"
    precision: Annotated[str, Option(help="auto, fp32, fp16 or bf16.", metavar="NAME", rich_help_panel=SPEED)] = "auto"
    tile: Annotated[
        int | None,
        Option(
            help="Longest side of a tile in input pixels; 0 turns tiling off. Default: as memory allows.",
            metavar="N",
            rich_help_panel=SPEED,
        ),
    ] = None
    overlap: Annotated[
        int | None,
        Option(
            help="Overlap of neighbouring tiles in input pixels. Default: the model's.",
            metavar="N",
            rich_help_panel=SPEED,
        ),
    ] = None
    batch: Annotated[
        int | None,
        Option(help="Tiles per batch. Default: 4 on a GPU, otherwise 1.", metavar="N", rich_help_panel=SPEED),
    ] = None
    memory: Annotated[
        str | None,
        Option(
            help="Memory that a model may use on its device, such as 1.5G or 800M. "
            "Default: most of what is free; on a GPU at most 3 GiB.",
            metavar="SIZE",
            rich_help_panel=SPEED,
        ),
    ] = None
    compile: Annotated[
        bool,
        Option("--compile", help="Try PyTorch's compiler and use its code if that is faster.", rich_help_panel=SPEED),
    ] = False


@dataclass(frozen=True, kw_only=True)
class InputFlags:
    """Options of the inputs."""

    inputs: Annotated[
        list[str] | None,
        Argument(
            help="Images, folders or patterns; - reads one image from standard input.",
            metavar="INPUTS",
            show_default=False,
        ),
    ] = None
    files_from: Annotated[
        str | None,
        Option(
            help="Read the paths of the inputs from this file, one per line; - for standard input.",
            metavar="FILE",
            rich_help_panel=INPUT,
        ),
    ] = None
    null: Annotated[
        bool,
        Option(
            "--null",
            "-0",
            help="Paths in the list are separated by NUL bytes, as find -print0 writes them.",
            rich_help_panel=INPUT,
        ),
    ] = False
    recursive: Annotated[
        bool, Option("--recursive/--no-recursive", help="Search sub-folders.", rich_help_panel=INPUT)
    ] = True
    follow_links: Annotated[
        bool,
        Option("--follow-links", help="Search linked folders too, each folder once.", rich_help_panel=INPUT),
    ] = False
    frame: Annotated[
        int | None,
        Option(
            help="Restore only this frame or page, counted from 1. Default: all.", metavar="N", rich_help_panel=INPUT
        ),
    ] = None
    max_pixels: Annotated[
        int,
        Option(
            help="Refuse images of more pixels, and a --resize to more. Default: 2 billion.",
            show_default=False,
            metavar="N",
            rich_help_panel=INPUT,
        ),
    ] = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """Options of the outputs."""

    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            help="A file, a folder, a template with {stem} {task} {model} {scale}, or - for standard output. "
            "Default: beside the input.",
            metavar="PATH",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    format: Annotated[
        str | None,
        Option(
            help="Output format: png, jpeg, webp, tiff, bmp or avif. Default: the input's; "
            "sr writes lossy inputs as png.",
            metavar="NAME",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    compare: Annotated[
        bool,
        Option(
            "--compare",
            help="Also write NAME_compare.png, which shows input and result side by side.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    keep_times: Annotated[
        bool,
        Option("--keep-times", help="Give each output the modification time of its input.", rich_help_panel=OUTPUT),
    ] = False
    resize: Annotated[
        str | None,
        Option(
            help="Final size: 2x (of the input), 800x600, 800x (width) or x600 (height).",
            metavar="SIZE",
            rich_help_panel=IMAGE,
        ),
    ] = None
    bit_depth: Annotated[
        str,
        Option(help="Bits per channel: auto (as the input), 8 or 16.", metavar="BITS", rich_help_panel=IMAGE),
    ] = "auto"
    dither: Annotated[bool, Option("--dither", help="Dither when rounding to 8 bits.", rich_help_panel=IMAGE)] = False
    alpha: Annotated[
        str,
        Option(
            help="Transparency of enlarged images: model, lanczos or drop.",
            metavar="MODE",
            rich_help_panel=IMAGE,
        ),
    ] = "model"
    icc: Annotated[
        str,
        Option(help="Colour profile: keep it, or convert to srgb.", metavar="MODE", rich_help_panel=IMAGE),
    ] = "keep"
    jpeg_quality: Annotated[
        int | None,
        Option(
            help="Quality of JPEG outputs, 1 to 100. Default: the input's, but at least 90; 95 for other inputs.",
            metavar="N",
            rich_help_panel=IMAGE,
        ),
    ] = None
    strip: Annotated[
        bool, Option("--strip", help="Write no metadata except the colour profile.", rich_help_panel=IMAGE)
    ] = False


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Options of the batch and of its reports."""

    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Skip what is done; redo it if the input or the options have changed. This is the default.",
            rich_help_panel=BATCH,
        ),
    ] = False
    skip_existing: Annotated[
        bool,
        Option("--skip-existing", help="Skip every input whose output file exists.", rich_help_panel=BATCH),
    ] = False
    overwrite: Annotated[
        bool, Option("--overwrite", help="Write outputs again that exist already.", rich_help_panel=BATCH)
    ] = False
    hash: Annotated[
        bool,
        Option(
            "--hash",
            help="Compare inputs by sha256 instead of size and time to see whether they have changed.",
            rich_help_panel=BATCH,
        ),
    ] = False
    fail_fast: Annotated[
        bool, Option("--fail-fast", help="Stop after the first image that fails.", rich_help_panel=BATCH)
    ] = False
    dry_run: Annotated[
        bool,
        Option(
            "--dry-run",
            help="Only show what would be read, written and downloaded, and estimate the time.",
            rich_help_panel=BATCH,
        ),
    ] = False
    watch: Annotated[
        bool,
        Option("--watch", help="Also restore images that appear later, until stopped.", rich_help_panel=BATCH),
    ] = False
    shard: Annotated[
        str | None,
        Option(
            help="Restore only part I of N. Default: from SLURM array variables, or RANK and WORLD_SIZE.",
            metavar="I/N",
            rich_help_panel=BATCH,
        ),
    ] = None
    cluster: Annotated[
        str | None,
        Option(help="Run on a Ray cluster: auto, or its address.", metavar="ADDRESS", rich_help_panel=BATCH),
    ] = None
    workers: Annotated[
        int | None,
        Option(help="Number of workers on the cluster. Default: as many as fit.", metavar="N", rich_help_panel=BATCH),
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        Option(
            help="GPUs of each worker; 0 uses the CPU. Default: 1 if the cluster has GPUs.",
            metavar="N",
            rich_help_panel=BATCH,
        ),
    ] = None
    json: Annotated[
        bool,
        Option(
            "--json",
            help="Print one JSON object per image on standard output, then a summary.",
            rich_help_panel=REPORTING,
        ),
    ] = False
    log: Annotated[
        Path | None, Option(help="Append every event to this file.", metavar="FILE", rich_help_panel=REPORTING)
    ] = None
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print only errors.", rich_help_panel=REPORTING)] = False


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the commands that restore."""

    model: ModelFlags
    input: InputFlags
    output: OutputFlags
    run: RunFlags


def is_group(hint: object) -> TypeGuard[type[Any]]:
    """Whether the annotation of a field is a group of options."""
    return isinstance(hint, type) and is_dataclass(hint)


def list_options(kind: type[Any]) -> dict[str, tuple[Field[Any], Any]]:
    """Return the field and the annotation of each option of `kind` and of its groups, by name."""
    hints, found = get_type_hints(kind, include_extras=True), dict[str, tuple[Field[Any], Any]]()
    for field in fields(kind):
        hint = hints[field.name]
        found |= list_options(hint) if is_group(hint) else {field.name: (field, hint)}
    return found


def command(kind: type[Taken], perform: Callable[[Taken], None], without: Collection[str] = ()) -> Callable[..., None]:
    """Return `perform` as a function that typer reads: its parameters are the options of `kind`, less `without`."""
    options = {name: option for name, option in list_options(kind).items() if name not in without}
    groups = {name: hint for name, hint in get_type_hints(kind).items() if is_group(hint)}

    def execute(**given: object) -> None:
        built = {
            name: group(**{n: given.pop(n) for n in list_options(group) if n in given})
            for name, group in groups.items()
        }
        perform(kind(**built, **given))  # typer has checked the types

    def panel(name: str) -> int:
        return PANELS.index(options[name][1].__metadata__[0].rich_help_panel)

    execute.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hint,
            )
            for name, (field, hint) in sorted(options.items(), key=lambda option: panel(option[0]))
        ]
    )
    execute.__annotations__ = {name: hint for name, (_, hint) in options.items()}
    return execute
