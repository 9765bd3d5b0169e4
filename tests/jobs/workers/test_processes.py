"""Several devices of one machine: real processes, really killed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
from images import make_image, save_image
from outputs import read_files, read_outcomes

from restore_cli.errors import RestoreError, UsageError
from restore_cli.jobs.events import Event, Note, PictureStarted, TileDone
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.run import run_job
from restore_cli.jobs.types import Job, ModelOptions, PlanItem, Result, Task
from restore_cli.jobs.workers.dispatcher import Dispatcher
from restore_cli.jobs.workers.loop import Ready
from restore_cli.jobs.workers.processes import ProcessBackend, ProcessHandle, share_memory
from restore_cli.pipeline import memory
from restore_cli.system import SIGNALS
from restore_cli.weights.catalogue import Catalogue, Request


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make twelve images in two folders, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(11):
        save_image(folder / ("a" if number % 2 else "b") / f"{number}.png", make_image(40, 56, seed=number))
    (folder / "a" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def job(photos: Path, x1: Path, tmp_path: Path) -> Job:
    """Return a job for all of them on two devices, both of which are the CPU."""
    request = Request("denoise")
    out = str(tmp_path / "out")
    return Job(ModelOptions(request, Catalogue((), {}), weights=x1, device="cpu,cpu"), InputSpec((str(photos),)), out)


@pytest.fixture(scope="module")
def expected(photos: Path, x1: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the results of one process."""
    out = tmp_path_factory.mktemp("expected")
    assert list(
        run_job(
            Job(ModelOptions(Request("denoise"), Catalogue((), {}), weights=x1), InputSpec((str(photos),)), str(out))
        )
    )
    return read_files(out)


def kill(child: int) -> None:
    """Kill a process as the kernel does if memory is short."""
    os.kill(child, signal.SIGKILL)


@pytest.mark.needs("signal.pthread_sigmask")
@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_worker_survives_a_signal_of_its_group_from_its_first_moment(number: signal.Signals, job: Job) -> None:
    handle = ProcessHandle(job, "cpu", threads=1, number=1)
    assert handle.process.pid is not None
    os.kill(handle.process.pid, number)
    assert handle.connection.recv() == Ready()  # EOFError if it has ended
    handle.connection.close()
    handle.join()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {number}


@pytest.mark.needs("signal.pthread_sigmask")
def test_two_processes_give_the_same_results_and_ignore_interrupts(job: Job, expected: dict[str, bytes]) -> None:
    seen: list[str] = []
    tiles: list[tuple[int, int]] = []

    def note_event(event: Event) -> None:
        if isinstance(event, PictureStarted):
            seen.append(event.input)
        elif isinstance(event, TileDone):
            tiles.append((event.done, event.total))

    results = []
    for result in run_job(job, note_event):
        results.append(result)
        for child in active_children():
            for number in SIGNALS:
                os.kill(child.pid or 0, number)
    assert read_files(Path(job.output or "")) == expected
    assert len({result.input for result in results}) == len(results) == 12
    assert sum(result.status == "failed" for result in results) == 1
    assert len(seen) == 12
    assert tiles
    assert not active_children()


def test_a_killed_process_loses_no_image(job: Job, expected: dict[str, bytes]) -> None:
    notes: list[str] = []
    results: list[Result] = []
    for result in run_job(job, lambda event: notes.append(event.text) if isinstance(event, Note) else None):
        results.append(result)
        if len(results) == 4:
            kill(active_children()[0].pid or 0)
    assert read_files(Path(job.output or "")) == expected
    assert sorted(result.status for result in results) == ["done"] * 11 + ["failed"]
    assert {status for told in read_outcomes(job.output or "").values() for status in told} == {"done", "failed"}
    assert all(len(told) == 1 for told in read_outcomes(job.output or "").values())
    assert len(notes) == 1
    assert "killed by SIGKILL" in notes[0]


def start_two(job: Job, on_picture: Callable[[ProcessHandle, str], None]) -> Dispatcher:
    """Start two processes. `on_picture` is called with the one that starts a picture."""

    def call(event: Event) -> None:
        if isinstance(event, PictureStarted):
            assert isinstance(dispatcher.last_started, ProcessHandle)
            on_picture(dispatcher.last_started, event.input)

    dispatcher = Dispatcher(ProcessBackend(job, ["cpu", "cpu"]), job, call, lambda: False)
    return dispatcher


def make_tasks(folder: Path, *sides: int) -> Iterator[PlanItem]:
    """Yield tasks of square images."""
    for number, side in enumerate(sides):
        path = save_image(folder / "in" / f"{number}.png", make_image(side, side, seed=number))
        yield Task(str(path), str(folder / "out" / path.name))


def test_an_image_that_kills_its_workers_fails_alone(job: Job, tmp_path: Path) -> None:
    met: list[str] = []

    def on_picture(worker: ProcessHandle, path: str) -> None:
        if path.endswith("/3.png"):
            met.append(worker.name)
            kill(worker.process.pid or 0)

    sides = [40, 40, 40, 400, 40, 40, 40, 40]
    results = list(start_two(job, on_picture).results(make_tasks(tmp_path, *sides)))
    failed = [result for result in results if result.status == "failed"]
    assert [Path(result.input).name for result in failed] == ["3.png"]
    assert "a worker died while restoring it, twice: killed by SIGKILL" in str(failed[0].error)
    assert len(results) == len(sides) == len(list((tmp_path / "out").iterdir())) + 1
    assert len(met) == 2


def test_the_run_ends_with_one_error_if_no_worker_is_left(job: Job, tmp_path: Path) -> None:
    for number in range(3):  # large enough that none is done before its beginning is heard of
        save_image(tmp_path / "in" / f"{number}.png", make_image(400, 400, seed=number))
    job = replace(job, inputs=InputSpec((str(tmp_path / "in"),)))

    def kill_all(event: Event) -> None:
        for child in active_children() if isinstance(event, PictureStarted) else ():
            kill(child.pid or 0)

    with pytest.raises(RestoreError, match=r"no worker is left: worker . \(cpu\) died \(killed by SIGKILL\)") as no:
        list(run_job(job, kill_all))
    assert no.value.code == 1
    assert not active_children()
    assert [result.status for result in run_job(job)] == ["done"] * 3
    assert len(read_files(Path(job.output or ""))) == 3


def test_an_image_written_before_its_worker_died_is_not_restored_again(job: Job, tmp_path: Path) -> None:
    first = tmp_path / "out" / "0.png"
    begun: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, PictureStarted):
            begun.append(event.input)
        if not isinstance(event, TileDone):
            return
        assert isinstance(dispatcher.last_started, ProcessHandle)
        if begun[-1].endswith("/1.png") and first.exists() and not times:
            times.append(first.stat().st_mtime_ns)
            kill(dispatcher.last_started.process.pid or 0)

    times: list[int] = []
    dispatcher = Dispatcher(ProcessBackend(job, ["cpu"]), job, on_event, lambda: False)
    results = {Path(result.input).name: result for result in dispatcher.results(make_tasks(tmp_path, 40, 600))}
    assert [Path(path).name for path in begun] in (["0.png", "1.png", "1.png"], ["0.png", "1.png"])
    assert results["0.png"].status == results["1.png"].status == "done"
    assert results["0.png"].model == results["1.png"].model
    assert results["0.png"].sha256 == results["1.png"].sha256
    assert times == [first.stat().st_mtime_ns]


def test_processes_end_with_their_parent(job: Job, tmp_path: Path) -> None:
    code = (
        "import sys, pickle; from multiprocessing import active_children\n"
        "from restore_cli.jobs.run import run_job\n"
        "for result in run_job(pickle.loads(bytes.fromhex(sys.argv[1]))):\n"
        "    print(*(child.pid for child in active_children()), flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, pickle.dumps(job).hex()], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as out:
        children = out.readline().split()
        parent.kill()
        parent.wait()
        out.read()  # ends when no process can write there any more
    assert len(children) == 2


@pytest.mark.parametrize("device", ["cpu,cuda:99", "all", "cpu,toaster"])
def test_missing_devices_are_refused(job: Job, device: str) -> None:
    import torch

    from restore_cli.jobs.workers.processes import list_devices

    if device == "all" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(UsageError, match="device"):
        list_devices(device)


def test_processes_on_one_device_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda device: 3000)
    assert share_memory(None, "cpu", 3) == 1000
    assert share_memory(None, "cpu", 1) is None
    assert share_memory(2000, "cpu", 3) == 2000
