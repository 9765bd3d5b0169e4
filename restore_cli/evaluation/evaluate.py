"""Measures how well images are restored: pairs of files in, rows of measures out.

As in the published scripts, everything is measured on 8 bits without alpha. An image of another type is scaled by its
peak and rounded once: a reference when it is read, a result when it is measured. The model gets its input unrounded.
In gray images R = G = B. Two gray images have the same measures as three equal channels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from restore_cli.image.picture import PEAK, Samples
from restore_cli.jobs.discovery import collect_inputs
from restore_cli.jobs.events import OnEvent, PictureStarted, TileDone, ignore_event
from restore_cli.jobs.model_cache import ModelCache, check_request, describe_fallbacks
from restore_cli.jobs.paths import Input
from restore_cli.jobs.types import ModelOptions
from restore_cli.tiling.geometry import WHOLE, Tiling, padded_side, plan_axis
from restore_cli.weights.catalogue import Request

if TYPE_CHECKING:
    from restore_cli.models.self_ensemble import Runner

__all__ = [
    "BASELINES",
    "EvalOptions",
    "Row",
    "Summary",
    "TileRow",
    "evaluate",
    "evaluate_folders",
    "find_tile_borders",
    "measure_image",
    "summarize",
]

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Measures = Mapping[str, float]

BASELINES = ("auto", "bicubic", "input", "none")
MIN_SIDE = 11
"""in pixels, without the border: the window of SSIM"""


@dataclass(frozen=True)
class EvalOptions:
    """What is measured and how."""

    reference: Path
    """an image, or a folder of images"""
    input: Path | None = None
    """the degraded images; None makes them from the references"""
    sigma: float | None = None
    """of the added noise, on 0..255; None uses --noise"""
    seed: int = 0
    border: int | None = None
    """pixels that are cut from each side before measuring; None is the scale for sr, otherwise 0"""
    baseline: str = "auto"
    """one of BASELINES; auto is bicubic for sr, otherwise input"""
    tiles: tuple[int, ...] = ()
    """tile sides to compare with the untiled result, in input pixels"""
    strength: float = 1.0
    """weight of the restored image in the result that is measured, 0..1; the rest is the input, enlarged for sr"""


@dataclass(frozen=True)
class TileRow:
    """The result of one tile side, compared with the untiled result, both as unrounded floats."""

    tile: int
    """the tile side, in input pixels"""
    psnr: float
    seam: float
    """mean step across tile borders, divided by the mean step elsewhere"""
    seam_untiled: float
    """the same for the untiled result, at the same places"""


@dataclass(frozen=True)
class Row:
    """The measures of one image: psnr and ssim (RGB), psnr_y and ssim_y, psnrb for dejpeg; in dB, or at most 1."""

    image: str
    measures: Measures
    baseline: Measures | None = None
    seconds: float | None = None
    """of the restoration, without loading and decoding"""
    megapixels: float = 0.0
    """of the input"""
    checkpoint: str | None = None
    sha256: str | None = None
    """of the checkpoint file"""
    tiles: tuple[TileRow, ...] = ()
    """for each tile side smaller than the image"""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Means over the rows; inf if an image equals its reference."""

    mean: Measures
    baseline: Measures | None
    seconds_per_megapixel: float | None
    """of input"""
    checkpoints: Mapping[str, str]
    """name -> sha256 of the file; several if gray and colour images used different ones"""


@dataclass(frozen=True)
class Case:
    """A reference, and its degraded image if one is given."""

    reference: Input
    input: Input | None

    @property
    def source(self) -> Path:
        """The file from which the input of the model is made."""
        return (self.input or self.reference).file


def evaluate_case(case: Case, models: ModelCache, eval_options: EvalOptions) -> Row:
    """Degrade or decode, restore, measure. Raises RestoreError."""
    from restore_cli.pipeline.array import restore_array

    request = models.options.request
    name, model = models.get(probe(case.source))
    scale = model.contract.scale
    given, reference = load_pair(case, request, eval_options, scale)
    tiling = models.get_tiling(name, model, max(given.shape[:2]))
    start = time.perf_counter()
    restored, trace = restore_array(
        model, given, tiling, lambda done, total: models.on_event(TileDone(done, total)), strength=eval_options.strength
    )
    seconds = time.perf_counter() - start
    if trace.tiling != tiling:
        models.tilings[name] = trace.tiling
    border = eval_options.border
    if border is None:
        border = scale if request.task == "sr" else 0
    blocks = request.task == "dejpeg"
    base = make_baseline(eval_options.baseline, given, scale)
    return Row(
        image=case.reference.relative,
        measures=measure_image(restored, reference, border, blocks),
        baseline=None if base is None else measure_image(base, reference, border, blocks),
        seconds=seconds,
        megapixels=given.shape[0] * given.shape[1] / 1e6,
        checkpoint=name,
        sha256=models.sha256(name),
        tiles=tuple(compare_tiles(model, given, eval_options.tiles, models.options)),
        notes=describe_fallbacks(trace, tiling),
    )


def load_pair(case: Case, request: Request, eval_options: EvalOptions, scale: int) -> tuple[Array, Bytes]:
    """Return the input of the model, (h, w, c) uint8 or float32, and the reference, (h·scale, w·scale, c)."""
    whole = round_to_8_bits(decode_finite(case.reference.file).pixels)
    if case.input is not None:
        given = convert_uint16(decode_finite(case.input.file).pixels)
        height, width = (side * scale for side in given.shape[:2])
        return given, whole[:height, :width]
    height, width = (side - side % scale for side in whole.shape[:2])
    if not height or not width:
        found = f"{format_size(whole)} is less than one pixel at a scale of {scale}"
        raise ImageError(f"{case.reference.file}: {found}")
    reference = whole[:height, :width]
    return degrade(request, eval_options, reference, scale), reference


def evaluate(options: ModelOptions, eval_options: EvalOptions, on_event: OnEvent = ignore_event) -> Iterator[Row]:
    """Yield one Row for each reference, restored by the model of `options`.

    Raises UsageError for contradicting options and for files without a partner, and ImageError for pairs whose sizes do
    not fit, both before the first restoration. Later it raises the first RestoreError; no image is skipped.
    """
    check_request(options)
    check_eval_options(options.request, eval_options)
    cases = list(find_cases(eval_options))
    models = ModelCache(options, on_event)
    if eval_options.input is not None:
        scale = models.get(probe(cases[0].source))[1].contract.scale
        for case in cases:
            check_sizes(case.reference.file, case.source, scale)
    for case in cases:
        on_event(PictureStarted(str(case.source)))
        try:
            yield evaluate_case(case, models, eval_options)
        except RestoreError as error:
            raise add_path(error, case.source, case.reference.file) from error


def evaluate_folders(restored: Path, reference: Path, border: int = 0) -> Iterator[Row]:
    """Yield one Row for each pair of an existing result and its reference. Raises as `evaluate`."""
    pairs = pair_files(collect_inputs(reference, FORMAT_BY_SUFFIX), collect_inputs(restored, FORMAT_BY_SUFFIX))
    for whole, other in pairs:
        check_sizes(whole.file, other.file, 1)
    for whole, other in pairs:
        try:
            result, expected = (decode_finite(item.file).pixels for item in (other, whole))
            yield Row(whole.relative, measure_image(result, expected, border))
        except RestoreError as error:
            raise add_path(error, other.file, whole.file) from error


def add_path(error: RestoreError, *paths: Path) -> RestoreError:
    """Return the error with the first path in front, if its message names none of the paths."""
    if any(str(path) in error.message for path in paths):
        return error
    return type(error)(f"{paths[0]}: {error.message}", hint=error.hint)


def find_cases(eval_options: EvalOptions) -> Iterator[Case]:
    """Yield each reference, with its degraded image if those are given."""
    references = collect_inputs(eval_options.reference, FORMAT_BY_SUFFIX)
    if eval_options.input is None:
        yield from (Case(reference, None) for reference in references)
    else:
        yield from (Case(a, b) for a, b in pair_files(references, collect_inputs(eval_options.input, FORMAT_BY_SUFFIX)))


def check_eval_options(request: Request, eval_options: EvalOptions) -> None:
    """Raise UsageError for values that no evaluation of the task can have."""
    task = request.task
    if eval_options.baseline not in BASELINES or (eval_options.baseline == "bicubic" and task != "sr"):
        fit = [name for name in BASELINES if name != "bicubic" or task == "sr"]
        raise UsageError(f"--baseline {eval_options.baseline}: expected one of {', '.join(fit)} for {task}")
    if eval_options.baseline == "input" and task == "sr":
        raise UsageError("--baseline input: the input of sr is smaller than its reference", "--baseline bicubic")
    if eval_options.sigma is not None and (
        task != "denoise" or eval_options.input is not None or eval_options.sigma < 0
    ):
        raise UsageError(f"--sigma {eval_options.sigma:g}: expected 0 or more, for denoise without --input")
    if not 0 <= eval_options.strength <= 1:
        raise UsageError(f"--strength {eval_options.strength:g}: expected 0 to 1")
    if not 0 <= eval_options.seed < 2**32:
        raise UsageError(f"--seed {eval_options.seed}: expected 0 to {2**32 - 1}")
    if eval_options.input is not None:
        return
    if task == "denoise":
        get_sigma(request, eval_options)
    elif task == "dejpeg" and request.quality is None:
        raise UsageError("dejpeg without --input makes the JPEG files and needs their quality", "--quality 10")
    elif task in ("deblur", "derain"):
        raise UsageError(f"{task} without --input: there is no standard degradation", "--input FOLDER")


def check_sizes(reference: Path, other: Path, scale: int) -> None:
    """Raise ImageError unless the reference is `scale` times as large as the other, or up to `scale` - 1 px larger."""
    whole, part = probe(reference), probe(other)
    over = whole.width - part.width * scale, whole.height - part.height * scale
    if not all(0 <= px < scale for px in over):
        times = f" times {scale}" if scale > 1 else ""
        found = f"{part.width}×{part.height} px{times}, its reference {reference} has {whole.width}×{whole.height} px"
        raise ImageError(f"{other}: {found}")


def degrade(request: Request, eval_options: EvalOptions, reference: Bytes, scale: int) -> Array:
    """Return the reference with the standard degradation of the task. Noisy images are float32, not rounded."""
    if request.task == "sr":
        return imresize(reference, Fraction(1, scale))
    if request.task == "denoise":
        return add_noise(reference, get_sigma(request, eval_options), eval_options.seed)
    if request.quality is None:
        raise ValueError(f"{request.task} without a quality: check_eval_options refuses it")
    return compress_jpeg(reference, request.quality)


def get_sigma(request: Request, eval_options: EvalOptions) -> float:
    """Return σ of the noise to add, on 0..255. Raises UsageError if it is unknown."""
    if eval_options.sigma is not None:
        return eval_options.sigma
    if request.noise is None or not request.noise.isdecimal():
        found = f"--noise {request.noise} is no number" if request.noise else "give its strength"
        raise UsageError(f"denoise without --input adds noise: {found}", "--sigma 25")
    return float(request.noise)


def make_baseline(wanted: str, given: Array, scale: int) -> Bytes | None:
    """Return the image without a model: the input, for sr enlarged with bicubic interpolation. None for none."""
    if wanted == "none":
        return None
    rounded = round_to_8_bits(given)
    return imresize(rounded, scale) if scale > 1 else rounded


def convert_uint16(pixels: Samples) -> Samples:
    """Return uint16 as float32 on 0..1, other types unchanged. A result has the type of its input."""
    return pixels if pixels.dtype != np.uint16 else pixels.astype(np.float32) / np.float32(PEAK["uint16"])


def measure_image(image: Samples, reference: Samples, border: int = 0, blocks: bool = False) -> dict[str, float]:
    """Return the measures of one image by their names in a Row. `blocks` adds psnrb.

    Images are uint8, uint16 or float32, (h, w, 1 or 3). Each is scaled to 8 bits by the peak of its type. Raises
    ImageError if they are too small.
    """
    if min(image.shape[:2]) - 2 * border < MIN_SIDE:
        inside = f"{format_size(image)} without a border of {border} px"
        raise ImageError(f"{inside}: SSIM needs at least {MIN_SIDE} px on each side")
    a, b = equalize_channels(round_to_8_bits(image), round_to_8_bits(reference))
    ya, yb = luma(a), luma(b)
    found = {
        "psnr": psnr(a, b, border=border),
        "ssim": ssim(a, b, border=border),
        "psnr_y": psnr(ya, yb, border=border),
        "ssim_y": ssim(ya, yb, border=border),
    }
    return found | {"psnrb": psnr_b(a, b, border=border)} if blocks else found


def equalize_channels(*images: Bytes) -> list[Bytes]:
    """Repeat the channel of gray images if another image has three: (h, w, 1 or 3) -> (h, w, c)."""
    most = max(image.shape[2] for image in images)
    return [image if image.shape[2] == most else np.repeat(image, most, axis=2) for image in images]


def format_size(image: Array) -> str:
    return f"{image.shape[1]}×{image.shape[0]} px"


def compare_tiles(model: Runner, given: Array, sides: Sequence[int], options: ModelOptions) -> Iterator[TileRow]:
    """Compare the result of each tile side smaller than the image with the untiled one. Raises OutOfMemory."""
    from restore_cli.pipeline.array import default_tiling, restore_array

    if not sides:
        return
    pixels = given if given.dtype == np.float32 else given.astype(np.float32) / np.float32(255)
    whole, trace = restore_array(model, pixels, default_tiling(model.contract, WHOLE))
    if trace.tiling.tile != WHOLE:
        raise OutOfMemory("out of memory: the untiled result for --tiles does not fit", "leave out --tiles")
    for side in sides:
        tiling = default_tiling(model.contract, side, options.overlap, options.batch)
        across, down = (find_tile_borders(pixels.shape[axis], tiling, model) for axis in (1, 0))
        if across or down:
            found = restore_array(model, pixels, tiling)[0]
            seams = (seam(image, across, down) for image in (found, whole))
            yield TileRow(side, psnr(found, whole, peak=1), *seams)


def find_tile_borders(length: int, tiling: Tiling, model: Runner) -> list[tuple[int, int]]:
    """Return (first, end) of the output pixels in which neighbouring tiles along `length` input pixels fade."""
    contract = model.contract
    axis = plan_axis(padded_side(length, contract), tiling.tile, tiling.overlap, contract.tile_multiple)
    fades = [axis.fade(i) for i in range(len(axis.starts) - 1)]
    return [(first * contract.scale, end * contract.scale) for first, end in fades if first < length]


def summarize(rows: Sequence[Row]) -> Summary:
    """Return the means of the rows."""
    bases = [row.baseline for row in rows if row.baseline is not None]
    timed = [row for row in rows if row.seconds is not None]
    pixels = math.fsum(row.megapixels for row in timed)
    return Summary(
        mean=compute_means([row.measures for row in rows]),
        baseline=compute_means(bases) if bases else None,
        seconds_per_megapixel=math.fsum(row.seconds or 0 for row in timed) / pixels if pixels else None,
        checkpoints={row.checkpoint: row.sha256 for row in rows if row.checkpoint and row.sha256},
    )


def compute_means(measures: Sequence[Measures]) -> dict[str, float]:
    """Return the mean of each measure."""
    return {name: fmean(m[name] for m in measures) for name in measures[0]}
