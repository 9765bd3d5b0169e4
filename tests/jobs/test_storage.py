"""Inputs and outputs on a real FTP server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import fsspec
import pytest
from images import make_image, save_image
from outputs import read_files

from restore_cli.errors import ImageError, OutputError, UsageError
from restore_cli.jobs.paths import IgnoredFiles, InputSpec
from restore_cli.jobs.plan import names_folder
from restore_cli.jobs.run import run_job
from restore_cli.jobs.storage import download_folder, list_remote, read_modified_ns, read_remote_state, upload_file
from restore_cli.jobs.types import Job, ModelOptions, RunOptions
from restore_cli.weights.catalogue import Catalogue, Request, read_catalogue


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the server serves: images in two folders, one of them broken, and a text file."""
    home = tmp_path_factory.mktemp("ftp")
    for number in (1, 2, 10):
        save_image(home / "photos" / f"{number}.png", make_image(40, 56, seed=number))
    save_image(home / "photos" / "below" / "3.png", make_image(40, 56, seed=3))
    (home / "photos" / "4.png").write_bytes(b"no picture")
    (home / "photos" / ".hidden.png").write_bytes(b"")
    (home / "photos" / "list.txt").write_bytes(b"")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """Return the address of the server."""
    command, pipe = [sys.executable, str(Path(__file__).with_name("ftp_server.py")), str(home)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"ftp://me:secret@127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


@pytest.fixture
def job(home: Path, x1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a job for the server's images as local files."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    out = str(tmp_path / "expected")
    return Job(ModelOptions(Request("denoise"), Catalogue((), {}), weights=x1), InputSpec((str(home / "photos"),)), out)


def test_from_a_server_to_a_server(job: Job, server: str, home: Path, tmp_path: Path) -> None:
    list(run_job(job))
    there = replace(job, inputs=InputSpec((f"{server}/photos",)), output=f"{server}/clean/")
    results = list(run_job(there))
    names = [result.input.removeprefix(f"{server}/photos/") for result in results]
    assert names == ["1.png", "2.png", "4.png", "10.png", "below/3.png"]
    failed = [result for result in results if result.status == "failed"]
    assert [str(result.error).partition(": ")[0] for result in failed] == [f"{server}/photos/4.png"]
    assert read_files(home / "clean") == read_files(tmp_path / "expected")
    assert [result.status for result in run_job(there)].count("skipped") == 4
    assert not list((tmp_path / "tmp").iterdir())


def test_from_a_server_to_this_machine_and_back(job: Job, server: str, tmp_path: Path) -> None:
    list(run_job(job))
    here = replace(job, inputs=InputSpec((f"{server}/photos/",)), output=str(tmp_path / "out"))
    assert [result.status for result in run_job(here)].count("done") == 4
    assert read_files(tmp_path / "out") == read_files(tmp_path / "expected")
    assert [result.notes for result in run_job(here) if result.status == "skipped"] == [
        ("done before; --overwrite restores it again",)
    ] * 4


def test_worker_processes_use_the_server(job: Job, server: str, home: Path, tmp_path: Path) -> None:
    list(run_job(job))
    there = replace(
        job,
        inputs=InputSpec((f"{server}/photos",)),
        output=f"{server}/pool/",
        model=replace(job.model, device="cpu,cpu"),
    )
    assert sorted(result.status for result in run_job(there)) == ["done"] * 4 + ["failed"]
    assert read_files(home / "pool") == read_files(tmp_path / "expected")


def test_missing_remote_files_are_errors(job: Job, server: str) -> None:
    assert read_remote_state(f"{server}/photos/none.png") is None
    nobody = "ftp://127.0.0.1:1/photos"
    with pytest.raises(ImageError, match="cannot be reached"):
        list_remote(nobody, {".png"}, True, IgnoredFiles())
    results = list(
        run_job(replace(job, inputs=InputSpec((nobody, f"{server}/none", f"{server}/photos/1.png"))), count_inputs=True)
    )
    assert [(result.input, result.status) for result in results] == [
        (f"{server}/photos/1.png", "done"),
        (nobody, "failed"),
        (f"{server}/none", "failed"),
    ]


@pytest.mark.parametrize(
    ("facts", "stamp"),
    [
        ({}, 0),
        ({"mtime": 1.5}, 1_500_000_000),
        ({"modify": "20260102030405"}, 1_767_323_045_000_000_000),
        ({"LastModified": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}, 1_767_323_045_000_000_000),
        ({"modify": "yesterday"}, 0),
    ],
)
def test_modification_times_of_all_formats(facts: dict[str, object], stamp: int) -> None:
    assert read_modified_ns(facts) == stamp


@pytest.mark.parametrize(
    "options",
    [RunOptions(watch=True), RunOptions(compare_by_hash=True), RunOptions(keep_times=True), RunOptions(compare=True)],
)
def test_options_for_local_files_refuse_remote_ones(options: RunOptions) -> None:
    job = Job(
        ModelOptions(Request("denoise"), read_catalogue()),
        InputSpec(("ftp://127.0.0.1/photos",)),
        "out",
        run=options,
    )
    with pytest.raises(UsageError, match=r"works with local files only, and ftp://.* is remote"):
        next(run_job(job))


def test_a_result_in_a_store_is_replaced(job: Job) -> None:
    there = replace(job, output="memory://clean", run=RunOptions(if_exists="overwrite"))
    try:
        assert [[result.status for result in run_job(there)].count("done") for _ in range(2)] == [4, 4]
    finally:
        fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("name", ["a.png", "a.GIF", "a.heic"])
def test_a_remote_image_is_no_folder(name: str) -> None:
    assert not names_folder(f"s3://photos/{name}")
    assert names_folder("s3://photos/2026")


def test_concurrent_uploads_into_a_new_folder(server: str, home: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.txt" for i in range(8)]
    for path in files:
        path.write_text(path.name)
    start = Barrier(len(files))

    def one(path: Path) -> None:
        start.wait()
        upload_file(path, f"{server}/new/below/{path.name}")

    with ThreadPoolExecutor(len(files)) as pool:
        list(pool.map(one, files))
    assert sorted(path.name for path in (home / "new/below").iterdir()) == [path.name for path in files]


def test_a_folder_that_cannot_be_made_is_one_line(server: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (home / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot be written"):
        upload_file(tmp_path / "a.txt", f"{server}/file/below/a.txt")


@pytest.mark.parametrize("name", ["../../outside.jsonl", "..\\outside.jsonl", "below/inside.jsonl", ".."])
def test_names_of_a_store_lead_to_no_file_outside_of_the_folder(name: str, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/clean/manifest/000001.jsonl", b"{}")
    store.store[f"/clean/manifest/{name}"] = store.store["/clean/manifest/000001.jsonl"]  # as a bucket may have it
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    try:
        assert download_folder("memory://clean/manifest", folder) == [folder / "000001.jsonl"]
    finally:
        store.store.clear()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / "000001.jsonl"]
