"""Turns command-line options into a Job."""

from __future__ import annotations

import re
from dataclasses import replace

from restore_cli.cli.inputs import choose_if_exists, read_inputs
from restore_cli.cli.options import Options, Selection
from restore_cli.errors import UsageError
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX, SUFFIX_BY_FORMAT
from restore_cli.image.resize import check_resize
from restore_cli.jobs.run import Job
from restore_cli.pipeline.output import OutputOptions
from restore_cli.weights.catalogue import Request, read_catalogue

__all__ = ["add_files", "build_job"]


def build_job(task: str, options: Selection) -> Job:
    """Return a Job without inputs. Raises UsageError for invalid values."""
    check_minimum(options, tile=0, overlap=0, batch=1)
    request = Request(task, options.model, options.variant, options.scale, options.noise, options.quality)
    return Job(
        request=request,
        catalogue=read_catalogue(options.catalogue),
        weights=options.weights,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        compile=options.compile,
        memory=parse_memory(options.memory),
        offline=options.offline,
    )


def add_files(job: Job, options: Options) -> Job:
    """Return the job with its inputs and outputs. Raises UsageError for invalid values."""
    check_minimum(options, frame=1, jpeg_quality=1, max_pixels=1, workers=1, gpus_per_worker=0)
    if options.jpeg_quality is not None and options.jpeg_quality > 100:
        raise UsageError(f"--jpeg-quality {options.jpeg_quality}: expected 1 to 100")
    if options.resize is not None:
        check_resize(options.resize, options.max_pixels)
    return replace(
        job,
        inputs=read_inputs(options),
        output=options.output,
        if_exists=choose_if_exists(options),
        compare_by_hash=options.hash,
        keep_times=options.keep_times,
        fail_fast=options.fail_fast,
        watch=options.watch,
        cluster=options.cluster,
        workers=options.workers,
        gpus_per_worker=options.gpus_per_worker,
        format=parse_format(options.format),
        frame=options.frame,
        jpeg_quality=options.jpeg_quality,
        max_pixels=options.max_pixels,
        output_options=OutputOptions(
            options.bit_depth, options.dither, options.alpha, options.icc, options.resize, options.strip
        ),
    )


def check_minimum(options: Selection, **minimum: int) -> None:
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
