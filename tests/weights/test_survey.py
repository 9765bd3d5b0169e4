"""`restore models sources`: the real command and the real hub client against a hub that answers in every known way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, hub_source
from hub_server import COMMIT, HubServer

from restore_cli.weights.catalogue import read_catalogue
from restore_cli.weights.survey import CONNECTIONS

PAYLOAD = b"PK a checkpoint" * 100


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with HubServer() as hub:
        yield Desk(tmp_path, hub, PAYLOAD)


def test_each_source_is_one_line(desk: Desk) -> None:
    other = PAYLOAD[::-1]
    desk.entry("hubs", desk.on_hub("a/good"), desk.on_hub("a/data", repo_type="dataset"), hub_source("a/data"))
    desk.entry("urls", desk.at_url("good.pth"), desk.at_url("shy.pth", "no-head"), desk.at_url("moved.pth", "moved"))
    desk.entry("bad", desk.at_url("page.pth", "page"), desk.on_hub("a/busy", "limited"), desk.on_hub("a/page", "page"))
    desk.entry("wrong", desk.on_hub("a/other", payload=other), desk.at_url("long.pth", payload=other * 2))
    desk.entry("new", desk.on_hub("a/new"), sha256=None, size=None)
    ran = desk.restore("models", "sources", "hubs", "urls", "bad", "wrong", "new")
    found = f"revision {COMMIT[:12]}"
    sound = f"reachable, size as expected, sha256 as expected, {found}"
    plain = "reachable, size as expected, sha256 not stated"
    theirs = f"{hash_of(other)[:12]}…, expected {desk.sha256[:12]}…"
    unknown = f"size 1,500 bytes (none in the catalogue), sha256 {desk.sha256[:12]}… (none in the catalogue)"
    assert ran.stdout.splitlines() == [
        f"hubs  hub a/good  {sound}",
        f"hubs  hub datasets/a/data  {sound}",
        "hubs  hub a/data  HTTP 401, access refused or no such model (HF_TOKEN?)",
        f"urls  {desk.store}  {plain}",
        f"urls  {desk.store}  {plain}",
        f"urls  {desk.store}  moved to http://{desk.store}/plain/renamed-moved.pth",
        f"bad  {desk.store}  sent a web page, not the file",
        "bad  hub a/busy  HTTP 429, too many requests, try again in 3600 s",
        "bad  hub a/page  sent a web page, not the metadata of a file",
        f"wrong  hub a/other  reachable, size as expected, sha256 {theirs}, {found}",
        f"wrong  {desk.store}  reachable, size 3,000 bytes, expected 1,500 bytes, sha256 not stated",
        f"new  hub a/new  reachable, {unknown}, {found}",
    ]
    assert ran.returncode == 4
    assert ran.stderr.splitlines() == [
        "5 entries, 12 sources, 5 usable, 5 unreachable",
        "restore: no source answers with the file of bad, wrong (try: restore models sources bad wrong, later)",
    ]
    assert [seen.headers.get("range") for seen in desk.hub.seen("GET", ".pth")] == ["bytes=0-0"]
    assert not desk.cache.exists()


def hash_of(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def test_as_json_it_is_an_object_for_each_source_and_a_summary(desk: Desk) -> None:
    desk.entry("one", desk.on_hub("a/one"), desk.at_url("one.pth", "missing"))
    ran = desk.restore("models", "sources", "one", "lite-denoise", "one", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    hub, url, bundled, last = map(json.loads, ran.stdout.splitlines())
    common = {"name": "one", "size_as_expected": True, "sha256_as_expected": True, "error": None}
    sent = {"size": len(PAYLOAD), "sha256": desk.sha256, "revision": COMMIT, "reachable": True, "usable": True}
    assert hub == {"source": "hub a/one", "address": None, "file": "sub/file.pth"} | common | sent
    assert (url["address"], url["error"]) == (f"http://{desk.store}/plain/one.pth", "HTTP 404, not found")
    assert not url["usable"]
    assert (bundled["source"], bundled["usable"], bundled["sha256_as_expected"]) == ("bundled", True, True)
    counts = {"entries": 2, "sources": 3, "usable": 2, "unreachable": 1}
    assert last == {"summary": counts | {"without": [], "exit_code": 0}}


def test_without_a_name_every_source_of_the_catalogue_is_asked(desk: Desk) -> None:
    closed = "http://127.0.0.1:9"
    ran = desk.restore(
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


def test_sources_are_asked_at_the_same_time_and_not_all_at_once(desk: Desk) -> None:
    desk.entry("many", *(desk.at_url(f"{i}.pth", "held") for i in range(2 * CONNECTIONS)))
    desk.entry("other", desk.at_url("other.pth"))
    with desk.popen("models", "sources", "many", HF_HUB_ETAG_TIMEOUT="250") as command:
        try:
            for _ in range(CONNECTIONS):
                assert desk.hub.held.acquire(timeout=100)
            # the time that a whole other command takes is enough for any further request
            assert desk.restore("models", "sources", "other").returncode == 0
            assert not desk.hub.held.acquire(blocking=False)
        finally:
            desk.hub.released.set()
        assert command.communicate()[0].count("reachable") == 2 * CONNECTIONS
    assert command.returncode == 0


def test_a_source_that_never_answers_is_given_up(desk: Desk) -> None:
    desk.entry("one", desk.at_url("one.pth", "mute"), desk.on_hub("a/mute", "mute"), desk.on_hub("a/one"))
    ran = desk.restore("models", "sources", "one", HF_HUB_ETAG_TIMEOUT="1")
    assert ran.returncode == 0
    assert ran.stdout.count("timed out") == 2


def test_offline_no_source_is_asked(desk: Desk) -> None:
    desk.entry("one", desk.on_hub("a/one"))
    ran = desk.restore("models", "sources", "one", HF_HUB_OFFLINE="1")
    assert ran.returncode == 4
    assert ran.stderr.startswith("restore: HF_HUB_OFFLINE is set: no source can be asked")
    assert desk.hub.count() == 0


def test_an_unknown_name_is_a_usage_error(desk: Desk) -> None:
    ran = desk.restore("models", "sources", "emtx4", RESTORE_WEIGHTS_TOML="")
    assert ran.returncode == 2
    assert "no checkpoint is named 'emtx4' (did you mean emt-x4?)" in ran.stderr
