"""The options that commands share, each written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, TypeVar, get_type_hints

from typer import Argument, Option

__all__ = ["OF_TASK", "Options", "Selection", "command"]

Taken = TypeVar("Taken")

OF_TASK = {"scale": "sr", "noise": "denoise", "quality": "dejpeg"}
"""Options that one task alone has."""


def families(incomplete: str) -> list[str]:
    """Completion of --model."""
    from restore_cli.weights.catalogue import read_catalogue

    return sorted({entry.model for entry in read_catalogue().entries if entry.model.startswith(incomplete)})


def variants(incomplete: str) -> list[str]:
    """Completion of --variant."""
    from restore_cli.weights.catalogue import read_catalogue

    return sorted({entry.variant for entry in read_catalogue().entries if entry.variant.startswith(incomplete)})


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which model is meant and how it runs; each field is an option of that name."""

    model: Annotated[
        str | None,
        Option(
            "--model",
            "-m",
            help="Family: emt, lite, swinir, hat, restormer. Default: the task's.",
            autocompletion=families,
        ),
    ] = None
    variant: Annotated[
        str | None, Option(help="Variant of the family, as `restore models` lists them.", autocompletion=variants)
    ] = None
    scale: Annotated[int | None, Option("--scale", "-s", help="Enlarge so many times. Default: 4.")] = None
    noise: Annotated[str | None, Option(help="Noise: 15, 25, 50 (σ of 255), blind, real. Default: the model's.")] = None
    quality: Annotated[int | None, Option(help="JPEG quality, 1 to 100. Default: read from the file.")] = None
    weights: Annotated[
        Path | None, Option(help="A checkpoint file of any of the families instead: .pth or .safetensors.")
    ] = None
    device: Annotated[str, Option(help="auto, cpu, cuda, cuda:N, mps; several with commas, or all.")] = "auto"
    precision: Annotated[str, Option(help="auto, fp32, fp16, bf16.")] = "auto"
    tile: Annotated[int | None, Option(help="Largest side of a tile, input px; 0: no tiles. Default: the model's.")] = (
        None
    )
    overlap: Annotated[int | None, Option(help="Overlap of tiles, input px. Default: the model's.")] = None
    memory: Annotated[
        str | None,
        Option(help="What a model may take on its device: 1.5G, 800M. Default: most of what is there, of a GPU 3 GiB."),
    ] = None
    batch: Annotated[int | None, Option(help="Tiles at once. Default: 4 on a GPU, else 1.")] = None
    compile: Annotated[
        bool, Option("--compile", help="Try PyTorch's compiler first, keep what it makes if that is faster.")
    ] = False
    catalogue: Annotated[Path | None, Option(help="A file with more catalogue entries, like weights.toml.")] = None
    offline: Annotated[bool, Option("--offline", help="Use no network: only checkpoints that are on disk.")] = False


@dataclass(frozen=True, kw_only=True)
class Options(Selection):
    """What a task command takes."""

    inputs: Annotated[
        list[str] | None,
        Argument(help="Images, folders, patterns; - for one image from standard input.", show_default=False),
    ] = None
    files_from: Annotated[
        str | None, Option(help="A list of images, one a line; - for standard input.", metavar="FILE")
    ] = None
    null: Annotated[bool, Option("--null", "-0", help="The list is separated by NUL, as of find -print0.")] = False
    recursive: Annotated[bool, Option("--recursive/--no-recursive", help="Look into the folders of folders, too.")] = (
        True
    )
    follow_links: Annotated[bool, Option("--follow-links", help="Look into linked folders, too, each folder once.")] = (
        False
    )
    output: Annotated[
        str | None,
        Option(
            "--output", "-o", help="A file, a folder, a template with {stem} {task} {model} {scale}, or - for stdout."
        ),
    ] = None
    format: Annotated[
        str | None, Option(help="Output format: png, jpeg, webp, tiff, bmp, avif. Default: the input's.")
    ] = None
    frame: Annotated[int | None, Option(help="Only this frame or page, counted from 1. Default: all.")] = None
    resize: Annotated[str | None, Option(help="Final size: 2x of the input, WIDTHxHEIGHT, WIDTHx or xHEIGHT.")] = None
    bit_depth: Annotated[str, Option(help="auto (the input's), 8, 16.")] = "auto"
    dither: Annotated[bool, Option("--dither", help="Dither where the output has 8 bits.")] = False
    alpha: Annotated[str, Option(help="Transparency of enlarged pictures: model, lanczos, drop.")] = "model"
    icc: Annotated[str, Option(help="Colour profile: keep, or srgb to convert to sRGB.")] = "keep"
    jpeg_quality: Annotated[int | None, Option(help="1 to 100. Default: the source's, at least 90; else 95.")] = None
    strip: Annotated[bool, Option("--strip", help="Leave out all metadata but the colour profile.")] = False
    max_pixels: Annotated[int, Option(help="Refuse images of more px, and a --resize to more.")] = 2_000_000_000
    resume: Annotated[
        bool, Option("--resume", help="Skip what is done, redo what was changed since; this is the default.")
    ] = False
    skip_existing: Annotated[bool, Option("--skip-existing", help="Skip whatever has an output of that name.")] = False
    overwrite: Annotated[bool, Option("--overwrite", help="Write outputs again that are there already.")] = False
    hash: Annotated[bool, Option("--hash", help="See by its sha256 whether an input was changed, not by its time.")] = (
        False
    )
    keep_times: Annotated[bool, Option("--keep-times", help="Give outputs the times of their inputs.")] = False
    fail_fast: Annotated[bool, Option("--fail-fast", help="Take up no more pictures once one has failed.")] = False
    shard: Annotated[
        str | None,
        Option(help="Only part I of N of the inputs. Default: of the SLURM array or RANK/WORLD_SIZE.", metavar="I/N"),
    ] = None
    watch: Annotated[bool, Option("--watch", help="Go on with what appears in the folders, until stopped.")] = False
    cluster: Annotated[
        str | None, Option(help="Restore on a Ray cluster: auto, or its address.", metavar="ADDRESS")
    ] = None
    workers: Annotated[int | None, Option(help="Workers on the cluster. Default: as many as fit.")] = None
    gpus_per_worker: Annotated[
        float | None, Option(help="GPUs of each worker; 0 for the CPU. Default: 1 where the cluster has some.")
    ] = None
    compare: Annotated[
        bool, Option("--compare", help="Write a sheet of input and result beside the result: NAME_compare.png.")
    ] = False
    dry_run: Annotated[
        bool, Option("--dry-run", help="Only say what would be read, written and fetched, and how long it may take.")
    ] = False
    json: Annotated[bool, Option("--json", help="One JSON object per picture on standard output, a summary last.")] = (
        False
    )
    log: Annotated[Path | None, Option(help="Append every event to this file.", metavar="FILE")] = None
    quiet: Annotated[bool, Option("--quiet", "-q", help="Say nothing but errors.")] = False


def command(kind: type[Taken], perform: Callable[[Taken], None], without: Collection[str] = ()) -> Callable[..., None]:
    """`perform` as a function whose parameters, for typer to read, are the fields of `kind`, less those `without`."""

    def execute(**given: object) -> None:
        perform(kind(**given))  # typer has checked them against these very types

    hints = get_type_hints(kind, include_extras=True)
    taken = [field for field in fields(kind) if field.name not in without]  # type: ignore[arg-type]  # a dataclass
    execute.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in taken
        ]
    )
    execute.__annotations__ = hints
    return execute
