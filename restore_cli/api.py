"""The tool as a library: two functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_cli.models.network import Network

__all__ = ["load", "restore"]


def load(name: str | Path, device: str = "auto", precision: str = "auto") -> Network:
    """The model of a catalogue entry ("hat-x4"), fetched where it is not on disk, or of a checkpoint file.

    Raises UsageError for an unknown name, WeightsError for a checkpoint that cannot be downloaded or used.
    """
    from restore_cli.models.load import load_entry, load_file, pick_device, pick_precision
    from restore_cli.weights.catalogue import read_catalogue
    from restore_cli.weights.fetch import fetch

    place = pick_device(device)
    dtype = pick_precision(precision, place)
    if isinstance(name, Path) or Path(name).suffix in (".pth", ".pt", ".safetensors"):
        return load_file(Path(name), place, dtype)
    entry = read_catalogue().find_entry(name)
    return load_entry(entry, fetch(entry), place, dtype)


def restore(
    model: Network, image: NDArray[Any], *, tile: int | None = None, overlap: int | None = None
) -> NDArray[Any]:
    """(h, w) or (h, w, c), uint8, uint16 or float32 in [0, 1] -> the restored image of the same kind, scaled.

    Tiled like the command, as memory allows; `tile` and `overlap` in input px, a tile of 0 for none. Raises ValueError
    for another kind of array, UsageError where the channels do not suit the model, OutOfMemory at the smallest tile.
    """
    from restore_cli.pipeline.array import choose_tiling, restore_array

    if image.dtype not in ("uint8", "uint16", "float32") or image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image is {image.dtype} {image.shape}, not uint8, uint16 or float32 of (h, w) or (h, w, c)")
    pixels = image if image.ndim == 3 else image[..., None]
    tiling = choose_tiling(model, model.device, max(pixels.shape[:2]), tile=tile, overlap=overlap)
    out = restore_array(model, pixels, tiling)[0]
    return out if image.ndim == 3 else out[..., 0]
