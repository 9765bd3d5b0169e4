"""A job on a Ray cluster: real nodes on this machine, one of them killed."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from images import make_image, save_image
from outputs import read_files, read_outcomes
from s3_proxy import S3Proxy
from s3_store import CREDENTIALS, Store

from restore_cli.errors import INSTALL_EXTRA, UsageError
from restore_cli.jobs.events import Event, PictureStarted
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.run import run_job
from restore_cli.jobs.types import Job, ModelOptions, RunOptions
from restore_cli.jobs.workers.dispatcher import MAX_TASKS
from restore_cli.jobs.workers.ray_cluster import plan_workers
from restore_cli.weights.catalogue import Catalogue, Request

HERE = Path(__file__).parent
COUNT = 30
Row = Mapping[str, Any]


@pytest.fixture(scope="module")
def nodes(s3_server: tuple[subprocess.Popen[str], S3Proxy]) -> Iterator[list[str]]:
    """Return the address of a cluster of three nodes that can reach an S3 server, and the process of each."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
    command = [sys.executable, str(HERE / "ray_nodes.py"), "3"]
    pipe, environment = subprocess.PIPE, {**quiet(), **CREDENTIALS, "AWS_ENDPOINT_URL": s3_server[1].url}
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as ray:
        assert ray.stdin is not None
        assert ray.stdout is not None
        yield ray.stdout.readline().split()
        ray.stdin.close()


def quiet() -> dict[str, str]:
    """Send no usage data, and let the nodes find the modules of the tests."""
    return {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make thirty images in two folders, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT - 1):
        save_image(folder / ("a" if number % 2 else "b") / f"{number}.png", make_image(150, 200, seed=number))
    (folder / "a" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def job(photos: Path, x1: Path, tmp_path: Path) -> Job:
    """Return a job for all of them on this machine."""
    return Job(
        ModelOptions(Request("denoise"), Catalogue((), {}), weights=x1),
        InputSpec((str(photos),)),
        str(tmp_path / "out"),
    )


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., Iterator[Row]]:
    """Yield the Results of a job in another process, which must print nothing else."""

    def rows(job: Job, *most: int) -> Iterator[Row]:
        (tmp_path / "job").write_bytes(pickle.dumps(job))
        command = [sys.executable, str(HERE / "ray_driver.py"), str(tmp_path / "job"), *map(str, most)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=quiet(), cwd=tmp_path) as driver:
            assert driver.stdout is not None
            assert driver.stderr is not None
            yield from map(json.loads, driver.stdout)
            assert driver.stderr.read() == ""
        assert driver.returncode == 0

    return rows


def kill(node: int) -> None:
    """Kill all processes of a node at once, as a power cut does."""
    below = Path(f"/proc/{node}/task/{node}/children").read_text(encoding="ascii").split()
    for number in (node, *map(int, below)):
        os.kill(number, signal.SIGKILL)


def test_a_batch_moves_to_a_cluster_survives_a_killed_node_and_moves_back(
    job: Job, nodes: list[str], drive: Callable[..., Iterator[Row]], tmp_path: Path
) -> None:
    expected = tmp_path / "expected"
    list(run_job(replace(job, output=str(expected))))
    there = replace(job, output="out", run=replace(job.run, cluster=nodes[0]))
    begun: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, PictureStarted):
            begun.append(event.input)

    list(run_job(job, on_event, lambda: len(begun) >= 3))
    here = len(read_files(tmp_path / "out"))
    assert 0 < here < COUNT - 10

    statuses: Counter[str] = Counter()
    notes = []
    for row in drive(there, COUNT - 4):
        if note := row.get("note"):
            notes.append(note)
            continue
        statuses[row["status"]] += 1
        if row["status"] == "done" and statuses["done"] == 8:
            kill(int(nodes.pop()))
    assert statuses["done"] + statuses["skipped"] + statuses["failed"] >= COUNT - 4
    assert statuses["skipped"] >= here - 1
    died = [note for note in notes if "died" in note]
    assert len(died) == 1
    said = re.fullmatch(r"worker . of the cluster died with (\d+) images, .*: another takes its place", died[0])
    assert said
    assert 1 <= int(said[1]) <= MAX_TASKS

    last = [result.status for result in run_job(job)]
    assert len(last) == COUNT
    assert read_files(tmp_path / "out") == read_files(expected)
    told = read_outcomes(job.output or "")
    assert all(what == ["done"] for name, what in told.items() if name != "a/broken.png")
    assert len(told) == COUNT


def test_workers_of_a_cluster_use_a_bucket_with_a_manifest(
    job: Job, photos: Path, nodes: list[str], drive: Callable[..., Iterator[Row]], store: Store, tmp_path: Path
) -> None:
    for path in sorted((photos / "a").glob("*.png"))[:6]:
        store.put(f"in/{path.name}", path.read_bytes())
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    list(run_job(replace(job, inputs=InputSpec((str(tmp_path / "in"),)))))
    run = replace(job.run, cluster=nodes[0])
    there = replace(job, inputs=InputSpec((f"{store.url}/in",)), output=f"{store.url}/clean", run=run)
    assert [row["status"] for row in drive(there) if "status" in row] == ["done"] * 6
    assert store.read("clean") == read_files(tmp_path / "out")
    assert len(store.manifests("clean")) == 1
    store.put("in/1.png", (photos / "b" / "2.png").read_bytes())
    assert sorted(row["status"] for row in drive(there) if "status" in row) == ["done"] + ["skipped"] * 5


def test_a_cluster_that_does_not_answer_is_an_error(job: Job) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
    with pytest.raises(UsageError, match=r"--cluster 127\.0\.0\.1:1: nothing answers at 127\.0\.0\.1:1"):
        list(run_job(replace(job, run=replace(job.run, cluster="127.0.0.1:1"))))


def test_missing_ray_is_one_line(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as caught:
        next(run_job(replace(job, run=replace(job.run, cluster="auto"))))
    assert str(caught.value) == f"--cluster needs Ray, which is not installed (try: {INSTALL_EXTRA.format('cluster')})"


@pytest.mark.parametrize(
    ("device", "options", "machines", "count", "needs"),
    [
        ("auto", {}, [{"CPU": 4}, {"CPU": 2}], 6, {"num_cpus": 1}),
        ("auto", {"workers": 2}, [{"CPU": 5}, {"CPU": 3}], 2, {"num_cpus": 3}),
        ("auto", {}, [{"CPU": 8, "GPU": 4}, {"CPU": 8}], 4, {"num_cpus": 0, "num_gpus": 1}),
        ("auto", {"gpus_per_worker": 0.6}, [{"GPU": 1}, {"GPU": 1}], 2, {"num_cpus": 0, "num_gpus": 0.6}),
        ("cpu", {}, [{"CPU": 8, "GPU": 4}], 8, {"num_cpus": 1}),
        ("auto", {"workers": 9}, [{"CPU": 1}], 9, {"num_cpus": 1}),
    ],
)
def test_the_number_of_workers_fits_the_nodes(
    job: Job,
    device: str,
    options: dict[str, Any],
    machines: list[dict[str, float]],
    count: int,
    needs: dict[str, float],
) -> None:
    job = replace(job, model=replace(job.model, device=device), run=RunOptions(cluster="auto", **options))
    assert plan_workers(job, machines) == (count, needs)


@pytest.mark.parametrize("device", ["cuda:1", "all"])
def test_devices_are_not_named_on_a_cluster(job: Job, device: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
    job = replace(job, model=replace(job.model, device=device), run=RunOptions(cluster="auto"))
    with pytest.raises(UsageError, match="--device"):
        next(run_job(job))


@pytest.mark.parametrize(("option", "value"), [("--workers", "0"), ("--gpus-per-worker", "-0.5")])
def test_counts_that_no_cluster_supports_are_refused(option: str, value: str) -> None:
    command = [sys.executable, "-m", "restore_cli", "denoise", "in.png", "--cluster", "auto", option, value]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 2
    assert f"{option} {value}: expected" in ran.stderr


def test_a_cluster_without_room() -> None:
    with pytest.raises(UsageError, match="no room"):
        plan_workers(Job(ModelOptions(Request("denoise"), Catalogue((), {}))), [{"memory": 1.0}])


def test_options_of_a_cluster_need_one(job: Job) -> None:
    with pytest.raises(UsageError, match="--workers is for a cluster"):
        next(run_job(replace(job, run=replace(job.run, workers=2))))
