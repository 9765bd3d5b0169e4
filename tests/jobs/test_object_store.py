"""Inputs and outputs on a real S3 server, through the real client, over connections that fail."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path
from threading import Event

import pytest
from command import CommandResult, Run
from images import make_image
from PIL import Image
from s3_proxy import Fault, Request, answer, cut
from s3_store import Store

from restore_cli.jobs.paths import IgnoredFiles
from restore_cli.jobs.storage import list_remote

KEY_OF_RESULT = "/out/"


def draw(seed: int, side: int = 16) -> bytes:
    """Return a BMP file. All of one side have the same size in bytes."""
    file = BytesIO()
    Image.fromarray(make_image(side, side, seed=seed)).save(file, "BMP")
    return file.getvalue()


def is_upload(request: Request) -> bool:
    """Whether a request uploads a result."""
    return request.method == "PUT" and KEY_OF_RESULT in request.path and ".restore-manifest" not in request.path


class Batch:
    """Images in a bucket, and the command that restores them."""

    def __init__(self, store: Store, restore: Run, weights: Path, folder: Path, count: int) -> None:
        self.store, self.restore, self.words = store, restore, ("--weights", weights)
        self.local = folder / "in"
        self.local.mkdir()
        for number in range(count):
            self.put(f"{number:02d}.bmp", draw(number))

    def put(self, name: str, content: bytes) -> None:
        """Write an image into the bucket and into a local folder."""
        self.store.put(f"in/{name}", content)
        (self.local / name).write_bytes(content)

    def run(self, *words: object) -> CommandResult:
        """Restore the images of the bucket."""
        self.store.proxy.requests.clear()
        return self.restore("denoise", f"{self.store.url}/in", "-o", f"{self.store.url}/out", *self.words, *words)

    def expected(self, *words: object) -> dict[str, bytes]:
        """Return the results that the same images on the disk have."""
        assert self.restore("denoise", "in", "-o", "expected", "--overwrite", *self.words, *words).code == 0
        return {path.name: path.read_bytes() for path in Path("expected").glob("*.bmp")}


@pytest.fixture
def batch(store: Store, restore: Run, x1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Put four images into a bucket. Waits between requests are short."""
    monkeypatch.setattr("restore_cli.jobs.storage_errors.THROTTLE_DELAYS", (0.01,))
    return Batch(store, restore, x1, tmp_path, 4)


def done(result: CommandResult) -> list[str]:
    """Return the names of the inputs that a run has restored."""
    return sorted(line.partition(" ")[0].rpartition("/")[2] for line in result.out.splitlines())


def test_resume_knows_changed_inputs_options_and_results(batch: Batch) -> None:
    store, names = batch.store, [f"{number:02d}.bmp" for number in range(4)]
    assert done(batch.run()) == names
    assert store.read("out") == batch.expected()
    assert batch.run().code == 3
    batch.put("01.bmp", draw(101))  # of the same size, perhaps within the same second
    assert done(batch.run()) == ["01.bmp"]
    assert store.read("out") == batch.expected()
    assert done(batch.run("--strength", "0.5")) == names
    assert store.read("out") == batch.expected("--strength", "0.5")
    store.put("out/02.bmp", draw(7))
    assert done(batch.run()) == ["00.bmp", "01.bmp", "03.bmp"]
    assert store.read("out")["02.bmp"] == draw(7)
    runs = store.manifests("out")
    assert [name.partition("-")[0] for name in runs] == ["000001", "000002", "000003", "000004"]
    assert all(name.count(".") == 1 for name in runs), "each run leaves one object, without its parts"


def test_a_result_costs_three_requests(batch: Batch) -> None:
    batch.run()
    asked = Counter(request.method for request in batch.store.proxy.requests if ".bmp" in request.path)
    assert asked == {"GET": 4, "PUT": 4, "HEAD": 4}


def test_ten_thousand_keys_are_listed_in_ten_pages(store: Store) -> None:
    store.fill("in", 10_000)
    found = list_remote(f"{store.url}/in", {".png"}, True, IgnoredFiles())
    assert [item.relative for item in found] == [f"{number:05d}.png" for number in range(10_000)]
    assert [request.is_list for request in store.proxy.requests] == [True] * 10


def test_finished_keys_cost_no_request_of_their_own(store: Store, restore: Run, x1: Path) -> None:
    for folder in ("in", "out"):
        store.fill(folder, 1500)
    ran = restore("denoise", f"{store.url}/in", "-o", f"{store.url}/out", "--weights", x1, "--quiet")
    assert ran.code == 3, ran.err
    pages = Counter(re.findall("prefix=([^&]*)", " ".join(request.path for request in store.proxy.requests)))
    assert pages == {"in/": 2, "out/": 2, "out/.restore-manifest/": 2}
    assert len(store.proxy.requests) == 6 + 1


def test_throttling_is_waited_out(batch: Batch) -> None:
    seen: set[tuple[str, str]] = set()

    def refuse_once(request: Request) -> Fault | None:
        key = request.method, request.path
        refused = key not in seen
        seen.add(key)
        return answer(503, "SlowDown") if refused else None

    batch.store.proxy.fault = refuse_once
    ran = batch.run()
    assert ran.code == 0, ran.err
    assert {method for method, _ in seen} >= {"GET", "PUT", "HEAD"}
    batch.store.proxy.reset()
    assert batch.store.read("out") == batch.expected()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_throttling_without_end_is_one_line(batch: Batch, method: str) -> None:
    refuse = answer(503, "SlowDown")
    batch.store.proxy.fault = lambda request: refuse if request.method == method else None
    ran = batch.run()
    assert ran.code == 6, ran.err
    (line,) = [line for line in ran.err.splitlines() if "restore:" in line]
    assert "the server still asks for fewer requests after many attempts (SlowDown) (try: the same command" in line
    assert "Traceback" not in ran.err
    assert batch.store.read("out") == {}
    batch.store.proxy.reset()
    assert len(done(batch.run())) == 4


def test_uploads_that_are_cut_are_tried_again(batch: Batch) -> None:
    batch.store.proxy.fail_first(5, cut, lambda request: request.method == "PUT")
    ran = batch.run()
    assert ran.code == 0, ran.err
    assert batch.store.read("out") == batch.expected()


def test_an_upload_that_is_always_cut_leaves_nothing(batch: Batch) -> None:
    store = batch.store
    store.proxy.fault = lambda request: cut if is_upload(request) and "02.bmp" in request.path else None
    ran = batch.run()
    assert ran.code == 1, ran.err
    assert f"{store.url}/out/02.bmp: cannot be written" in ran.err
    assert "Traceback" not in ran.err
    expected = batch.expected()
    assert store.read("out") == {name: expected[name] for name in expected if name != "02.bmp"}
    store.proxy.reset()
    assert done(batch.run()) == ["02.bmp"]
    assert store.read("out") == expected


@pytest.mark.parametrize(("status", "code"), [(400, "ExpiredToken"), (403, "InvalidAccessKeyId")])
def test_refused_credentials_are_one_line(batch: Batch, status: int, code: str) -> None:
    refuse = answer(status, code)
    batch.store.proxy.fault = lambda request: refuse
    for words in ((), ("--overwrite",)):
        ran = batch.run(*words)
        assert ran.code == 6
        (line,) = ran.err.splitlines()[:1]
        assert f"the credentials have expired or are not valid ({code}) (try: renew the credentials" in line
        assert "Traceback" not in ran.err
        assert len(batch.store.proxy.requests) == 1, "no other attempt can succeed"


def test_credentials_that_expire_during_a_run(batch: Batch) -> None:
    store, refuse = batch.store, answer(400, "ExpiredToken")
    uploads: list[str] = []

    def expire(request: Request) -> Fault | None:
        if is_upload(request):
            uploads.append(request.path)
        return refuse if len(uploads) > 2 else None

    for number in range(4, 12):
        batch.put(f"{number:02d}.bmp", draw(number))
    store.proxy.fault = expire
    ran = batch.run()
    assert ran.code == 6
    assert ran.err.count("the credentials have expired") == 1, ran.err
    assert "0 failed" in ran.err
    store.proxy.reset()
    assert len(store.read("out")) == 2
    assert batch.run().code == 0
    assert store.read("out") == batch.expected()


def test_a_killed_run_continues(batch: Batch) -> None:
    store, count = batch.store, 44
    for number in range(4, count):
        batch.put(f"{number:02d}.bmp", draw(number))
    words = ["denoise", f"{store.url}/in", "-o", f"{store.url}/out", *map(str, batch.words), "--quiet"]
    uploads, reached = itertools.count(1), Event()

    def watch(request: Request) -> Fault | None:
        if is_upload(request) and next(uploads) == 37:
            reached.set()
        return None

    store.proxy.fault = watch
    command, environment = (
        [sys.executable, "-m", "restore_cli", *words],
        {**os.environ, "TMPDIR": str(batch.local.parent)},
    )
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        reached.wait(60)
        process.kill()
    store.proxy.reset()
    expected = batch.expected()
    there = store.read("out")
    assert 32 < len(there) < count
    assert there == {name: expected[name] for name in there}, "each is whole"
    again = done(batch.run())
    assert set(expected) - set(there) <= set(again)
    assert len(again) < count, "what a part has recorded is not restored again"
    assert store.read("out") == expected
    assert batch.run().code == 3


def test_shards_write_manifests_of_their_own(batch: Batch) -> None:
    store = batch.store
    for number in range(4, 12):
        batch.put(f"{number:02d}.bmp", draw(number))
    parts = [done(batch.run("--shard", f"{part}/2")) for part in (1, 2)]
    assert sorted(parts[0] + parts[1]) == sorted(store.read("in"))
    assert [name.partition(".")[2] for name in store.manifests("out")] == ["1-of-2.jsonl", "2-of-2.jsonl"]
    assert batch.run().code == 3


def test_odd_keys_and_outputs_below_the_inputs(batch: Batch) -> None:
    store = batch.store
    odd = ["sp ace#?%41+&é[1].bmp", "a//b.bmp", "c/d.bmp"]
    for name in odd:
        store.put(f"in/{name}", draw(5))
    for marker in ("in/", "in/c/", "in/empty/"):
        store.put(marker, b"")
    words = ("denoise", f"{store.url}/in", "-o", f"{store.url}/in/out/", *batch.words)
    ran = batch.restore(*words)
    assert ran.code == 0, ran.err
    assert set(store.read("in/out")) == {*odd, *(f"{number:02d}.bmp" for number in range(4))}
    again = batch.restore(*words)
    assert again.code == 3
    assert again.err.splitlines()[0].startswith("7 images: 0 done, 7 skipped, 0 failed; 0.00 MP")


def test_listed_inputs_are_compared_too(batch: Batch) -> None:
    Path("list.txt").write_text("".join(f"{batch.store.url}/in/{number:02d}.bmp\n" for number in range(4)))
    words = ("denoise", "--files-from", "list.txt", "-o", f"{batch.store.url}/out", *batch.words)
    assert len(done(batch.restore(*words))) == 4
    batch.put("03.bmp", draw(103))
    assert done(batch.restore(*words)) == ["03.bmp"]


def test_a_dry_run_downloads_no_image(batch: Batch) -> None:
    ran = batch.run("--dry-run")
    assert ran.code == 0, ran.err
    assert "would restore 4 images; 0 skipped" in ran.err
    assert "cannot be read" not in ran.err
    assert "time: unknown, because remote images are not read for an estimate" in ran.err
    assert {request.is_list or request.method == "HEAD" for request in batch.store.proxy.requests} == {True}


def test_a_bucket_that_does_not_exist_is_not_made(batch: Batch) -> None:
    ran = batch.restore("denoise", "in", "-o", "s3://no-such-bucket/out", *batch.words)
    assert ran.code == 1
    assert "The specified bucket does not exist" in ran.err
    assert not batch.store.system.exists("no-such-bucket")
