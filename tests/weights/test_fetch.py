"""The real hub client, in its own process, against a hub on 127.0.0.1 that misbehaves in every known way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import PAGE, Fault, HubServer
from safetensors.numpy import save
from sandbox import ROOT, Sandbox, hub_source

REAL = ROOT.parent / "shared" / "checkpoints" / "EMT_LSR_x2.pth"
BIG = 8
"""Factor for the payload: the client writes pieces of 10 MiB, and half of the file must be larger than one."""


@pytest.fixture(scope="session")
def payload() -> bytes:
    """The real EMT ×2 checkpoint if it exists, else a small one of noise."""
    if REAL.is_file():
        return REAL.read_bytes()
    noise = np.random.default_rng(0).standard_normal((768, 1024), dtype=np.float32)
    return save({"head.weight": noise})


@pytest.fixture
def sandbox(tmp_path: Path, payload: bytes) -> Iterator[Sandbox]:
    with HubServer() as hub:
        yield Sandbox(tmp_path, hub, payload)


def test_a_hub_file_is_fetched_once_with_progress(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one"))
    first, again, located = sandbox.run_client(f"fetch {name}", f"fetch {name}", f"locate {name}")
    assert sandbox.has_payload(first["path"])
    assert (first["started"], first["seen"], first["finished"]) == ([len(sandbox.payload)], len(sandbox.payload), 1)
    assert again == {"path": first["path"], "started": [], "seen": 0, "finished": 0, "passed": []}
    assert located["path"] == first["path"]
    assert Path(first["path"]).is_relative_to(sandbox.folder / "hf")  # the hub's own cache, shared with other programs
    assert sandbox.hub.count("GET", "a/one") == 1
    assert sandbox.find_leftovers() == []


def test_a_dataset_is_requested_as_a_dataset_and_kept_in_the_hubs_cache(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one", repo_type="dataset"))
    first, located, offline, removed, gone = sandbox.run_client(
        f"fetch {name}", f"locate {name}", f"fetch {name} offline", f"remove {name}", f"locate {name}"
    )
    assert located["path"] == first["path"]
    assert Path(first["path"]).is_relative_to(sandbox.folder / "hf" / "hub" / "datasets--a--one")
    assert offline["path"] == first["path"]
    assert removed["gone"] == [first["path"]]
    assert gone["path"] is None


@pytest.mark.parametrize(("stored", "asked"), [("dataset", "model"), ("model", "dataset")])
@pytest.mark.parametrize(("token", "status"), [("", 401), ("hf_secret", 404)])
def test_a_repository_of_the_other_kind_is_not_found(
    sandbox: Sandbox, stored: str, asked: str, token: str, status: int
) -> None:
    sandbox.add_to_hub("a/one", repo_type=stored)
    wrong = sandbox.add_entry("wrong", hub_source("a/one", asked))
    lucky = sandbox.add_entry("lucky", hub_source("a/one", asked), hub_source("a/one", stored))
    error, good = sandbox.run_client(f"fetch {wrong}", f"fetch {lucky}", **({"HF_TOKEN": token} if token else {}))
    assert error["error"] == "WeightsUnavailable"
    assert f"HTTP {status}" in error["message"]
    assert ("hub datasets/a/one: " if asked == "dataset" else "hub a/one: ") in error["message"]
    assert good["path"] is not None


def test_a_url_file_is_fetched_once_under_the_entrys_own_name(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_url("odd name;#.exe"))
    first, again = sandbox.run_client(f"fetch {name}", f"fetch {name}")
    assert sandbox.has_payload(first["path"])
    assert Path(first["path"]) == sandbox.cache / "one.pth"
    assert (first["started"], first["seen"], first["finished"]) == ([len(sandbox.payload)], len(sandbox.payload), 1)
    assert again["path"] == first["path"]
    assert sandbox.hub.count("GET", "/plain/") == 1
    assert sandbox.find_leftovers() == []


def test_the_token_goes_to_the_hub_and_nowhere_else(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one"))
    other = sandbox.add_entry("two", sandbox.add_url("two.pth"))
    sandbox.run_client(f"fetch {name}", f"fetch {other}", HF_TOKEN="hf_secret")
    hub = [request for request in sandbox.hub.find_requests(part="/resolve/") if not request.path.startswith("/lfs")]
    assert hub
    assert all(request.headers.get("authorization") == "Bearer hf_secret" for request in hub)
    assert all("authorization" not in request.headers for request in sandbox.hub.requests if request not in hub)


WAIT = "HTTP 429, too many requests, try again in 3600 s"
FAILURES: list[tuple[Fault, str, str]] = [
    ("missing", "HTTP 404, not found", "HTTP 404, not found"),
    ("unauthorized", "HTTP 401, access refused or no such model (HF_TOKEN?)", "HTTP 401, access refused"),
    ("forbidden", "HTTP 403, access refused (HF_TOKEN?)", "HTTP 403, access refused"),
    ("limited", WAIT, WAIT),
    ("error", "HTTP 500", "HTTP 500"),
    ("page", "sent a web page, not the metadata of a file", "sent a web page (Quota exceeded), not the file"),
    ("page-as-file", f"offers {len(PAGE)} bytes, not SIZE", f"offers {len(PAGE)} bytes, not SIZE"),
    ("short", "offers HALF bytes, not SIZE", "offers HALF bytes, not SIZE"),
    ("moved-away", "HTTP 401, access refused or no such model (HF_TOKEN?)", "moved to NEW"),
    ("wrong", "wrong sha256", "wrong sha256"),
]


@pytest.mark.parametrize(("fault", "at_hub", "at_url"), FAILURES, ids=lambda value: value if len(value) < 13 else "")
def test_a_source_that_fails_is_named_in_one_line_and_the_next_is_tried(
    sandbox: Sandbox, fault: Fault, at_hub: str, at_url: str
) -> None:
    bad, good = [sandbox.add_to_hub("a/bad", fault), sandbox.add_url("bad.pth", fault)], sandbox.add_to_hub("a/good")
    lucky = sandbox.add_entry("lucky", *bad, good)
    unlucky = sandbox.add_entry("unlucky", *bad, sandbox.add_to_hub("a/gone", "missing"))
    fetched, error = sandbox.run_client(f"fetch {lucky}", f"fetch {unlucky}")
    assert sandbox.has_payload(fetched["path"])
    lines = [f"hub a/bad: {sandbox.fill_in(at_hub)}", f"{sandbox.store}: {sandbox.fill_in(at_url)}"]
    assert fetched["passed"] == [f"lucky: {line}" for line in lines]
    assert error["passed"][:2] == [f"unlucky: {line}" for line in lines]
    assert (error["error"], error["code"]) == ("WeightsUnavailable", 4)
    listed = "; ".join([*lines, "hub a/gone: HTTP 404, not found"])
    assert error["message"].startswith(f"unlucky cannot be fetched: {listed}")
    assert error["message"].endswith(" (try: restore models pull unlucky, later)")
    assert "\n" not in error["message"]
    assert sandbox.find_leftovers() == []


def test_a_source_that_limits_requests_gets_one(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one", "limited"), sandbox.add_url("one.pth", "limited"))
    sandbox.run_client(f"fetch {name}")
    assert [request.method for request in sandbox.hub.find_requests(part=".pth")] == ["HEAD", "GET"]


def test_a_moved_file_is_requested_at_its_new_address_after_all_other_sources(sandbox: Sandbox) -> None:
    moved = sandbox.add_url("moved.pth", "moved")
    other = sandbox.add_entry("other", moved, sandbox.add_url("other.pth"))
    alone = sandbox.add_entry("alone", moved, sandbox.add_to_hub("a/gone", "missing"))
    first = sandbox.run_client(f"fetch {other}")[0]
    assert sandbox.has_payload(first["path"])
    assert sandbox.hub.count(part="renamed-") == 0
    last = sandbox.run_client(f"fetch {alone}")[0]
    assert sandbox.has_payload(last["path"])
    assert last["passed"][0] == f"alone: {sandbox.store}: moved to http://{sandbox.store}/plain/renamed-moved.pth"
    assert sandbox.hub.count(part="renamed-") == 1


def test_without_a_sha256_a_new_address_is_not_trusted(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_url("one.pth", "moved"), sha256=None, size=None)
    (error,) = sandbox.run_client(f"fetch {name}")
    assert error["error"] == "WeightsUnavailable"
    assert f": moved to {sandbox.hub.add_url('renamed-one.pth', b'')} (try" in error["message"]
    assert sandbox.hub.count(part="renamed-") == 0


def test_a_renamed_repository_of_a_hub_is_followed_because_its_commit_is_pinned(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one", "moved"))
    fetched, located = sandbox.run_client(f"fetch {name}", f"locate {name}")
    assert sandbox.has_payload(fetched["path"])
    assert located["path"] == fetched["path"]


@pytest.mark.parametrize("where", ["hub", "url"])
def test_a_web_page_is_refused_even_without_a_known_sha256_and_size(sandbox: Sandbox, where: str) -> None:
    source = sandbox.add_to_hub("a/one", payload=PAGE) if where == "hub" else sandbox.add_url("one.pth", "page-as-file")
    name = sandbox.add_entry("one", source, sha256=None, size=None)
    error, located = sandbox.run_client(f"fetch {name}", f"locate {name}")
    assert error["error"] == "WeightsUnavailable"
    assert "sent a web page (Quota exceeded), not the file" in error["message"]
    assert located["path"] is None
    assert not any(PAGE in path.read_bytes() for path in sandbox.folder.rglob("*") if path.is_file())


def test_a_source_that_always_breaks_off_is_skipped(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_url("one.pth", "broken"), sandbox.add_to_hub("a/one"))
    (fetched,) = sandbox.run_client(f"fetch {name}")
    assert sandbox.has_payload(fetched["path"])
    size = len(sandbox.payload)
    assert fetched["passed"] == [f"one: {sandbox.store}: the connection broke after {size // 2} of {size} bytes"]
    assert sandbox.find_leftovers() == []


def test_a_hub_that_states_another_sha256_sends_nothing(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one", payload=sandbox.payload[::-1]))
    (error,) = sandbox.run_client(f"fetch {name}")
    assert error["error"] == "ChecksumMismatch"
    assert "sha256 of the file of hub a/one is" in error["message"]
    assert sandbox.hub.count("GET", ".pth") == 0


def test_wrong_bytes_at_every_source_are_a_checksum_mismatch_and_are_not_kept(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one", "wrong"), sandbox.add_url("one.pth", "wrong"))
    error, located = sandbox.run_client(f"fetch {name}", f"locate {name}")
    assert (error["error"], error["code"]) == ("ChecksumMismatch", 4)
    assert error["message"].count(f"the catalogue says {sandbox.sha256[:12]}…") == 2
    assert "the file from hub a/one is" in error["message"]
    assert f"the file from {sandbox.store} is" in error["message"]
    assert located["path"] is None
    wrong = sandbox.payload[::-1]
    assert not any(path.read_bytes() == wrong for path in sandbox.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("fault", ["cut", "slow", "no-range"])
def test_a_bad_connection_only_costs_time(sandbox: Sandbox, fault: Fault) -> None:
    one = sandbox.add_entry("one", sandbox.add_to_hub("a/one", fault))
    two = sandbox.add_entry("two", sandbox.add_url("two.pth", fault))
    for fetched in sandbox.run_client(f"fetch {one}", f"fetch {two}"):
        assert sandbox.has_payload(fetched["path"])
        assert fetched["seen"] == len(sandbox.payload)
    assert sandbox.find_leftovers() == []


def test_a_killed_download_from_a_url_is_resumed(sandbox: Sandbox) -> None:
    sandbox.payload *= BIG
    name = sandbox.add_entry("one", sandbox.add_url("one.pth", "hang"))
    _kill_halfway(sandbox, name)
    (part,) = sandbox.cache.glob(".one.*.part")
    assert 0 < part.stat().st_size < len(sandbox.payload)
    before, after = sandbox.run_client(f"locate {name}", f"fetch {name}")
    assert before["path"] is None
    assert sandbox.has_payload(after["path"])
    ranges = [request.headers.get("range") for request in sandbox.hub.find_requests("GET", ".pth")]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert sandbox.find_leftovers() == []


def test_a_killed_download_from_a_hub_is_never_used(sandbox: Sandbox) -> None:
    sandbox.payload *= BIG
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one", "hang"))
    _kill_halfway(sandbox, name)
    before, after = sandbox.run_client(f"locate {name}", f"fetch {name}")
    assert before["path"] is None
    assert sandbox.has_payload(after["path"])


@pytest.mark.parametrize("junk", [b"<html>sign in</html>", b"\0" * 10**8])
def test_a_partial_file_of_another_download_is_discarded(sandbox: Sandbox, junk: bytes) -> None:
    sandbox.payload *= BIG
    name = sandbox.add_entry("one", sandbox.add_url("one.pth", "hang"))
    _kill_halfway(sandbox, name)
    (part,) = sandbox.cache.glob(".one.*.part")
    part.write_bytes(junk)
    (fetched,) = sandbox.run_client(f"fetch {name}")
    assert sandbox.has_payload(fetched["path"])
    assert sandbox.find_leftovers() == []


@pytest.mark.parametrize("where", ["hub", "url"])
def test_two_processes_that_want_the_same_file_fetch_it_once(sandbox: Sandbox, where: str) -> None:
    name = sandbox.add_entry(
        "one", sandbox.add_to_hub("a/one", "slow") if where == "hub" else sandbox.add_url("one.pth", "slow")
    )
    clients = [sandbox.start_client(f"fetch {name}") for _ in range(2)]
    for client in clients:
        out, err = client.communicate()
        assert (client.returncode, err) == (0, "")
        assert '"path"' in out
    assert sandbox.hub.count("GET", ".pth") == 1
    assert sandbox.run_client(f"verify {name}")[0]["path"] is not None


@pytest.mark.parametrize("where", ["hub", "url"])
def test_a_damaged_file_is_noticed_reported_and_replaced(sandbox: Sandbox, where: str) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one") if where == "hub" else sandbox.add_url("one.pth"))
    path = Path(sandbox.run_client(f"fetch {name}")[0]["path"])
    path.write_bytes(sandbox.payload[:-1] + b"!")
    located, verified, offline, fetched, sound = sandbox.run_client(
        f"locate {name}", f"verify {name}", f"fetch {name} offline", f"fetch {name}", f"verify {name}"
    )
    assert located["path"] is None
    assert verified["error"] == offline["error"] == "ChecksumMismatch"
    assert f"restore models pull {name} --force" in verified["message"]
    assert sandbox.has_payload(fetched["path"])
    assert sound["path"] == fetched["path"]


def test_without_a_published_sha256_the_first_one_seen_is_enforced(sandbox: Sandbox) -> None:
    source = sandbox.add_url("one.pth")
    name = sandbox.add_entry("one", source, sha256=None, size=None)
    first = sandbox.run_client(f"fetch {name}")[0]
    sandbox.add_url("one.pth", payload=b"another file")
    forced, kept = sandbox.run_client(f"fetch {name} force", f"locate {name}")
    assert forced["error"] == "ChecksumMismatch"
    assert "at the first download" in forced["message"]
    assert f"restore models rm {name}" in forced["message"]
    assert kept["path"] == first["path"]
    assert sandbox.has_payload(kept["path"])
    removed, other = sandbox.run_client(f"remove {name}", f"fetch {name}")
    assert removed["gone"] == [first["path"]]
    assert Path(other["path"]).read_bytes() == b"another file"


def test_offline_uses_local_files_and_sends_no_request(sandbox: Sandbox) -> None:
    here = sandbox.add_entry("here", sandbox.add_to_hub("a/here"))
    away = sandbox.add_entry("away", sandbox.add_to_hub("a/away"), sandbox.add_url("away.pth"))
    sandbox.run_client(f"fetch {here}")
    asked = sandbox.hub.count()
    found, missing, both = sandbox.run_client(
        f"fetch {here} offline", f"fetch {away} offline", f"fetch {away} offline force"
    )
    by_environment = sandbox.run_client(f"fetch {here}", f"fetch {away}", HF_HUB_OFFLINE="1")
    assert found == by_environment[0]
    assert sandbox.has_payload(found["path"])
    assert missing["error"] == by_environment[1]["error"] == "WeightsUnavailable"
    assert both["error"] == "UsageError"
    assert "HF_HUB_OFFLINE is set" in by_environment[1]["message"]
    assert sandbox.hub.count() == asked


def test_without_a_network_the_error_says_so(sandbox: Sandbox) -> None:
    # nothing answers on port 9 (discard)
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one"), '{ url = "http://127.0.0.1:9/one.pth" }')
    (error,) = sandbox.run_client(f"fetch {name}", HF_ENDPOINT="http://127.0.0.1:9")
    assert error["error"] == "WeightsUnavailable"
    assert error["message"].count("no connection") == 2


@pytest.mark.parametrize("where", ["hub", "url"])
def test_a_file_of_another_size_is_refused_before_it_is_stored(sandbox: Sandbox, where: str) -> None:
    more = sandbox.payload + b"\0" * 1000
    source = sandbox.add_to_hub("a/one", payload=more) if where == "hub" else sandbox.add_url("one.pth", payload=more)
    (error,) = sandbox.run_client(f"fetch {sandbox.add_entry('one', source)}")
    assert error["error"] == "WeightsUnavailable"
    assert f"offers {len(more)} bytes, not {len(sandbox.payload)}" in error["message"]
    assert sandbox.hub.count("GET", "/lfs/") == 0
    assert sandbox.find_leftovers() == []


def test_an_endless_stream_is_aborted(sandbox: Sandbox) -> None:
    (error,) = sandbox.run_client(f"fetch {sandbox.add_entry('one', sandbox.add_url('one.pth', 'endless'))}")
    assert error["error"] == "WeightsUnavailable"
    assert f"sent more than {len(sandbox.payload)} bytes" in error["message"]
    assert sandbox.find_leftovers() == []


def test_removing_a_file_keeps_others(sandbox: Sandbox) -> None:
    one, two = (
        sandbox.add_entry("one", sandbox.add_to_hub("a/one")),
        sandbox.add_entry("two", sandbox.add_url("two.pth")),
    )
    first, second = sandbox.run_client(f"fetch {one}", f"fetch {two}")
    removed, located, neighbour, nothing = sandbox.run_client(
        f"remove {one}", f"locate {one}", f"locate {two}", f"remove {one}"
    )
    assert removed["gone"] == [first["path"]]
    assert located["path"] is None
    assert neighbour["path"] == second["path"]
    assert nothing["gone"] == []
    blobs = sandbox.folder.glob("hf/hub/models--*/blobs/*")
    assert not any(path.is_file() for path in blobs)


def test_a_copy_that_another_program_downloaded_is_found(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_to_hub("a/one"))
    path = sandbox.run_client(f"fetch {name}")[0]["path"]
    for mine in sandbox.cache.iterdir():
        mine.unlink()
    assert sandbox.run_client(f"locate {name}", f"fetch {name} offline")[0]["path"] == path
    assert sandbox.hub.count("GET", ".pth") == 1


def test_the_first_available_entry_is_used_but_a_wrong_file_is_an_error(sandbox: Sandbox) -> None:
    gone = sandbox.add_entry("gone", sandbox.add_to_hub("a/gone", "missing"))
    good = sandbox.add_entry("good", sandbox.add_to_hub("a/good"))
    wrong = sandbox.add_entry("wrong", sandbox.add_url("wrong.pth", "wrong"))
    taken, refused, none = sandbox.run_client(f"first {gone} {good}", f"first {wrong} {good}", f"first {gone}")
    assert taken["name"] == good
    assert refused["error"] == "ChecksumMismatch"
    assert none["error"] == "WeightsUnavailable"


@pytest.mark.parametrize("where", ["hub", "url"])
def test_a_full_disk_is_reported_as_such(sandbox: Sandbox, where: str) -> None:
    later = sandbox.add_url("later.pth")
    source = sandbox.add_to_hub("a/one") if where == "hub" else sandbox.add_url("one.pth")
    (error,) = sandbox.run_client(
        f"fetch {sandbox.add_entry('one', source, later)}", FILE_LIMIT=str(len(sandbox.payload) // 2)
    )
    assert error["error"] == "WeightsUnavailable"
    assert "no space left in" in error["message"]
    assert ("HF_HOME" if where == "hub" else "RESTORE_CACHE") in error["message"]
    assert sandbox.hub.count("GET", "later") == 0


def test_a_cache_that_cannot_be_written_is_named(sandbox: Sandbox) -> None:
    name = sandbox.add_entry("one", sandbox.add_url("one.pth"))
    blocked = sandbox.folder / "file"
    blocked.write_text("not a folder")
    (error,) = sandbox.run_client(f"fetch {name}", RESTORE_CACHE=str(blocked))
    assert error["error"] == "WeightsUnavailable"
    assert str(blocked) in error["message"]
    assert "RESTORE_CACHE" in error["message"]


def _kill_halfway(sandbox: Sandbox, name: str) -> None:
    """Start a fetch, and kill it when a part of the file is on disk."""
    with sandbox.start_client(f"fetch {name}") as client:
        assert sandbox.hub.halfway.wait(60)
        while not any(_partial(sandbox)):
            assert client.poll() is None
        client.kill()
        client.communicate()


def _partial(sandbox: Sandbox) -> list[Path]:
    found = [*sandbox.folder.rglob("*.part"), *sandbox.folder.rglob("*.incomplete")]
    return [path for path in found if path.stat().st_size > 0]
