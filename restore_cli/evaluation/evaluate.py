"""How well pictures are restored: pairs of files in, rows of measures out.

Everything is measured on 8 bits, as a file would hold it and as the published scripts do; alpha is left out. An image
of another kind is brought there by its own peak and rounded once: a reference when it is read, a result when it is
measured, while the model sees its input unrounded. Gray
counts as R = G = B where the other picture has colours; of two gray pictures the RGB measures are those of the one
channel, and Y is the same as for three equal channels.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restore_cli.errors import ImageError, OutOfMemory, RestoreError, UsageError
from restore_cli.evaluation.degrade import add_noise, compress_jpeg, imresize
from restore_cli.evaluation.metrics import luma, psnr, psnr_b, seam, ssim
from restore_cli.evaluation.pairing import pair_files
from restore_cli.image.codec import decode_finite, probe
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX
from restore_cli.image.formats.samples import round_to_8_bits
from restore_cli.image.picture import PEAK, Header, Samples
from restore_cli.jobs.discovery import collect_inputs
from restore_cli.jobs.events import OnEvent, PictureStarted, TileDone, ignore_event
from restore_cli.jobs.model_cache import ModelCache, check_request, describe_fallbacks, request_for
from restore_cli.jobs.paths import Input
from restore_cli.jobs.types import Job
from restore_cli.tiling.geometry import WHOLE, Tiling, padded_side, plan_axis
from restore_cli.weights.catalogue import Request

if TYPE_CHECKING:
    from restore_cli.models.network import Network

__all__ = [
    "BASELINES",
    "Row",
    "Summary",
    "TileRow",
    "Trial",
    "borders",
    "evaluate",
    "evaluate_folders",
    "measure",
    "summary",
]

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Measures = Mapping[str, float]

BASELINES = ("auto", "bicubic", "input", "none")
LEAST = 11
"""SSIM's window: the least side that is left after the border is cut, px."""


@dataclass(frozen=True)
class Trial:
    """What is measured, and against what."""

    reference: Path
    """a picture, or a folder of them"""
    input: Path | None = None
    """the degraded ones; None: they are made from the references"""
    sigma: float | None = None
    """of the noise to add, of 255; None: as --noise says"""
    seed: int = 0
    border: int | None = None
    """px cut from every side before measuring; None: the scale"""
    baseline: str = "auto"
    """one of BASELINES; auto is bicubic for sr, the input elsewhere"""
    tiles: tuple[int, ...] = ()
    """tile sides to compare with the untiled result, input px"""


@dataclass(frozen=True)
class TileRow:
    """One picture in tiles of one side, beside the untiled result; floats, unrounded."""

    tile: int
    """asked for, input px"""
    psnr: float
    seam: float
    """mean step across tile borders over the mean elsewhere"""
    seam_untiled: float
    """the same of the untiled result, at the same places: what the picture itself has there"""


@dataclass(frozen=True)
class Row:
    """One picture's measures: psnr and ssim (RGB), psnr_y and ssim_y, psnrb for JPEG repair; dB or at most 1."""

    image: str
    measures: Measures
    baseline: Measures | None = None
    seconds: float | None = None
    """of restoring alone, without loading and decoding"""
    megapixels: float = 0.0
    """of the input"""
    checkpoint: str | None = None
    sha256: str | None = None
    """of the checkpoint's file"""
    tiles: tuple[TileRow, ...] = ()
    """for each tile side that cuts this picture at all"""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Means over the rows; inf where a picture equals its reference."""

    mean: Measures
    baseline: Measures | None
    seconds_per_megapixel: float | None
    """of input"""
    checkpoints: Mapping[str, str]
    """name -> sha256 of the file; several where gray and colour pictures took different ones"""


@dataclass(frozen=True)
class Case:
    """A reference, and the degraded picture where one is given."""

    reference: Input
    input: Input | None

    @property
    def source(self) -> Path:
        """The file that the model's input is from."""
        return (self.input or self.reference).file


@dataclass
class Course:
    """One evaluation on its way."""

    job: Job
    trial: Trial
    models: ModelCache
    hashes: dict[Path, str] = field(default_factory=dict)

    def assess(self, case: Case) -> Row:
        """Degrade or decode, restore, measure. Raises RestoreError."""
        from restore_cli.pipeline.array import restore_array

        job, header = self.job, probe(case.source)
        name, model = self.models.get(header)
        scale = model.contract.scale
        given, reference = self.pictures(case, scale)
        tiling = self.models.tiling_for(name, model, max(given.shape[:2]))
        start = time.perf_counter()
        restored, trace = restore_array(model, given, tiling, self.report_tiles)
        seconds = time.perf_counter() - start
        if trace.tiling != tiling:
            self.models.tilings[name] = trace.tiling
        border = scale if job.request.task == "sr" else 0
        how = self.trial.border if self.trial.border is not None else border, job.request.task == "dejpeg"
        base = baseline(self.trial.baseline, given, scale)
        return Row(
            image=case.reference.relative,
            measures=measure(restored, reference, *how),
            baseline=None if base is None else measure(base, reference, *how),
            seconds=seconds,
            megapixels=given.shape[0] * given.shape[1] / 1e6,
            checkpoint=name,
            sha256=self.sha256(header),
            tiles=tuple(tiled(model, given, self.trial.tiles, job)) if self.trial.tiles else (),
            notes=describe_fallbacks(trace, tiling),
        )

    def report_tiles(self, done: int, total: int) -> None:
        """Report finished tiles of the current picture."""
        self.models.on_event(TileDone(done, total))

    def pictures(self, case: Case, scale: int) -> tuple[Array, Bytes]:
        """The model's input, (h, w, c) uint8 or float32, and the reference cropped to h·scale × w·scale px."""
        whole = round_to_8_bits(decode_finite(case.reference.file).pixels)
        if case.input is not None:
            given = unrounded(decode_finite(case.input.file).pixels)
            height, width = (side * scale for side in given.shape[:2])
            return given, whole[:height, :width]
        height, width = (side - side % scale for side in whole.shape[:2])
        if not height or not width:
            raise ImageError(f"{case.reference.file}: {size(whole)} is less than one px at a scale of {scale}")
        reference = whole[:height, :width]
        return degraded(self.job.request, self.trial, reference, scale), reference

    def sha256(self, header: Header) -> str:
        """Of the file whose weights restored a picture of that kind."""
        path = self.job.weights or self.models.fetch_entry(request_for(self.job.request, header))[1]
        if path not in self.hashes:
            with path.open("rb") as file:
                self.hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self.hashes[path]


def evaluate(job: Job, trial: Trial, on_event: OnEvent = ignore_event) -> Iterator[Row]:
    """One Row for each reference, restored by the job's model. Its `inputs` and `output` are not looked at.

    Raises, before anything is restored: UsageError for what cannot be meant and for files without a partner,
    ImageError for a pair whose sizes do not fit; and at any time the first RestoreError. No picture is passed over.
    """
    check_request(job)
    check_trial(job.request, trial)
    cases = list(cases_of(trial))
    models = ModelCache(job, on_event)
    course = Course(job, trial, models)
    if trial.input is not None:
        scale = models.get(probe(cases[0].source))[1].contract.scale
        for case in cases:
            check_sizes(case.reference.file, case.source, scale)
    for case in cases:
        on_event(PictureStarted(str(case.source)))
        try:
            yield course.assess(case)
        except RestoreError as error:
            raise of_pair(error, case.source, case.reference.file) from error


def evaluate_folders(restored: Path, reference: Path, border: int = 0) -> Iterator[Row]:
    """One Row for each pair of files, whoever restored them. Raises as `evaluate`."""
    pairs = pair_files(collect_inputs(reference, FORMAT_BY_SUFFIX), collect_inputs(restored, FORMAT_BY_SUFFIX))
    for whole, other in pairs:
        check_sizes(whole.file, other.file, 1)
    for whole, other in pairs:
        try:
            result, expected = (decode_finite(item.file).pixels for item in (other, whole))
            yield Row(whole.relative, measure(result, expected, border))
        except RestoreError as error:
            raise of_pair(error, other.file, whole.file) from error


def of_pair(error: RestoreError, *paths: Path) -> RestoreError:
    """The error with the first path in front, where its message names neither."""
    if any(str(path) in error.message for path in paths):
        return error
    return type(error)(f"{paths[0]}: {error.message}", hint=error.hint)


def cases_of(trial: Trial) -> Iterator[Case]:
    """References, each with its degraded picture where those are given."""
    references = collect_inputs(trial.reference, FORMAT_BY_SUFFIX)
    if trial.input is None:
        yield from (Case(reference, None) for reference in references)
    else:
        yield from (Case(a, b) for a, b in pair_files(references, collect_inputs(trial.input, FORMAT_BY_SUFFIX)))


def check_trial(request: Request, trial: Trial) -> None:
    """UsageError for what cannot be meant."""
    task = request.task
    if trial.baseline not in BASELINES or (trial.baseline == "bicubic" and task != "sr"):
        fit = [name for name in BASELINES if name != "bicubic" or task == "sr"]
        raise UsageError(f"--baseline {trial.baseline}: expected one of {', '.join(fit)} for {task}")
    if trial.baseline == "input" and task == "sr":
        raise UsageError("--baseline input: the input of sr is smaller than its reference", "--baseline bicubic")
    if trial.sigma is not None and (task != "denoise" or trial.input is not None or trial.sigma < 0):
        raise UsageError(f"--sigma {trial.sigma:g}: expected 0 or more, for denoise without --input")
    if not 0 <= trial.seed < 2**32:
        raise UsageError(f"--seed {trial.seed}: expected 0 to {2**32 - 1}")
    if trial.input is not None:
        return
    if task == "denoise":
        sigma_of(request, trial)
    elif task == "dejpeg" and request.quality is None:
        raise UsageError("dejpeg without --input makes the JPEG files itself, how strong?", "--quality 10")
    elif task in ("deblur", "derain"):
        raise UsageError(f"{task}: there is no standard way to make its inputs", "--input FOLDER")


def check_sizes(reference: Path, other: Path, scale: int) -> None:
    """ImageError where the reference is not `scale` times the other, or larger than that by less than `scale` px."""
    whole, part = probe(reference), probe(other)
    over = whole.width - part.width * scale, whole.height - part.height * scale
    if not all(0 <= px < scale for px in over):
        times = f" times {scale}" if scale > 1 else ""
        found = f"{part.width}×{part.height} px{times}, its reference {reference} has {whole.width}×{whole.height} px"
        raise ImageError(f"{other}: {found}")


def degraded(request: Request, trial: Trial, reference: Bytes, scale: int) -> Array:
    """The reference spoiled by the task's standard definition; noise is float32, neither rounded nor clipped."""
    if request.task == "sr":
        return imresize(reference, Fraction(1, scale))
    if request.task == "denoise":
        return add_noise(reference, sigma_of(request, trial), trial.seed)
    if request.quality is None:
        raise ValueError(f"{request.task} without a quality: check_trial refuses it")
    return compress_jpeg(reference, request.quality)


def sigma_of(request: Request, trial: Trial) -> float:
    """σ of the noise to add, of 255."""
    if trial.sigma is not None:
        return trial.sigma
    if request.noise is None or not request.noise.isdecimal():
        found = f"--noise {request.noise} is no strength" if request.noise else "how much?"
        raise UsageError(f"denoise without --input adds the noise itself: {found}", "--sigma 25")
    return float(request.noise)


def baseline(wanted: str, given: Array, scale: int) -> Bytes | None:
    """What is there without a model: the input itself, or enlarged bicubically."""
    if wanted == "none":
        return None
    rounded = round_to_8_bits(given)
    return imresize(rounded, scale) if scale > 1 else rounded


def unrounded(pixels: Samples) -> Samples:
    """uint8 and float32 as they are, uint16 as float32 on 0..1: a model's result is of the same kind as its input."""
    return pixels if pixels.dtype != np.uint16 else pixels.astype(np.float32) / np.float32(PEAK["uint16"])


def measure(image: Samples, reference: Samples, border: int = 0, blocks: bool = False) -> dict[str, float]:
    """The measures of one picture, by their names in a Row; `blocks` adds psnrb. ImageError where it is too small.

    (h, w, 1 or 3) uint8, uint16 or float32, each brought to 8 bits by the peak of its kind.
    """
    if min(image.shape[:2]) - 2 * border < LEAST:
        raise ImageError(f"{size(image)} less a border of {border} px: SSIM wants at least {LEAST} px a side")
    a, b = same_channels(round_to_8_bits(image), round_to_8_bits(reference))
    ya, yb = luma(a), luma(b)
    found = {
        "psnr": psnr(a, b, border=border),
        "ssim": ssim(a, b, border=border),
        "psnr_y": psnr(ya, yb, border=border),
        "ssim_y": ssim(ya, yb, border=border),
    }
    return found | {"psnrb": psnr_b(a, b, border=border)} if blocks else found


def same_channels(*images: Bytes) -> list[Bytes]:
    """(h, w, 1 or 3) each -> all of the most channels that one has."""
    most = max(image.shape[2] for image in images)
    return [image if image.shape[2] == most else np.repeat(image, most, axis=2) for image in images]


def size(image: Array) -> str:
    return f"{image.shape[1]}×{image.shape[0]} px"


def tiled(model: Network, given: Array, sides: Sequence[int], job: Job) -> Iterator[TileRow]:
    """For each tile side that cuts the picture: how far the result is from the untiled one."""
    from restore_cli.pipeline.array import default_tiling, restore_array

    pixels = given if given.dtype == np.float32 else given.astype(np.float32) / np.float32(255)
    whole, trace = restore_array(model, pixels, default_tiling(model.contract, WHOLE))
    if trace.tiling.tile != WHOLE:
        raise OutOfMemory("no memory for the untiled result that --tiles compares with", "without --tiles")
    for side in sides:
        tiling = default_tiling(model.contract, side, job.overlap, job.batch)
        across, down = (borders(pixels.shape[axis], tiling, model) for axis in (1, 0))
        if across or down:
            found = restore_array(model, pixels, tiling)[0]
            seams = (seam(image, across, down) for image in (found, whole))
            yield TileRow(side, psnr(found, whole, peak=1), *seams)


def borders(length: int, tiling: Tiling, model: Network) -> list[tuple[int, int]]:
    """(first, end) of the output px over which neighbouring tiles of a side of `length` input px fade."""
    contract = model.contract
    axis = plan_axis(padded_side(length, contract), tiling.tile, tiling.overlap, contract.tile_multiple)
    fades = [axis.fade(i) for i in range(len(axis.starts) - 1)]
    return [(first * contract.scale, end * contract.scale) for first, end in fades if first < length]


def summary(rows: Sequence[Row]) -> Summary:
    """The means of the rows."""
    bases = [row.baseline for row in rows if row.baseline is not None]
    timed = [row for row in rows if row.seconds is not None]
    pixels = math.fsum(row.megapixels for row in timed)
    return Summary(
        mean=mean([row.measures for row in rows]),
        baseline=mean(bases) if bases else None,
        seconds_per_megapixel=math.fsum(row.seconds or 0 for row in timed) / pixels if pixels else None,
        checkpoints={row.checkpoint: row.sha256 for row in rows if row.checkpoint and row.sha256},
    )


def mean(measures: Sequence[Measures]) -> dict[str, float]:
    """Of each measure."""
    return {name: fmean(m[name] for m in measures) for name in measures[0]}
