"""`restore models sources`: the real command and the real hub client, against a hub with every known fault."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer
from sandbox import Sandbox, hub_source

from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.source_checks import CONNECTIONS

PAYLOAD = b"PK a checkpoint" * 100


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with HubServer() as hub:
        yield Sandbox(tmp_path, hub, PAYLOAD)


def test_each_source_is_one_line(sandbox: Sandbox) -> None:
    other = PAYLOAD[::-1]
    sandbox.add_entry(
        "hubs", sandbox.add_to_hub("a/good"), sandbox.add_to_hub("a/data", repo_type="dataset"), hub_source("a/data")
    )
    sandbox.add_entry(
        "urls",
        sandbox.add_url("good.pth"),
        sandbox.add_url("shy.pth", "no-head"),
        sandbox.add_url("moved.pth", "moved"),
    )
    sandbox.add_entry(
        "bad",
        sandbox.add_url("page.pth", "page"),
        sandbox.add_to_hub("a/busy", "limited"),
        sandbox.add_to_hub("a/page", "page"),
    )
    sandbox.add_entry(
        "wrong", sandbox.add_to_hub("a/other", payload=other), sandbox.add_url("long.pth", payload=other * 2)
    )
    sandbox.add_entry("new", sandbox.add_to_hub("a/new"), sha256=None, size=None)
    ran = sandbox.run_command("models", "sources", "hubs", "urls", "bad", "wrong", "new")
    found = f"revision {COMMIT[:12]}"
    sound = f"reachable, size as expected, sha256 as expected, {found}"
    plain = "reachable, size as expected, sha256 not stated"
    theirs = f"{hash_of(other)[:12]}…, expected {sandbox.sha256[:12]}…"
    unknown = f"size 1,500 bytes (none in the catalogue), sha256 {sandbox.sha256[:12]}… (none in the catalogue)"
    assert ran.stdout.splitlines() == [
        f"hubs  hub a/good  {sound}",
        f"hubs  hub datasets/a/data  {sound}",
        "hubs  hub a/data  HTTP 401, access refused or no such model (HF_TOKEN?)",
        f"urls  {sandbox.store}  {plain}",
        f"urls  {sandbox.store}  {plain}",
        f"urls  {sandbox.store}  moved to http://{sandbox.store}/plain/renamed-moved.pth",
        f"bad  {sandbox.store}  sent a web page, not the file",
        "bad  hub a/busy  HTTP 429, too many requests, try again in 3600 s",
        "bad  hub a/page  sent a web page, not the metadata of a file",
        f"wrong  hub a/other  reachable, size as expected, sha256 {theirs}, {found}",
        f"wrong  {sandbox.store}  reachable, size 3,000 bytes, expected 1,500 bytes, sha256 not stated",
        f"new  hub a/new  reachable, {unknown}, {found}",
    ]
    assert ran.returncode == 4
    assert ran.stderr.splitlines() == [
        "5 entries, 12 sources, 5 usable, 5 unreachable",
        "restore: no source answers with the file of bad, wrong (try: restore models sources bad wrong, later)",
    ]
    assert [request.headers.get("range") for request in sandbox.hub.find_requests("GET", ".pth")] == ["bytes=0-0"]
    assert not sandbox.cache.exists()


def hash_of(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def test_json_has_an_object_for_each_source_and_a_summary(sandbox: Sandbox) -> None:
    sandbox.add_entry("one", sandbox.add_to_hub("a/one"), sandbox.add_url("one.pth", "missing"))
    ran = sandbox.run_command("models", "sources", "one", "lite-denoise", "one", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    hub, url, bundled, last = map(json.loads, ran.stdout.splitlines())
    common = {"name": "one", "size_as_expected": True, "sha256_as_expected": True, "error": None}
    sent = {"size": len(PAYLOAD), "sha256": sandbox.sha256, "revision": COMMIT, "reachable": True, "usable": True}
    assert hub == {"source": "hub a/one", "address": None, "file": "sub/file.pth"} | common | sent
    assert (url["address"], url["error"]) == (f"http://{sandbox.store}/plain/one.pth", "HTTP 404, not found")
    assert not url["usable"]
    assert (bundled["source"], bundled["usable"], bundled["sha256_as_expected"]) == ("bundled", True, True)
    counts = {"entries": 2, "sources": 3, "usable": 2, "unreachable": 1}
    assert last == {"summary": counts | {"without": [], "exit_code": 0}}


def test_without_a_name_every_source_of_the_catalogue_is_checked(sandbox: Sandbox) -> None:
    closed = "http://127.0.0.1:9"
    ran = sandbox.run_command(
        "models",
        "sources",
        "--json",
        RESTORE_WEIGHTS_TOML="",
        HF_ENDPOINT=closed,
        https_proxy=closed,
        http_proxy=closed,
    )
    *found, last = map(json.loads, ran.stdout.splitlines())
    entries = read_catalogue().entries
    asked = [(one["name"], one["source"]) for one in found]
    assert asked == [(entry.name, str(source)) for entry in entries for source in entry.sources]
    assert last["summary"]["without"] == [entry.name for entry in entries if not entry.bundled]
    assert (ran.returncode, last["summary"]["exit_code"]) == (4, 4)
    assert {one["error"] for one in found} == {None, "no connection"}


def test_a_limited_number_of_sources_is_checked_at_the_same_time(sandbox: Sandbox) -> None:
    sandbox.add_entry("many", *(sandbox.add_url(f"{i}.pth", "held") for i in range(2 * CONNECTIONS)))
    sandbox.add_entry("other", sandbox.add_url("other.pth"))
    with sandbox.start_command("models", "sources", "many", HF_HUB_ETAG_TIMEOUT="250") as command:
        try:
            for _ in range(CONNECTIONS):
                assert sandbox.hub.held.acquire(timeout=100)
            # another whole command takes longer than any further request would
            assert sandbox.run_command("models", "sources", "other").returncode == 0
            assert not sandbox.hub.held.acquire(blocking=False)
        finally:
            sandbox.hub.released.set()
        assert command.communicate()[0].count("reachable") == 2 * CONNECTIONS
    assert command.returncode == 0


def test_a_source_that_never_answers_times_out(sandbox: Sandbox) -> None:
    sandbox.add_entry(
        "one",
        sandbox.add_url("one.pth", "no-answer"),
        sandbox.add_to_hub("a/mute", "no-answer"),
        sandbox.add_to_hub("a/one"),
    )
    ran = sandbox.run_command("models", "sources", "one", HF_HUB_ETAG_TIMEOUT="1")
    assert ran.returncode == 0
    assert ran.stdout.count("timed out") == 2


def test_offline_no_source_is_checked(sandbox: Sandbox) -> None:
    sandbox.add_entry("one", sandbox.add_to_hub("a/one"))
    ran = sandbox.run_command("models", "sources", "one", HF_HUB_OFFLINE="1")
    assert ran.returncode == 4
    assert ran.stderr.startswith("restore: HF_HUB_OFFLINE is set: sources cannot be checked")
    assert sandbox.hub.count() == 0


def test_an_unknown_name_is_a_usage_error(sandbox: Sandbox) -> None:
    ran = sandbox.run_command("models", "sources", "emtx4", RESTORE_WEIGHTS_TOML="")
    assert ran.returncode == 2
    assert "no checkpoint is named 'emtx4' (did you mean emt-x4?)" in ran.stderr
