"""The options of the commands. Each option is declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeGuard, TypeVar, get_type_hints

from typer import Argument, Option

from restore_cli.limits import MAX_PIXELS

__all__ = ["OF_TASK", "InputFlags", "ModelFlags", "Options", "OutputFlags", "RunFlags", "command", "list_options"]

Taken = TypeVar("Taken")

OF_TASK = {"scale": "sr", "noise": "denoise", "quality": "dejpeg"}
"""options that only one task has"""

MODEL, INPUT, OUTPUT, IMAGE = "Model", "Input", "Output", "Image"
MEASUREMENT, SPEED, BATCH, REPORTING = "Measurement", "Speed and memory", "Batch", "Reporting"
OTHER = "Options"
PANELS = (None, MODEL, INPUT, OUTPUT, IMAGE, MEASUREMENT, SPEED, BATCH, REPORTING, OTHER)
"""The panels of a help page in their order. Arguments have no panel."""


def option(
    help: str,
    panel: str | None,
    metavar: str | None,
    default: object = None,
    *,
    short: str | None = None,
    complete: Callable[[str], list[str]] | None = None,
) -> Any:  # noqa: ANN401  # the field states its type
    """Return a field that is an option of the same name. MISSING as its default makes it required.

    The help page shows the default unless the text describes it.
    """
    shown = {"help": help, "rich_help_panel": panel, "metavar": metavar, "show_default": "Default:" not in help}
    return field(default=default, metadata={"short": short, "typer": shown | {"autocompletion": complete}})


def flag(help: str, panel: str, *, short: str | None = None, default: bool = False) -> bool:
    """Return a field that is an option without a value."""
    found: bool = option(help, panel, None, default, short=short)
    return found


def complete_field(name: str) -> Callable[[str], list[str]]:
    """Return a function that completes a word by that field of the catalogue's entries."""

    def complete(incomplete: str) -> list[str]:
        from restore_cli.weights.catalogue import read_catalogue

        values = {str(getattr(entry, name)) for entry in read_catalogue().entries}
        return sorted(value for value in values if value.startswith(incomplete))

    return complete


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Options of the model. Each field is an option of the same name."""

    model: str | None = option(
        "Model family: emt, lite, swinir, hat or restormer. Default: depends on the task.",
        MODEL,
        "FAMILY",
        short="-m",
        complete=complete_field("model"),
    )
    variant: str | None = option(
        "Variant of the family; `restore models` lists them.", MODEL, "NAME", complete=complete_field("variant")
    )
    scale: int | None = option("Enlarge by this factor. Default: 4.", MODEL, "N", short="-s")
    noise: str | None = option(
        "Noise to remove: 15, 25 or 50 (σ of 255), blind, or real. Default: the model's.", MODEL, "LEVEL"
    )
    quality: int | None = option("JPEG quality of the input, 1 to 100. Default: read from the file.", MODEL, "N")
    weights: Path | None = option(
        "Use this checkpoint file (.pth or .safetensors) instead of one from the catalogue.", MODEL, "FILE"
    )
    catalogue: Path | None = option(
        "Also read checkpoints from this file, which has the form of weights.toml.", MODEL, "FILE"
    )
    offline: bool = flag("Do not use the network, only checkpoints that are on this disk.", MODEL)
    tta: bool = flag("Average eight passes over flipped and rotated tiles. Takes eight times as long.", MODEL)
    device: str = option(
        "auto, cpu, cuda, cuda:N or mps; several separated by commas; or all.", SPEED, "DEVICE", "auto"
    )
    precision: str = option("auto, fp32, fp16 or bf16.", SPEED, "NAME", "auto")
    tile: int | None = option(
        "Longest side of a tile in input pixels; 0 turns tiling off. Default: as memory allows.", SPEED, "N"
    )
    overlap: int | None = option("Overlap of neighbouring tiles in input pixels. Default: the model's.", SPEED, "N")
    batch: int | None = option("Tiles per batch. Default: 4 on a GPU, otherwise 1; 1 with --tile.", SPEED, "N")
    memory: str | None = option(
        "Memory that a model may use on its device, such as 1.5G or 800M. "
        "Default: most of what is free; on a GPU at most 3 GiB.",
        SPEED,
        "SIZE",
    )
    compile: bool = flag("Try PyTorch's compiler and use its code if that is faster.", SPEED)


@dataclass(frozen=True, kw_only=True)
class InputFlags:
    """Options of the inputs."""

    inputs: list[str] | None = option(
        "Images, folders or patterns; - reads one image from standard input.", None, "INPUTS"
    )
    files_from: str | None = option(
        "Read the paths of the inputs from this file, one per line; - for standard input.", INPUT, "FILE"
    )
    null: bool = flag("Paths in the list are separated by NUL bytes, as find -print0 writes them.", INPUT, short="-0")
    recursive: bool = flag("Search sub-folders.", INPUT, default=True)
    follow_links: bool = flag("Search linked folders too, each folder once.", INPUT)
    frame: int | None = option("Restore only this frame or page, counted from 1. Default: all.", INPUT, "N")
    max_pixels: int = option(
        "Refuse images of more pixels, and a --resize to more. Default: 2 billion.", INPUT, "N", MAX_PIXELS
    )


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """Options of the outputs."""

    output: str | None = option(
        "A file, a folder, a template with {stem} {task} {model} {scale}, or - for standard output. "
        "Default: beside the input.",
        OUTPUT,
        "PATH",
        short="-o",
    )
    format: str | None = option(
        "Output format: png, jpeg, webp, tiff, bmp or avif. Default: the input's; sr writes lossy inputs as png.",
        OUTPUT,
        "NAME",
    )
    compare: bool = flag("Also write NAME_compare.png, which shows input and result side by side.", OUTPUT)
    keep_times: bool = flag("Give each output the modification time of its input.", OUTPUT)
    resize: str | None = option("Final size: 2x (of the input), 800x600, 800x (width) or x600 (height).", IMAGE, "SIZE")
    bit_depth: str = option("Bits per channel: auto (as the input), 8 or 16.", IMAGE, "BITS", "auto")
    dither: bool = flag("Dither when rounding to 8 bits.", IMAGE)
    alpha: str = option("Transparency of enlarged images: model, lanczos or drop.", IMAGE, "MODE", "model")
    icc: str = option("Colour profile: keep it, or convert to srgb.", IMAGE, "MODE", "keep")
    jpeg_quality: int | None = option(
        "Quality of JPEG outputs, 1 to 100. Default: the input's, but at least 90; 95 for other inputs.", IMAGE, "N"
    )
    strength: float = option(
        "Blend the result with the input: 1 is the restored image, 0 the input, enlarged for sr.", IMAGE, "N", 1.0
    )
    strip: bool = flag("Write no metadata except the colour profile.", IMAGE)


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Options of the batch and of its reports."""

    resume: bool = flag(
        "Skip what is done; redo it if the input or the options have changed. This is the default.", BATCH
    )
    skip_existing: bool = flag("Skip every input whose output file exists.", BATCH)
    overwrite: bool = flag("Write outputs again that exist already.", BATCH)
    hash: bool = flag("Compare inputs by sha256 instead of size and time to see whether they have changed.", BATCH)
    fail_fast: bool = flag("Stop after the first image that fails.", BATCH)
    dry_run: bool = flag("Only show what would be read, written and downloaded, and estimate the time.", BATCH)
    watch: bool = flag("Also restore images that appear later, until stopped.", BATCH)
    shard: str | None = option(
        "Restore only part I of N. Default: from SLURM array variables, or RANK and WORLD_SIZE.", BATCH, "I/N"
    )
    cluster: str | None = option("Run on a Ray cluster: auto, or its address.", BATCH, "ADDRESS")
    workers: int | None = option("Number of workers on the cluster. Default: as many as fit.", BATCH, "N")
    gpus_per_worker: float | None = option(
        "GPUs of each worker; 0 uses the CPU. Default: 1 if the cluster has GPUs.", BATCH, "N"
    )
    json: bool = flag("Print one JSON object per image on standard output, then a summary.", REPORTING)
    log: Path | None = option("Append results, notes and the summary to this file.", REPORTING, "FILE")
    quiet: bool = flag("Print only errors.", REPORTING, short="-q")


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
    """Return the field and the type of each option of `kind` and of its groups, by name."""
    hints, found = get_type_hints(kind), dict[str, tuple[Field[Any], Any]]()
    for entry in fields(kind):
        hint = hints[entry.name]
        found |= list_options(hint) if is_group(hint) else {entry.name: (entry, hint)}
    return found


def make_parameter(option: Field[Any], hint: object) -> inspect.Parameter:
    """Return the parameter that typer reads as this option."""
    name, shown = option.name.replace("_", "-"), option.metadata["typer"]
    names = [f"--{name}/--no-{name}" if option.default is True else f"--{name}", option.metadata["short"]]
    read = Argument(**shown) if shown["rich_help_panel"] is None else Option(*filter(None, names), **shown)
    default = inspect.Parameter.empty if option.default is MISSING else option.default
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, read]
    )


def command(kind: type[Taken], perform: Callable[[Taken], None], without: Collection[str] = ()) -> Callable[..., None]:
    """Return `perform` as a function that typer reads: its parameters are the options of `kind`, less `without`."""
    options = [option for name, option in list_options(kind).items() if name not in without]
    groups = {name: hint for name, hint in get_type_hints(kind).items() if is_group(hint)}

    def execute(**given: object) -> None:
        built = {
            name: group(**{n: given.pop(n) for n in list_options(group) if n in given})
            for name, group in groups.items()
        }
        perform(kind(**built, **given))  # typer has checked the types

    options.sort(key=lambda option: PANELS.index(option[0].metadata["typer"]["rich_help_panel"]))
    parameters = [make_parameter(*option) for option in options]
    execute.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    execute.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return execute
