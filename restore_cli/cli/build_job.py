"""Builds a Job from command-line options: one builder for each group of options."""

from __future__ import annotations

import re

from restore_cli.cli.inputs import choose_if_exists, read_inputs
from restore_cli.cli.options import InputFlags, ModelFlags, Options, OutputFlags, RunFlags
from restore_cli.errors import UsageError
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX, SUFFIX_BY_FORMAT
from restore_cli.image.resize import check_resize
from restore_cli.jobs.types import Job, ModelOptions, RunOptions
from restore_cli.pipeline.file import FileOptions
from restore_cli.pipeline.output import OutputOptions
from restore_cli.weights.catalogue import Request, read_catalogue

__all__ = ["build_job", "build_model_options"]


def build_job(task: str, options: Options) -> Job:
    """Return the job of a command that restores. Raises UsageError for invalid values."""
    return Job(
        model=build_model_options(task, options.model),
        file=build_file_options(options.input, options.output),
        inputs=read_inputs(options.input),
        output=options.output.output,
        run=build_run_options(options.run, options.output),
        format=parse_format(options.output.format),
    )


def build_model_options(task: str, flags: ModelFlags) -> ModelOptions:
    """Return the options of the model. Raises UsageError for invalid values."""
    check_minimum(flags, tile=0, overlap=0, batch=1)
    return ModelOptions(
        request=Request(task, flags.model, flags.variant, flags.scale, flags.noise, flags.quality),
        catalogue=read_catalogue(flags.catalogue),
        weights=flags.weights,
        offline=flags.offline,
        device=flags.device,
        precision=flags.precision,
        tile=flags.tile,
        overlap=flags.overlap,
        batch=flags.batch,
        memory=parse_memory(flags.memory),
        compile=flags.compile,
        tta=flags.tta,
    )


def build_file_options(inputs: InputFlags, outputs: OutputFlags) -> FileOptions:
    """Return the options of each file. Raises UsageError for invalid values."""
    output = OutputOptions(
        outputs.bit_depth,
        outputs.dither,
        outputs.alpha,
        outputs.icc,
        outputs.resize,
        outputs.strip,
        outputs.strength,
    )
    options = FileOptions(output, inputs.max_pixels, inputs.frame, outputs.jpeg_quality)
    if outputs.resize is not None:
        check_resize(outputs.resize, inputs.max_pixels)
    return options


def build_run_options(flags: RunFlags, outputs: OutputFlags) -> RunOptions:
    """Return the options of the batch, without a shard. Raises UsageError for invalid values."""
    check_minimum(flags, workers=1, gpus_per_worker=0)
    return RunOptions(
        if_exists=choose_if_exists(flags),
        compare_by_hash=flags.hash,
        keep_times=outputs.keep_times,
        compare=outputs.compare,
        fail_fast=flags.fail_fast,
        watch=flags.watch,
        cluster=flags.cluster,
        workers=flags.workers,
        gpus_per_worker=flags.gpus_per_worker,
    )


def check_minimum(options: ModelFlags | RunFlags, **minimum: int) -> None:
    """Raise UsageError for an option below its minimum."""
    for name, smallest in minimum.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected {smallest} or more")


def parse_format(name: str | None) -> str | None:
    """Return the name of a format. Raises UsageError if it is unknown."""
    found = FORMAT_BY_SUFFIX.get(f".{name.lower()}") if name else None
    if name and found is None:
        raise UsageError(f"--format {name}: expected {', '.join(value.lower() for value in SUFFIX_BY_FORMAT)}")
    return found


def parse_memory(text: str | None) -> int | None:
    """Return 1_500_000_000 for "1.5G". Raises UsageError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)([MGT])i?B?", text.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise UsageError(f"--memory {text}: expected a size", hint="--memory 1.5G")
    return int(float(found[1]) * {"M": 10**6, "G": 10**9, "T": 10**12}[found[2].upper()])
