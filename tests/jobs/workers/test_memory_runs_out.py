"""If memory runs out at any tile of any file, no pixel changes and no other file fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from command import Run
from images import make_image, save_image
from nearest_model import NearestModel
from PIL import Image
from run_worker import JOB, restore_files
from torch import Tensor

from restore_cli.image import writers
from restore_cli.image.codec import encode
from restore_cli.image.picture import Picture
from restore_cli.jobs.types import Task
from restore_cli.jobs.workers import worker
from restore_cli.models.network import Network
from restore_cli.tiling.geometry import Tiling


def pages(path: Path) -> Path:
    """Make three pages, one of a single tile."""
    first, *others = (Image.fromarray(make_image(*size, seed=size[0])) for size in ((50, 40), (20, 20), (40, 70)))
    first.save(path, save_all=True, append_images=others)
    return path


def clear(path: Path) -> Path:
    """Make an image with transparency, which also passes through the model."""
    encode(Picture(make_image(70, 50), make_image(70, 50, 1, seed=1)[..., 0] | 1), path)
    return path


def deep(path: Path) -> Path:
    """Make a floating-point image."""
    encode(Picture(make_image(60, 50) / np.float32(255)), path)
    return path


def made(folder: Path, name: str) -> Path:
    """Return the input of this name."""
    path = folder / name
    makers: dict[str, Callable[[Path], Path]] = {"pages": pages, "clear": clear, "deep": deep}
    return makers[path.stem](path) if path.stem in makers else save_image(path, make_image(60, 70))


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file, including hidden ones."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = [
    ("clear.png", "out.png"),
    ("clear.png", "out.tif"),
    ("clear.png", "out.webp"),
    ("pages.tif", "out.tif"),
    ("deep.tif", "out.tif"),
    ("plain.png", "out.jpg"),
    ("plain.png", "out.bmp"),
    ("plain.png", "out.avif"),
]


@pytest.mark.parametrize(("source", "output"), FILES)
@pytest.mark.parametrize("batch", [1, 2])
def test_at_each_tile_in_turn(source: str, output: str, batch: int, tmp_path: Path) -> None:
    """With two tiles per batch it continues with one and the same pixels, then with smaller tiles."""
    path, tiling = made(tmp_path, source), Tiling(32, 8, batch=batch)
    work = [Task(str(path), str(tmp_path / "out" / output))]
    undisturbed = NearestModel()
    (result,) = restore_files(undisturbed, work, tiling)
    assert (result.status, result.notes) == ("done", ())
    expected = contents(tmp_path)
    for call in range(1, undisturbed.calls + 1):
        Path(result.output).unlink()
        model = NearestModel(faults=(call,))
        (result,) = restore_files(model, work, tiling)
        assert model.calls > undisturbed.calls
        how = "tiles of 16 px" if batch == 1 else "1 tile at a time"
        assert result.notes == (f"memory ran out: continued with {how}",)
        assert (result.status, result.tile) == ("done", 16 if batch == 1 else 32)
        assert contents(tmp_path) == expected


@pytest.mark.parametrize("again", [1, 2])
def test_memory_runs_out_several_times_in_one_file(again: int, tmp_path: Path) -> None:
    path = made(tmp_path, "clear.png")
    work = [Task(str(path), str(tmp_path / "out.png"))]
    restore_files(NearestModel(), work, Tiling(64, 8, batch=4))
    expected = contents(tmp_path)
    model = NearestModel(faults=(1, 1 + again, 1 + 2 * again))
    (result,) = restore_files(model, work, Tiling(64, 8, batch=4))
    assert result.notes == ("memory ran out: continued with tiles of 32 px",)
    assert contents(tmp_path) == expected


def test_each_file_of_a_folder_in_turn(tmp_path: Path) -> None:
    """The note belongs to the file where it happened. Later files start with the tiling that worked."""
    names = ["a.png", "clear.png", "pages.tif", "z.png"]
    tasks = [Task(str(made(tmp_path, name)), str(tmp_path / "out" / name)) for name in names]
    undisturbed = NearestModel()
    assert [result.status for result in restore_files(undisturbed, tasks, Tiling(32, 8))] == ["done"] * 4
    expected = contents(tmp_path)
    for call in range(1, undisturbed.calls + 1):
        results = restore_files(NearestModel(faults=(call,)), tasks, Tiling(32, 8))
        assert [result.status for result in results] == ["done"] * 4
        (index,) = [i for i, result in enumerate(results) if result.notes]
        assert [result.tile for result in results] == [32] * index + [16] * (4 - index)
        assert contents(tmp_path) == expected


def test_small_files_of_one_batch(tmp_path: Path) -> None:
    """If they do not fit together, each is restored alone."""
    job = replace(JOB, model=replace(JOB.model, batch=4))
    tasks = [
        Task(str(save_image(tmp_path / f"{i}.png", make_image(30, 20 + i % 2, seed=i))), str(tmp_path / f"out/{i}.png"))
        for i in range(6)
    ]
    restore_files(NearestModel(), tasks, Tiling(64, 8, batch=4), job)
    expected = contents(tmp_path)
    for call in range(1, 7):
        results = restore_files(NearestModel(faults=(call,)), tasks, Tiling(64, 8, batch=4), job)
        assert [result.status for result in results] == ["done"] * 6
        assert contents(tmp_path) == expected


def test_a_file_that_does_not_fit_at_the_smallest_tile_fails_alone(tmp_path: Path) -> None:
    class FailsOnBright(NearestModel):
        """Runs out of memory for bright images."""

        def __call__(self, x: Tensor) -> Tensor:
            if x.amax() > 0.9:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().__call__(x)

    tasks = []
    for name, level in (("a", 90), ("b", 255), ("c", 90)):
        path = save_image(tmp_path / f"{name}.png", np.full((40, 50, 3), level, np.uint8))
        tasks.append(Task(str(path), str(tmp_path / f"out/{name}.png")))
    results = restore_files(FailsOnBright(), tasks, Tiling(32, 8, batch=2))
    assert [result.status for result in results] == ["done", "failed", "done"]
    assert results[1].error is not None
    assert results[1].error.code == 5
    assert str(results[1].error).endswith("b.png: out of memory at the smallest tile, 8 px")  # no hint to use the CPU
    assert sorted(contents(tmp_path / "out")) == ["a.png", "c.png"]


@pytest.mark.parametrize(("module", "name"), [(worker, "open_file_pipeline"), (writers, "join_rows")])
def test_a_file_without_memory_to_open_or_to_write_it_fails_alone(
    module: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [Task(str(made(tmp_path, f"{name}.png")), str(tmp_path / f"out/{name}.jpg")) for name in "abc"]
    calls, real = count(1), getattr(module, name)

    def lacking(*args: object) -> object:
        if next(calls) == 2:
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(module, name, lacking)
    results = restore_files(NearestModel(), tasks, Tiling(32, 8))
    (failed,) = [result.error for result in results if result.error is not None]
    assert failed.code == 5
    assert re.match(rf"{tmp_path}/[abc]\.png: out of memory: cpu has no room for its (pixels|result)$", str(failed))
    assert len(contents(tmp_path / "out")) == 2


@contextmanager
def lacking_memory(monkeypatch: pytest.MonkeyPatch, call: int) -> Iterator[None]:
    """Make real networks run out of memory at this call."""
    calls, real = count(1), Network.__call__

    def lacking(self: Network, x: Tensor) -> Tensor:
        if next(calls) == call:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return real(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "__call__", lacking)
        yield


@pytest.mark.parametrize("batch", [1, 2])
def test_the_command_reports_the_smaller_tiling_and_has_its_result(
    batch: int, restore: Run, x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result equals that of a run with these smaller tiles, whose borders a real network sees."""
    save_image(Path("photos/a.png"), make_image(24, 50))
    save_image(Path("photos/b.png"), make_image(44, 20, 4))
    command = ("sr", "photos", "--weights", x2, "--precision", "fp32", "--json", "--overwrite", "-o")
    for tile in (40, 16):
        ran = restore(*command, tile, "--tile", tile, "--batch", 1)
        assert ran.code == 0, ran.err
    for call in count(1):
        with lacking_memory(monkeypatch, call):
            ran = restore(*command, "out", "--tile", 40, "--batch", batch)
        assert ran.code == 0, ran.err
        results = [json.loads(line) for line in ran.out.splitlines()[:-1]]
        notes = [note for result in results for note in result["notes"]]
        if not notes:
            break  # it has fewer calls
        assert notes == [f"memory ran out: continued with {'1 tile at a time' if batch == 2 else 'tiles of 16 px'}"]
        for result in results:
            output = Path(result["output"])
            assert output.read_bytes() == Path(str(result["tile"]), output.name).read_bytes()
        assert not list(Path("out").glob(".restore-*.part"))
    assert call > 3
