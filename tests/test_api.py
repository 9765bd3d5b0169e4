"""The library: arrays, Pillow images, tensors, streams of rows and files."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from icc_profiles import P3
from images import make_checkpoint, make_image
from nearest_model import NearestModel
from numpy.typing import NDArray
from PIL import Image

import restore_cli
from restore_cli.errors import ImageError, OutOfMemory, OutputError, UsageError
from restore_cli.image.codec import decode, encode
from restore_cli.image.picture import Metadata, Picture
from restore_cli.models.network import Network
from restore_cli.weights.catalogue import read_catalogue

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(x2: Path) -> Network:
    return restore_cli.load(x2, device="cpu", precision="fp32")


def test_the_lines_in_readme_run(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "x2.safetensors", "swinir_lightweight_x2")
    block = re.search(r"## Library\n\n```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    assert '"emt-x4"' in block[1]
    scope = {"image": make_image(10, 12)}
    exec(block[1].replace("emt-x4", path.as_posix()), scope)
    assert scope["large"].shape == (20, 24, 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 4)])
def test_dtype_and_axes_are_kept(dtype: str, shape: tuple[int, ...], model: Network) -> None:
    out = restore_cli.restore(model, np.zeros(shape, dtype), tile=0)
    assert out.dtype == dtype
    assert out.shape == (18, 14, *shape[2:])


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(image: NDArray[Any], model: Network) -> None:
    for run in (restore_cli.restore, restore_cli.restore_stream):
        with pytest.raises(ValueError, match="not uint8, uint16 or float32"):
            run(model, image)


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4)])
def test_other_tensors_are_refused(image: torch.Tensor, model: Network) -> None:
    with pytest.raises(ValueError, match="not floating point of"):
        restore_cli.restore(model, image)


def test_other_objects_and_modes_are_refused(model: Network) -> None:
    with pytest.raises(ValueError, match="type list, not a numpy array"):
        restore_cli.restore(model, [[1]])  # type: ignore[type-var]
    for mode in ("CMYK", "YCbCr", "LAB", "HSV", "I"):
        with pytest.raises(ValueError, match=f"mode {mode}, expected"):
            restore_cli.restore(model, Image.new(mode, (8, 8)))


def test_channels_that_the_model_does_not_take_are_refused(model: Network) -> None:
    for channels in (5, 6):
        with pytest.raises(UsageError, match=f"this image has {channels} channels"):
            restore_cli.restore(model, np.zeros((9, 9, channels), np.uint8))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="emt-x4"):
        restore_cli.load("emt-x44")


def test_noise_outside_the_range_reaches_the_model() -> None:
    pixels = np.random.default_rng(0).normal(0.5, 0.5, (20, 30, 3)).astype(np.float32)
    assert pixels.min() < -0.5
    out = restore_cli.restore(NearestModel(scale=1), pixels)  # type: ignore[arg-type]
    assert np.array_equal(out, pixels)


def make_samples(channels: int, dtype: str) -> NDArray[Any]:
    """Return (40, 50, channels) whose alpha, if any, has transparent and half transparent parts."""
    samples = make_image(40, 50, channels)
    if channels in (2, 4):
        samples[..., -1] = 255
        samples[5:20, 10:30, -1], samples[25:, 5:20, -1] = 0, 100
    if dtype == "float32":
        return samples / np.float32(255)
    deep: NDArray[Any] = samples.astype(dtype) * np.array(257 if dtype == "uint16" else 1, dtype)
    return deep


def write_samples(path: Path, samples: NDArray[Any], icc: bytes | None = None) -> None:
    alpha = samples[..., -1] if samples.shape[2] in (2, 4) else None
    colours = samples if alpha is None else samples[..., :-1]
    encode(Picture(colours, alpha, Metadata(icc)), path)


def read_samples(path: Path) -> NDArray[Any]:
    found = decode(path)
    return found.pixels if found.alpha is None else np.concatenate([found.pixels, found.alpha[..., None]], 2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_array_becomes_what_the_command_writes(
    channels: int, dtype: str, model: Network, x2: Path, restore: Run
) -> None:
    samples = make_samples(channels, dtype)
    write_samples(Path("in.tif"), samples)
    assert restore("sr", "--weights", x2, "--precision", "fp32", "--tile", 32, "in.tif", "-o", "out.tif").code == 0
    found = restore_cli.restore(model, samples, tile=32)
    assert np.array_equal(found, read_samples(Path("out.tif")))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_a_pillow_image_becomes_what_its_array_becomes(mode: str, model: Network) -> None:
    dtype = {"I;16": "uint16", "F": "float32"}.get(mode, "uint8")
    samples = make_samples({"L": 1, "I;16": 1, "F": 1}.get(mode, len(mode)), dtype)
    image = Image.fromarray(samples.squeeze())
    assert image.mode == mode
    image.info = {"icc_profile": None, "dpi": (72, 72)}
    found = restore_cli.restore(model, image, tile=32)
    assert (found.mode, found.size, found.info["dpi"]) == (mode, (100, 80), (72, 72))
    assert np.array_equal(np.asarray(found), np.asarray(restore_cli.restore(model, samples.squeeze(), tile=32)))


@pytest.mark.parametrize("channels", [3, 4])
def test_a_pillow_image_in_wide_colours_becomes_what_the_command_writes(
    channels: int, model: Network, x2: Path, restore: Run
) -> None:
    write_samples(Path("in.png"), make_samples(channels, "uint8"), P3)
    assert restore("sr", "--weights", x2, "--precision", "fp32", "--tile", 32, "in.png", "-o", "out.png").code == 0
    with Image.open("in.png") as image, Image.open("out.png") as expected:
        found = restore_cli.restore(model, image, tile=32)
        assert (found.mode, found.info["icc_profile"]) == (image.mode, P3)
        assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_palettes_and_transparent_colours_become_channels(model: Network) -> None:
    colour = Image.fromarray(make_image(20, 30))
    palette = colour.quantize(16)
    assert restore_cli.restore(model, palette, tile=0).mode == "RGB"
    palette.info["transparency"] = 3
    restored = restore_cli.restore(model, palette, tile=0)
    assert (restored.mode, "transparency" in restored.info, palette.info["transparency"]) == ("RGBA", False, 3)
    assert restore_cli.restore(model, colour.convert("1"), tile=0).mode == "L"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_become_what_their_arrays_become(dtype: torch.dtype, model: Network) -> None:
    arrays = [make_image(20, 30, seed=seed) / np.float32(255) for seed in range(3)]
    images = torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays]).to(dtype)
    found = restore_cli.restore(model, images.requires_grad_(), tile=16)
    assert (found.shape, found.dtype, found.requires_grad) == ((3, 3, 40, 60), dtype, False)
    for out, image in zip(found, images.detach(), strict=True):
        expected = restore_cli.restore(model, image.float().permute(1, 2, 0).numpy(), tile=16)
        assert torch.equal(out, torch.from_numpy(expected).permute(2, 0, 1).to(dtype))


def test_progress_counts_the_tiles_of_all_images(model: Network) -> None:
    seen: list[tuple[int, int]] = []
    restore_cli.restore(model, torch.rand(2, 3, 20, 40), tile=16, on_tile=lambda *counts: seen.append(counts))
    total = seen[-1][1]
    assert seen == [(done, total) for done in range(1, total + 1)]
    assert total == 2 * (total // 2) > 8


def cut(samples: NDArray[Any], sizes: tuple[int, ...] = (1, 7, 2, 30)) -> Iterator[NDArray[Any]]:
    """Yield the rows in blocks of different sizes."""
    top = turn = 0
    while top < len(samples):
        size = sizes[turn % len(sizes)]
        yield samples[top : top + size].copy()
        top, turn = top + size, turn + 1


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_stream_of_rows_becomes_what_the_whole_becomes(channels: int, dtype: str, model: Network) -> None:
    samples = make_samples(channels, dtype)
    expected = restore_cli.restore(model, samples, tile=16)
    blocks = restore_cli.restore_stream(model, cut(samples), len(samples), tile=16)
    assert np.array_equal(np.concatenate(list(blocks)), expected)
    flat = restore_cli.restore_stream(model, cut(samples[..., 0]), len(samples), tile=16)
    assert np.array_equal(
        np.concatenate(list(flat)), restore_cli.restore(model, np.ascontiguousarray(samples[..., 0]), tile=16)
    )


def test_a_memory_mapped_array_is_restored_row_by_row(model: Network, tmp_path: Path) -> None:
    pixels = np.memmap(tmp_path / "pixels", np.uint16, "w+", shape=(60, 20, 3))
    pixels[:] = make_image(60, 20).astype(np.uint16) * 257
    blocks = list(restore_cli.restore_stream(model, pixels, tile=16))
    assert len(blocks) > 2
    assert np.array_equal(np.concatenate(blocks), restore_cli.restore(model, np.asarray(pixels), tile=16))


@pytest.mark.parametrize(("channels", "scale"), [(3, 2), (4, 1), (4, 2)])
def test_a_stream_holds_only_the_rows_of_a_few_tiles(channels: int, scale: int) -> None:
    height, alive, most = 2000, weakref.WeakSet[Any](), 0

    class Rows:  # an array has no hash
        def __init__(self, block: NDArray[Any]) -> None:
            weakref.finalize(block, alive.discard, self)
            alive.add(self)

    def blocks() -> Iterator[NDArray[Any]]:
        nonlocal most
        for _ in range(height // 10):
            block = np.zeros((10, 8, channels), np.uint8)
            kept.append(Rows(block))
            most = max(most, len(alive))
            yield block

    kept: list[Rows] = []
    model: Any = NearestModel(scale=scale)
    done = sum(len(block) for block in restore_cli.restore_stream(model, blocks(), height, tile=16))
    assert done == height * scale
    assert most <= 30


def test_a_stream_that_does_not_fit_is_refused(model: Network) -> None:
    rows = make_image(40, 20)
    for height in (None, 0):
        with pytest.raises(ValueError, match="how many rows they have"):
            restore_cli.restore_stream(model, cut(rows), height)
    with pytest.raises(ValueError, match="how many rows"):
        restore_cli.restore_stream(model, iter([]), 40)
    with pytest.raises(ValueError, match="the rows end after 40 of 50"):
        list(restore_cli.restore_stream(model, cut(rows), 50))
    for other in (make_image(20, 21), make_image(20, 20, 1), rows.astype(np.uint16)):
        with pytest.raises(ValueError, match=r"expected uint8 \(n, 20, 3\)"):
            list(restore_cli.restore_stream(model, iter([rows, other]), 60))


def test_a_stream_says_that_memory_ran_out() -> None:
    short: Any = NearestModel(faults=(2,))
    blocks = restore_cli.restore_stream(short, make_image(100, 20), tile=16)
    with pytest.raises(OutOfMemory, match="no room for tiles of 16 px"):
        list(blocks)


CASES: dict[str, tuple[str, str, dict[str, Any], list[object]]] = {
    "alpha": ("in.png", "out.png", {}, []),
    "deep": ("in.tif", "out.png", {"bit_depth": "8", "dither": True}, ["--bit-depth", 8, "--dither"]),
    "lossy": ("in.jpg", "out.jpg", {"jpeg_quality": 70}, ["--jpeg-quality", 70]),
    "sized": ("in.jpg", "out.png", {"resize": "70x", "strip": True}, ["--resize", "70x", "--strip"]),
    "pages": ("pages.tif", "out.tif", {"overlap": 8}, ["--overlap", 8]),
    "page": ("pages.tif", "out.webp", {"frame": 2}, ["--frame", 2]),
    "wide": ("wide.png", "out.png", {"icc": "srgb", "alpha": "lanczos"}, ["--icc", "srgb", "--alpha", "lanczos"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_gets_the_bytes_that_the_command_writes(case: str, model: Network, x2: Path, restore: Run) -> None:
    source, target, words, options = CASES[case]
    write_samples(Path("in.png"), make_samples(4, "uint8"))
    write_samples(Path("wide.png"), make_samples(4, "uint8"), P3)
    write_samples(Path("in.tif"), make_samples(3, "uint16"))
    first, second = (Image.fromarray(make_image(40, 50, seed=seed)) for seed in (0, 1))
    first.save("in.jpg", quality=80)
    first.save("pages.tif", save_all=True, append_images=[second])
    ran = restore("sr", "--weights", x2, "--precision", "fp32", "--tile", 32, *options, source, "-o", f"by/{target}")
    assert ran.code == 0, ran.err
    seen: list[tuple[int, int]] = []
    result = restore_cli.restore_file(
        source, f"own/{target}", model, tile=32, on_tile=lambda *counts: seen.append(counts), **words
    )
    assert Path("own", target).read_bytes() == Path("by", target).read_bytes()
    assert result.size == decode(Path("own", target)).pixels.shape[1::-1]
    assert result.tile == 32
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(("task", "name"), [("sr", "lite-real-x4"), ("denoise", "lite-denoise")])
def test_a_file_is_noted_as_the_command_notes_it(task: str, name: str, restore: Run) -> None:
    (entry,) = (entry for entry in restore_cli.list_models(task) if entry.name == name)
    Image.fromarray(make_image(16, 20)).save("in.png")
    assert restore(task, "-m", "lite", "--variant", entry.variant, "in.png", "-o", "by.png").code == 0
    restore_cli.restore_file("in.png", "own.png", restore_cli.load(name))
    assert name.encode() in Path("by.png").read_bytes()
    assert Path("own.png").read_bytes() == Path("by.png").read_bytes()


def test_a_file_that_cannot_be_restored_leaves_nothing(model: Network, tmp_path: Path) -> None:
    image = tmp_path / "in.png"
    Image.fromarray(make_image(20, 30)).save(image)
    before = image.read_bytes()
    with pytest.raises(OutputError, match="is the input, which is never overwritten"):
        restore_cli.restore_file(image, tmp_path / "." / "in.png", model)
    with pytest.raises(ImageError, match=r"none\.png"):
        restore_cli.restore_file(tmp_path / "none.png", tmp_path / "out.png", model)
    with pytest.raises(OutputError, match="unknown suffix"):
        restore_cli.restore_file(image, tmp_path / "out.txt", model)
    for words in ({"jpeg_quality": 101}, {"frame": 0}, {"resize": "0x"}, {"icc": "p3"}, {"max_pixels": 0}):
        with pytest.raises(UsageError, match="expected"):
            restore_cli.restore_file(image, tmp_path / "out.png", model, **words)
    short: Any = NearestModel(most=1)
    short.checkpoint = None
    with pytest.raises(OutOfMemory, match="smallest tile"):
        restore_cli.restore_file(image, tmp_path / "out.png", short)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
    assert image.read_bytes() == before


def test_models_are_listed_by_task_and_scale() -> None:
    everything = restore_cli.list_models()
    assert everything == list(read_catalogue().entries)
    for task, scale in (("sr", 2), ("denoise", None), (None, 3), ("dejpeg", 4)):
        found = restore_cli.list_models(task=task, scale=scale)
        assert found == [e for e in everything if task in (None, e.task) and scale in (None, e.scale)]
    with pytest.raises(UsageError, match="no task 'super'"):
        restore_cli.list_models(task="super")
