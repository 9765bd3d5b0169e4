"""`--strength`: the result is blended with its input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Run
from icc_profiles import P3
from images import make_checkpoint, make_image
from numpy.typing import NDArray
from PIL import Image

import restore_cli
from restore_cli.errors import UsageError
from restore_cli.image.codec import decode, encode
from restore_cli.image.picture import Metadata, Picture
from restore_cli.image.resize import Resizer
from restore_cli.jobs.manifest import MANIFEST_NAME, digest_options, parse_lines
from restore_cli.jobs.plan import select_pixel_options
from restore_cli.jobs.types import Job, ModelOptions
from restore_cli.pipeline.file import FileOptions
from restore_cli.pipeline.output import OutputOptions
from restore_cli.weights.catalogue import Catalogue, Request

Samples = NDArray[Any]


def write_image(name: str, channels: int, depth: int = 8, icc: bytes | None = None) -> Samples:
    """Write 40×52 px whose alpha, if any, has a hole, and return its samples with alpha."""
    samples: Samples = make_image(40, 52, channels).astype(f"uint{depth}")
    samples = samples * np.array(257 if depth == 16 else 1, f"uint{depth}")
    samples[:4], samples[-4:] = 0, np.iinfo(samples.dtype).max  # the model and the filter overshoot here
    if channels in (2, 4):
        samples[..., -1] = np.iinfo(samples.dtype).max
        samples[8:24, 10:30, -1] //= 3
    colours = samples[..., :-1] if channels in (2, 4) else samples
    alpha = samples[..., -1] if channels in (2, 4) else None
    encode(Picture(colours, alpha, Metadata(icc)), Path(name))
    return samples


def read_image(name: str) -> Samples:
    found = decode(Path(name))
    return found.pixels if found.alpha is None else np.concatenate([found.pixels, found.alpha[..., None]], 2)


def enlarge(samples: Samples) -> Samples:
    """Return twice the size by the Lanczos filter of the program, rounded."""
    peak = np.iinfo(samples.dtype).max
    height, width = samples.shape[:2]
    blocks = Resizer((width, height), (2 * width, 2 * height)).push(samples.astype(np.float32) / np.float32(peak))
    large: Samples = np.rint(np.concatenate(list(blocks)).clip(0, 1) * peak).astype(samples.dtype)
    return large


CASES = [(1, 8, None), (2, 8, None), (3, 8, None), (4, 8, None), (3, 16, None), (4, 16, P3), (3, 8, P3)]


@pytest.mark.parametrize(("channels", "depth", "icc"), CASES)
@pytest.mark.parametrize("task", ["sr", "denoise"])
def test_half_the_strength_is_the_mean_of_none_and_all(
    task: str, channels: int, depth: int, icc: bytes | None, x1: Path, x2: Path, restore: Run
) -> None:
    given = write_image("in.png", channels, depth, icc)
    words = (task, "--weights", x2 if task == "sr" else x1, "--precision", "fp32", "--tile", 32, "in.png", "-o")
    assert restore(*words, "whole.png").code == 0
    for strength in ("0", "0.5", "1"):
        ran = restore(*words, f"{strength}.png", "--strength", strength)
        assert ran.code == 0, ran.err
    none, half, whole = (read_image(f"{strength}.png") for strength in ("0", "0.5", "1"))
    assert Path("1.png").read_bytes() == Path("whole.png").read_bytes()
    assert b"restore:Strength" not in Path("1.png").read_bytes()
    assert b'restore:Strength="0.5"' in Path("0.5.png").read_bytes()
    assert np.abs(half - (none.astype(float) + whole) / 2).max() <= 1
    assert np.abs(none.astype(int) - whole).max() > 20
    if task == "sr":
        assert np.abs(none.astype(int) - enlarge(given)).max() <= 1
    else:
        assert np.array_equal(none, given)


def test_colours_of_transparent_pixels_do_not_show(x2: Path, restore: Run) -> None:
    samples = np.full((40, 40, 4), 255, np.uint8)
    samples[10:30, 10:30] = 0  # hidden black under a hole in white
    encode(Picture(samples[..., :3].copy(), samples[..., 3].copy()), Path("in.png"))
    assert restore("sr", "--weights", x2, "--strength", 0, "in.png", "-o", "out.png").code == 0
    out = read_image("out.png")
    assert out[..., :3].min() == 255
    assert out[..., 3].min() == 0


@pytest.mark.parametrize("channels", [3, 4])
def test_the_unrestored_part_does_not_depend_on_the_tiles(channels: int, x2: Path, restore: Run) -> None:
    write_image("in.png", channels, 8, P3)
    for tile in (0, 16, 24):
        words = ("sr", "--weights", x2, "--tile", tile, "--strength", 0, "in.png", "-o", f"{tile}.png")
        assert restore(*words).code == 0
    assert np.array_equal(read_image("0.png"), read_image("16.png"))
    assert np.array_equal(read_image("0.png"), read_image("24.png"))


@pytest.mark.parametrize("icc", [None, P3])
def test_hidden_colours_do_not_depend_on_the_tiles(icc: bytes | None, x2: Path, restore: Run) -> None:
    """Black is hidden above a staircase in white, so that some of its steps are just below each row of tiles."""
    samples = np.full((130, 60, 4), 255, np.uint8)
    samples[np.arange(130)[:, None] < 2 * np.arange(60)] = 0
    encode(Picture(samples[..., :3].copy(), samples[..., 3].copy(), Metadata(icc)), Path("in.png"))
    for tile in (0, 16, 24):
        words = ("sr", "--weights", x2, "--tile", tile, "--strength", 0, "in.png", "-o", f"{tile}.png")
        assert restore(*words).code == 0
    whole = read_image("0.png")
    assert icc or whole[whole[..., 3] > 0, :3].min() == 255
    assert np.array_equal(whole, read_image("16.png"))
    assert np.array_equal(whole, read_image("24.png"))


def test_wide_values_of_a_float_tiff_survive(x1: Path, restore: Run) -> None:
    values = make_image(40, 30).astype(np.float32) / 50 - 1
    encode(Picture(values), Path("in.tif"))
    assert restore("denoise", "--weights", x1, "--strength", 0, "in.tif", "-o", "out.tif").code == 0
    np.testing.assert_allclose(read_image("out.tif"), values, rtol=0, atol=1e-5)


def test_small_images_in_batches_and_other_processes_give_the_same(x2: Path, restore: Run) -> None:
    for seed in range(4):
        Image.fromarray(make_image(20, 24, seed=seed)).save(f"{seed}.png")
    words = ("sr", "--weights", x2, "--precision", "fp32", "--strength", 0.3, *(f"{seed}.png" for seed in range(4)))
    for folder, more in (("one", ()), ("batch", ("--batch", 4)), ("two", ("--device", "cpu,cpu"))):
        ran = restore(*words, "-o", f"{folder}/", *more)
        assert ran.code == 0, ran.err
    for name in ("0.png", "1.png", "2.png", "3.png"):
        files = {Path(folder, name).read_bytes() for folder in ("one", "batch", "two")}
        assert len(files) == 1


def test_the_library_gives_what_the_command_writes(x2: Path, restore: Run) -> None:
    samples = write_image("in.png", 4)
    words = ("sr", "--weights", x2, "--precision", "fp32", "--tile", 32, "--strength", 0.25)
    assert restore(*words, "in.png", "-o", "by.png").code == 0
    model = restore_cli.load(x2, device="cpu", precision="fp32")
    expected = read_image("by.png")
    restore_cli.restore_file("in.png", "own.png", model, tile=32, strength=0.25)
    assert Path("own.png").read_bytes() == Path("by.png").read_bytes()
    assert np.array_equal(restore_cli.restore(model, samples, tile=32, strength=0.25), expected)
    image = restore_cli.restore(model, Image.fromarray(samples), tile=32, strength=0.25)
    assert np.array_equal(np.asarray(image), expected)
    blocks = restore_cli.restore_stream(model, iter([samples[:7], samples[7:]]), 40, tile=32, strength=0.25)
    assert np.array_equal(np.concatenate(list(blocks)), expected)


@pytest.mark.parametrize("strength", ["-0.1", "1.5"])
def test_values_that_are_no_share_are_refused(strength: str, x2: Path, restore: Run) -> None:
    write_image("in.png", 3)
    ran = restore("sr", "--weights", x2, "--strength", strength, "in.png")
    assert ran.code == 2
    assert ran.err == f"restore: --strength {strength}: expected 0 to 1\n"
    with pytest.raises(UsageError, match="--strength nan: expected 0 to 1"):
        OutputOptions(strength=float("nan"))


def test_a_pair_of_views_is_refused(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "dual.safetensors", "restormer_dual_pixel")
    with pytest.raises(UsageError, match="no single original"):
        restore_cli.restore(restore_cli.load(path, device="cpu"), make_image(16, 16, 6), strength=0.5)


def test_a_folder_is_restored_again_if_the_strength_changes(x2: Path, restore: Run) -> None:
    write_image("in.png", 3)
    words = ("sr", "--weights", x2, "--json", "in.png", "-o", "out/")

    def count_done(*more: str) -> int:
        return int(json.loads(restore(*words, *more).out.splitlines()[-1])["summary"]["done"])

    assert [count_done(), count_done("--strength", "1")] == [1, 0]
    assert [count_done("--strength", "0.5"), count_done("--strength", "0.5")] == [1, 0]
    assert [count_done("--strength", "0.6"), count_done()] == [1, 1]
    asked = [event["asked"] for _, event in parse_lines(Path("out", MANIFEST_NAME)) if "asked" in event]
    assert [options.get("strength") for options in asked] == [None, 0.5, 0.6, None]


def test_manifests_of_earlier_versions_are_still_read() -> None:
    """The digest of a job without these options is the one that version 0.1 wrote."""
    job = Job(ModelOptions(Request("sr"), Catalogue((), {})))
    blended = replace(job, file=FileOptions(OutputOptions(strength=0.5)))
    digests = [digest_options(select_pixel_options(each, None)) for each in (job, blended)]
    assert digests[0] == "bddeebbc80806970"
    assert digests[1] != digests[0]
