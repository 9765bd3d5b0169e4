"""A batch that was stopped continues, does nothing twice, and replaces only its own files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from images import make_image, save_image

from restore_cli.jobs.manifest import MANIFEST_NAME
from restore_cli.jobs.model_cache import ModelCache
from restore_cli.jobs.paths import InputSpec
from restore_cli.jobs.run import plan_dry_run, run_job
from restore_cli.jobs.types import Job, ModelOptions, Result
from restore_cli.weights.catalogue import Request, read_catalogue


@pytest.fixture
def job(tmp_path: Path, x1: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a job that denoises six images of a tree into `out`."""
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        save_image(Path("photos", "sub" if i % 2 else "", f"{i}.png"), make_image(8 + i, 9, seed=i))
    return Job(
        ModelOptions(Request("denoise"), read_catalogue(), weights=x1, device="cpu"), InputSpec(("photos",)), "out"
    )


def statuses(job: Job) -> dict[str, str]:
    return {result.input.removeprefix("photos/"): result.status for result in run_job(job)}


def events(path: Path = Path("out", MANIFEST_NAME)) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [event for event in found if "status" in event]


def contents(folder: str) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name != MANIFEST_NAME
    }


ALL = {"0.png", "2.png", "4.png", "sub/1.png", "sub/3.png", "sub/5.png"}


def test_a_second_run_skips_what_is_done(job: Job) -> None:
    assert statuses(job) == dict.fromkeys(ALL, "done")
    before = contents("out")
    assert statuses(job) == dict.fromkeys(ALL, "skipped")
    assert contents("out") == before
    done = [event for event in events() if event["status"] == "done"]
    assert {event["output"] for event in done} == ALL
    assert all(Path("photos", event["input"]).stat().st_size == event["bytes"] for event in done)
    assert all(list(Path("out", e["output"]).stat())[6] == e["result"][0] for e in done)


def test_only_a_changed_input_is_restored_again(job: Job) -> None:
    statuses(job)
    save_image(Path("photos/2.png"), make_image(20, 20, seed=9))
    assert statuses(job) == dict.fromkeys(ALL, "skipped") | {"2.png": "done"}


def test_a_changed_option_restores_all_again(job: Job) -> None:
    statuses(job)
    changed = replace(job, model=replace(job.model, tile=64))
    assert set(statuses(changed).values()) == {"done"}
    assert set(statuses(changed).values()) == {"skipped"}


def test_another_checkpoint_restores_all_again(job: Job, tmp_path: Path) -> None:
    from images import make_checkpoint

    statuses(job)
    other = make_checkpoint(tmp_path / "other.safetensors", "swinir_color_jpeg")
    assert set(statuses(replace(job, model=replace(job.model, weights=other))).values()) == {"done"}


def test_comparing_by_hash_ignores_times_and_finds_changed_content(job: Job) -> None:
    by_hash = replace(job, run=replace(job.run, compare_by_hash=True))
    statuses(by_hash)
    facts = Path("photos/0.png").stat()
    os.utime("photos/0.png", ns=(0, 0))
    size = Path("photos/2.png").stat().st_size
    data = bytearray(Path("photos/2.png").read_bytes())
    data[-5] ^= 1  # of the last chunk's checksum
    Path("photos/2.png").write_bytes(data)
    assert (facts.st_mtime_ns != 0, Path("photos/2.png").stat().st_size) == (True, size)
    found = statuses(by_hash)
    assert found["0.png"] == "skipped"
    assert found["2.png"] != "skipped"


def test_files_that_restore_did_not_write_stay(job: Job) -> None:
    Path("out").mkdir()
    Path("out/0.png").write_bytes(b"mine")
    statuses(job)
    save_image(Path("photos/2.png"), make_image(20, 20, seed=9))
    Path("out/2.png").write_bytes(b"retouched")
    found = {Path(result.input).name: result for result in run_job(job)}
    assert (found["0.png"].status, found["2.png"].status) == ("skipped", "skipped")
    assert "changed after it was restored" in found["2.png"].notes[0]
    assert (Path("out/0.png").read_bytes(), Path("out/2.png").read_bytes()) == (b"mine", b"retouched")
    assert set(statuses(replace(job, run=replace(job.run, if_exists="overwrite"))).values()) == {"done"}


def test_the_result_of_another_input_is_not_replaced(job: Job) -> None:
    statuses(job)
    save_image(Path("others/0.png"), make_image(30, 30, seed=7))
    (result,) = run_job(replace(job, inputs=InputSpec(("others",))))
    assert result.error is not None
    assert "which is the result of" in str(result.error)


def test_lines_that_restore_did_not_write_are_ignored(job: Job) -> None:
    statuses(job)
    with Path("out", MANIFEST_NAME).open("a") as file:
        file.write('{"status":"done","output":"0.png"}\n{"status":"begun"}\n{"status":"done","output":[]}\n[]\n')
    assert statuses(job) == dict.fromkeys(ALL, "skipped")


def test_the_count_includes_inputs_that_are_refused(job: Job) -> None:
    plan = plan_dry_run(replace(job, output="photos"), ModelCache(job.model))
    assert [result.status for result in plan.items() if isinstance(result, Result)] == ["failed"] * 6
    assert plan.count_inputs() == plan.found == 6


def make_link(path: str, target: str) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).symlink_to(target)


@pytest.mark.parametrize(
    ("inputs", "output", "link", "target"),
    [
        (("photos",), "out", "out/0.png", "../photos/2.png"),
        (("photos",), "out", "out/sub", "../photos"),
        (("photos",), "photos/out", "photos/out/0.png", "../2.png"),
        (("photos",), None, "photos/0_denoise.png", "2.png"),
        (("photos/0.png", "photos/2.png"), "out", "out/0.png", "../photos/2.png"),
        (("photos/0.png", "photos/2.png"), "out/{stem}.png", "out/0.png", "../photos/2.png"),
    ],
)
def test_a_link_leads_to_no_input(
    inputs: tuple[str, ...], output: str | None, link: str, target: str, job: Job
) -> None:
    save_image(Path("photos/1.png"), make_image(9, 9, seed=7))  # out/sub/1.png would be this one
    before = contents("photos")
    make_link(link, target)
    overwriting = replace(job.run, if_exists="overwrite")
    results = list(run_job(replace(job, inputs=InputSpec(inputs), output=output, run=overwriting)))
    assert contents("photos").items() >= before.items()
    assert "is a link to an input" in " ".join(str(result.error) for result in results)
    assert "done" in {result.status for result in results}


def test_results_may_be_links_to_other_places(job: Job) -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/old.png").write_bytes(b"old")
    make_link("out/0.png", "../elsewhere/old.png")
    assert set(statuses(replace(job, run=replace(job.run, if_exists="overwrite"))).values()) == {"done"}
    assert Path("elsewhere/old.png").read_bytes() != b"old"


def test_skip_existing_checks_only_names(job: Job) -> None:
    Path("out").mkdir()
    Path("out/0.png").touch()
    assert statuses(replace(job, run=replace(job.run, if_exists="skip-existing"))) == dict.fromkeys(ALL, "done") | {
        "0.png": "skipped"
    }


def test_an_unfinished_output_is_restored_again_whatever_file_exists(job: Job) -> None:
    expected = statuses(job) and contents("out")
    text = Path("out", MANIFEST_NAME).read_text().splitlines(keepends=True)
    last = next(line for line in reversed(text) if '"status":"done"' in line)
    kept = [line for line in text if line is not last]
    Path("out", MANIFEST_NAME).write_text("".join(kept) + last[: len(last) // 2])  # torn, as by a full disk
    name = json.loads(last)["output"]
    Path("out", name).write_bytes(b"an older result")
    found = statuses(job)
    assert found == dict.fromkeys(ALL, "skipped") | {name: "done"}
    assert contents("out") == expected
    assert set(statuses(job).values()) == {"skipped"}


def test_shards_are_disjoint_and_complete(job: Job) -> None:
    found = [set(statuses(replace(job, run=replace(job.run, shard=(i, 3))))) for i in (1, 2, 3)]
    assert set().union(*found) == ALL
    assert sum(map(len, found)) == len(ALL)
    assert set(statuses(job).values()) == {"skipped"}  # every shard's manifest is read


def test_a_bad_file_stops_the_run_only_with_fail_fast(job: Job) -> None:
    Path("photos/1bad.png").write_bytes(b"no picture")
    assert statuses(job) == dict.fromkeys(ALL, "done") | {"1bad.png": "failed"}
    for path in Path("photos").rglob("*.png"):
        path.touch()
    more = {f"{i}.png" for i in range(10, 40)}
    for name in more:
        save_image(Path("photos", name), make_image(8, 8))
    found = statuses(replace(job, run=replace(job.run, fail_fast=True)))
    assert found["1bad.png"] == "failed"
    assert not more <= set(found)


def test_times_are_kept_on_request(job: Job) -> None:
    os.utime("photos/0.png", ns=(10**18, 10**18))
    statuses(replace(job, run=replace(job.run, keep_times=True)))
    assert Path("out/0.png").stat().st_mtime_ns == 10**18
    assert set(statuses(replace(job, run=replace(job.run, keep_times=True))).values()) == {"skipped"}


def test_times_that_cannot_be_kept_are_a_note(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, ns: tuple[int, int]) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.utime", refuse)
    results = list(run_job(replace(job, run=replace(job.run, keep_times=True))))
    assert [(result.status, result.notes[-1]) for result in results] == [
        ("done", "its time is not that of the input: Operation not permitted")
    ] * 6


def test_stopping_starts_no_more_tasks(job: Job) -> None:
    results: list[Result] = []
    for i in range(10, 60):
        save_image(Path("photos", f"{i}.png"), make_image(8, 8))
    for result in run_job(job, stopping=lambda: len(results) > 0):
        results.append(result)
    assert 0 < len(results) < 30
    assert set(statuses(job).values()) == {"done", "skipped"}


def test_a_watched_folder_is_restored_as_it_fills(job: Job) -> None:
    stop: list[bool] = []
    results: Iterator[Result] = run_job(replace(job, run=replace(job.run, watch=True)), stopping=lambda: bool(stop))
    assert {next(results).input.removeprefix("photos/") for _ in ALL} == ALL
    with Path("photos/new.png").open("wb") as growing:
        data = save_image(Path("elsewhere.png"), make_image(12, 12)).read_bytes()
        growing.write(data)
    assert next(results).input == "photos/new.png"
    save_image(Path("photos/0.png"), make_image(16, 16, seed=4))
    again = next(results)
    assert (again.input, again.status) == ("photos/0.png", "done")
    stop.append(True)
    assert list(results) == []


def test_a_watched_folder_does_not_restore_its_own_results(job: Job) -> None:
    start = time.monotonic()
    found: list[Result] = []
    beside = replace(job, output=None, run=replace(job.run, watch=True))
    for result in run_job(beside, stopping=lambda: len(found) == len(ALL) and time.monotonic() - start > 4):
        found.append(result)
    assert len(found) == len(ALL)


def test_small_images_have_the_same_result_in_a_batch_as_alone(job: Job) -> None:
    from PIL import Image

    for i in range(12):
        save_image(Path("photos", f"same{i}.png"), make_image(16, 16, seed=i))
    statuses(replace(job, output="alone"))
    assert set(statuses(replace(job, output="together", model=replace(job.model, batch=8))).values()) == {"done"}
    for i in range(12):
        with Image.open(f"alone/same{i}.png") as a, Image.open(f"together/same{i}.png") as b:
            pairs = zip(a.tobytes(), b.tobytes(), strict=True)
            assert max(abs(x - y) for x, y in pairs) <= 1  # the last bit of a float may differ between batches
