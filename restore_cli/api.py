"""The tool as a library: load a model, restore images in memory, streams of rows, and files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from restore_cli.limits import MAX_PIXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from restore_cli.models.network import Network
    from restore_cli.models.self_ensemble import Runner
    from restore_cli.pipeline.array import OnTile
    from restore_cli.pipeline.file import FileResult
    from restore_cli.pipeline.in_memory import ChooseTiling
    from restore_cli.weights.entry import Entry

    InMemory = TypeVar("InMemory", NDArray[Any], Image, Tensor)

__all__ = ["list_models", "load", "restore", "restore_file", "restore_stream"]

LOG = logging.getLogger(__name__)


def list_models(task: str | None = None, scale: int | None = None) -> list[Entry]:
    """Return the entries of the catalogue for a task and a scale, None for all; `entry.name` is a name for `load`.

    Raises UsageError for a task that does not exist.
    """
    from restore_cli.weights.catalogue import Request, check_task, read_catalogue

    if task is not None:
        check_task(Request(task))
    return [entry for entry in read_catalogue().entries if task in (None, entry.task) and scale in (None, entry.scale)]


def load(name: str | Path, device: str = "auto", precision: str = "auto") -> Network:
    """Return the model of a catalogue entry ("hat-x4"), which is downloaded if it is not on disk, or of a file.

    Raises UsageError for an unknown name, WeightsError for a checkpoint that cannot be downloaded or used.
    """
    from restore_cli.models.load import load_entry, load_file, pick_device, pick_precision
    from restore_cli.models.network import Checkpoint
    from restore_cli.weights.catalogue import read_catalogue
    from restore_cli.weights.fetch import fetch

    place = pick_device(device)
    dtype = pick_precision(precision, place)
    if isinstance(name, Path) or Path(name).suffix in (".pth", ".pt", ".safetensors"):
        path = Path(name)
        model = load_file(path, place, dtype)
        model.checkpoint = Checkpoint(path.name, path, None)
    else:
        entry = read_catalogue().find_entry(name)
        path = fetch(entry)
        model = load_entry(entry, path, place, dtype)
        model.checkpoint = Checkpoint(entry.name, path, entry.task)
    for text in model.notes:
        LOG.warning(text)
    return model


def restore(
    model: Network,
    image: InMemory,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    memory: int | None = None,
    strength: float = 1.0,
    tta: bool = False,
    on_tile: OnTile | None = None,
) -> InMemory:
    """Restore an image to the same kind of image, enlarged by the scale of the model.

    `image` is one of
    - an array (h, w) or (h, w, c) of uint8, uint16 or float32 in [0, 1]; two and four channels have alpha last,
    - a Pillow image, whose mode, alpha and colour profile are kept,
    - a tensor (b, c, h, w) of floating point in [0, 1], whose dtype and device are kept.

    It is cut into tiles that fit into memory. `tile` and `overlap` are in input px, a tile of 0 turns tiling off;
    `memory` is in bytes. A `strength` below 1 blends the result with the image, 0 is the image enlarged. `tta` averages
    eight passes over flipped and rotated tiles. `on_tile` is called with the number of finished tiles and their total.

    Raises ValueError for another kind of image, UsageError if the channels do not fit the model, OutOfMemory at the
    smallest tile, and RestoreError if a tile overflows in bfloat16 after the checkpoint has changed.
    """
    from restore_cli.pipeline.in_memory import restore_in_memory

    runner = make_runner(model, tta)
    choose = make_chooser(runner, tile, overlap, memory)
    restored: InMemory = restore_in_memory(runner, image, choose, strength, on_tile or ignore_tile)
    return restored


def restore_stream(
    model: Network,
    rows: NDArray[Any] | Iterable[NDArray[Any]],
    height: int | None = None,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    memory: int | None = None,
    strength: float = 1.0,
    tta: bool = False,
    on_tile: OnTile | None = None,
) -> Iterator[NDArray[Any]]:
    """Return an iterator over blocks of restored rows, from top to bottom. Memory holds one row of tiles.

    `rows` is an array, such as a numpy.memmap, or an iterable of blocks (n, w) or (n, w, c), `height` rows in all.

    Raises ValueError for other types or shapes, and if the blocks have fewer rows. The iterator raises OutOfMemory; no
    smaller tile is tried, because rows cannot be taken back.
    """
    from restore_cli.pipeline.in_memory import stream_restored_rows

    runner = make_runner(model, tta)
    choose = make_chooser(runner, tile, overlap, memory)
    return stream_restored_rows(runner, rows, height, choose, strength, on_tile or ignore_tile)


def restore_file(
    source: str | Path,
    target: str | Path,
    model: Network,
    *,
    task: str | None = None,
    frame: int | None = None,
    resize: str | None = None,
    bit_depth: str = "auto",
    dither: bool = False,
    alpha: str = "model",
    icc: str = "keep",
    jpeg_quality: int | None = None,
    strip: bool = False,
    max_pixels: int = MAX_PIXELS,
    tile: int | None = None,
    overlap: int | None = None,
    memory: int | None = None,
    strength: float = 1.0,
    tta: bool = False,
    on_tile: OnTile | None = None,
) -> FileResult:
    """Restore a file into another one: the bytes that the command writes with this model and these options.

    The suffix of `target` decides the format. An existing file is replaced. `task` is recorded in the metadata; the
    default is that of the catalogue. All other options are those of `restore` and of the command.

    Raises ImageError, OutputError, UsageError, OutOfMemory.
    """
    from restore_cli.pipeline.file import FileOptions, restore_to_file
    from restore_cli.pipeline.output import OutputOptions

    output = OutputOptions(bit_depth, dither, alpha, icc, resize, strip, strength)
    runner = make_runner(model, tta)
    return restore_to_file(
        runner,
        Path(source),
        Path(target),
        FileOptions(output, max_pixels, frame, jpeg_quality),
        task,
        make_chooser(runner, tile, overlap, memory),
        on_tile or ignore_tile,
    )


def make_runner(model: Network, tta: bool) -> Runner:
    """Return the model, or its self-ensemble."""
    from restore_cli.models.self_ensemble import SelfEnsemble

    return SelfEnsemble(model) if tta else model


def make_chooser(model: Runner, tile: int | None, overlap: int | None, memory: int | None) -> ChooseTiling:
    """Return a function that returns the tiling for an image whose longest side is given, px."""
    from restore_cli.pipeline.array import choose_tiling

    return partial(choose_tiling, model, model.device, tile=tile, overlap=overlap, memory=memory)


def ignore_tile(done: int, total: int) -> None:
    """Report nothing."""
