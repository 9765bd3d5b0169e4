"""The real hub client, in its own process, against a hub on 127.0.0.1 that misbehaves in every known way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from desk import ROOT, Desk, hub_source
from hub_server import PAGE, Fault, HubServer
from safetensors.numpy import save

REAL = ROOT.parent / "shared" / "checkpoints" / "EMT_LSR_x2.pth"
BIG = 8
"""times the payload: the client writes in pieces of 10 MiB, and half of the file must hold one"""


@pytest.fixture(scope="session")
def payload() -> bytes:
    """The real EMT ×2 checkpoint where it is, else a small one of noise."""
    if REAL.is_file():
        return REAL.read_bytes()
    noise = np.random.default_rng(0).standard_normal((768, 1024), dtype=np.float32)
    return save({"head.weight": noise})


@pytest.fixture
def desk(tmp_path: Path, payload: bytes) -> Iterator[Desk]:
    with HubServer() as hub:
        yield Desk(tmp_path, hub, payload)


def test_a_hub_file_is_fetched_once_and_shown_as_it_comes(desk: Desk) -> None:
    name = desk.entry("one", desk.on_hub("a/one"))
    first, again, located = desk.run(f"fetch {name}", f"fetch {name}", f"locate {name}")
    assert desk.holds_payload(first["path"])
    assert (first["started"], first["seen"], first["finished"]) == ([len(desk.payload)], len(desk.payload), 1)
    assert again == {"path": first["path"], "started": [], "seen": 0, "finished": 0, "passed": []}
    assert located["path"] == first["path"]
    assert Path(first["path"]).is_relative_to(desk.folder / "hf")  # the hub's own cache, shared with other programs
    assert desk.hub.count("GET", "a/one") == 1
    assert desk.leftovers() == []


def test_a_dataset_is_asked_for_as_a_dataset_and_kept_in_the_hubs_cache(desk: Desk) -> None:
    name = desk.entry("one", desk.on_hub("a/one", repo_type="dataset"))
    first, located, offline, removed, gone = desk.run(
        f"fetch {name}", f"locate {name}", f"fetch {name} offline", f"remove {name}", f"locate {name}"
    )
    assert located["path"] == first["path"]
    assert Path(first["path"]).is_relative_to(desk.folder / "hf" / "hub" / "datasets--a--one")
    assert offline["path"] == first["path"]
    assert removed["gone"] == [first["path"]]
    assert gone["path"] is None


@pytest.mark.parametrize(("stored", "asked"), [("dataset", "model"), ("model", "dataset")])
@pytest.mark.parametrize(("token", "status"), [("", 401), ("hf_secret", 404)])
def test_a_repository_of_the_other_kind_is_not_found(
    desk: Desk, stored: str, asked: str, token: str, status: int
) -> None:
    desk.on_hub("a/one", repo_type=stored)
    wrong = desk.entry("wrong", hub_source("a/one", asked))
    lucky = desk.entry("lucky", hub_source("a/one", asked), hub_source("a/one", stored))
    error, good = desk.run(f"fetch {wrong}", f"fetch {lucky}", **({"HF_TOKEN": token} if token else {}))
    assert error["error"] == "WeightsUnavailable"
    assert f"HTTP {status}" in error["message"]
    assert ("hub datasets/a/one: " if asked == "dataset" else "hub a/one: ") in error["message"]
    assert good["path"] is not None


def test_a_url_file_is_fetched_once_under_the_entrys_own_name(desk: Desk) -> None:
    name = desk.entry("one", desk.at_url("odd name;#.exe"))
    first, again = desk.run(f"fetch {name}", f"fetch {name}")
    assert desk.holds_payload(first["path"])
    assert Path(first["path"]) == desk.cache / "one.pth"
    assert (first["started"], first["seen"], first["finished"]) == ([len(desk.payload)], len(desk.payload), 1)
    assert again["path"] == first["path"]
    assert desk.hub.count("GET", "/plain/") == 1
    assert desk.leftovers() == []


def test_the_token_goes_to_the_hub_and_nowhere_else(desk: Desk) -> None:
    name = desk.entry("one", desk.on_hub("a/one"))
    other = desk.entry("two", desk.at_url("two.pth"))
    desk.run(f"fetch {name}", f"fetch {other}", HF_TOKEN="hf_secret")
    hub = [seen for seen in desk.hub.seen(part="/resolve/") if not seen.path.startswith("/lfs")]
    assert hub
    assert all(seen.headers.get("authorization") == "Bearer hf_secret" for seen in hub)
    assert all("authorization" not in seen.headers for seen in desk.hub.requests if seen not in hub)


WAIT = "HTTP 429, too many requests, try again in 3600 s"
FAILURES: list[tuple[Fault, str, str]] = [
    ("missing", "HTTP 404, not found", "HTTP 404, not found"),
    ("unauthorized", "HTTP 401, access refused or no such model (HF_TOKEN?)", "HTTP 401, access refused"),
    ("forbidden", "HTTP 403, access refused (HF_TOKEN?)", "HTTP 403, access refused"),
    ("limited", WAIT, WAIT),
    ("error", "HTTP 500", "HTTP 500"),
    ("page", "sent a web page, not the metadata of a file", "sent a web page (Quota exceeded), not the file"),
    ("disguised", f"offers {len(PAGE)} bytes, not SIZE", f"offers {len(PAGE)} bytes, not SIZE"),
    ("short", "offers HALF bytes, not SIZE", "offers HALF bytes, not SIZE"),
    ("lost", "HTTP 401, access refused or no such model (HF_TOKEN?)", "moved to NEW"),
    ("wrong", "wrong sha256", "wrong sha256"),
]


@pytest.mark.parametrize(("fault", "at_hub", "at_url"), FAILURES, ids=lambda value: value if len(value) < 13 else "")
def test_a_source_that_fails_is_named_in_one_line_and_the_next_is_tried(
    desk: Desk, fault: Fault, at_hub: str, at_url: str
) -> None:
    bad, good = [desk.on_hub("a/bad", fault), desk.at_url("bad.pth", fault)], desk.on_hub("a/good")
    lucky = desk.entry("lucky", *bad, good)
    unlucky = desk.entry("unlucky", *bad, desk.on_hub("a/gone", "missing"))
    fetched, error = desk.run(f"fetch {lucky}", f"fetch {unlucky}")
    assert desk.holds_payload(fetched["path"])
    lines = [f"hub a/bad: {desk.spelled(at_hub)}", f"{desk.store}: {desk.spelled(at_url)}"]
    assert fetched["passed"] == [f"lucky: {line}" for line in lines]
    assert error["passed"][:2] == [f"unlucky: {line}" for line in lines]
    assert (error["error"], error["code"]) == ("WeightsUnavailable", 4)
    listed = "; ".join([*lines, "hub a/gone: HTTP 404, not found"])
    assert error["message"].startswith(f"unlucky cannot be fetched: {listed}")
    assert error["message"].endswith(" (try: restore models pull unlucky, later)")
    assert "\n" not in error["message"]
    assert desk.leftovers() == []


def test_a_source_that_asks_to_wait_is_asked_once(desk: Desk) -> None:
    name = desk.entry("one", desk.on_hub("a/one", "limited"), desk.at_url("one.pth", "limited"))
    desk.run(f"fetch {name}")
    assert [seen.method for seen in desk.hub.seen(part=".pth")] == ["HEAD", "GET"]


def test_a_file_that_moved_is_asked_for_at_its_new_address_after_all_others(desk: Desk) -> None:
    moved = desk.at_url("moved.pth", "moved")
    other = desk.entry("other", moved, desk.at_url("other.pth"))
    alone = desk.entry("alone", moved, desk.on_hub("a/gone", "missing"))
    first = desk.run(f"fetch {other}")[0]
    assert desk.holds_payload(first["path"])
    assert desk.hub.count(part="renamed-") == 0
    last = desk.run(f"fetch {alone}")[0]
    assert desk.holds_payload(last["path"])
    assert last["passed"][0] == f"alone: {desk.store}: moved to http://{desk.store}/plain/renamed-moved.pth"
    assert desk.hub.count(part="renamed-") == 1


def test_without_a_sha256_a_new_address_is_not_trusted(desk: Desk) -> None:
    name = desk.entry("one", desk.at_url("one.pth", "moved"), sha256=None, size=None)
    (error,) = desk.run(f"fetch {name}")
    assert error["error"] == "WeightsUnavailable"
    assert f": moved to {desk.hub.add_url('renamed-one.pth', b'')} (try" in error["message"]
    assert desk.hub.count(part="renamed-") == 0


def test_a_renamed_repository_of_a_hub_is_followed_because_its_commit_is_pinned(desk: Desk) -> None:
    name = desk.entry("one", desk.on_hub("a/one", "moved"))
    fetched, located = desk.run(f"fetch {name}", f"locate {name}")
    assert desk.holds_payload(fetched["path"])
    assert located["path"] == fetched["path"]


@pytest.mark.parametrize("where", ["hub", "url"])
def test_a_page_is_no_checkpoint_even_where_nothing_is_known_of_it(desk: Desk, where: str) -> None:
    source = desk.on_hub("a/one", payload=PAGE) if where == "hub" else desk.at_url("one.pth", "disguised")
    name = desk.entry("one", source, sha256=None, size=None)
    error, located = desk.run(f"fetch {name}", f"locate {name}")
    assert error["error"] == "WeightsUnavailable"
    assert "sent a web page (Quota exceeded), not the file" in error["message"]
    assert located["path"] is None
    assert not any(PAGE in path.read_bytes() for path in desk.folder.rglob("*") if path.is_file())


def test_what_breaks_off_again_and_again_is_passed_over(desk: Desk) -> None:
    name = desk.entry("one", desk.at_url("one.pth", "broken"), desk.on_hub("a/one"))
    (fetched,) = desk.run(f"fetch {name}")
    assert desk.holds_payload(fetched["path"])
    size = len(desk.payload)
    assert fetched["passed"] == [f"one: {desk.store}: broke off after {size // 2} of {size} bytes"]
    assert desk.leftovers() == []


def test_a_hub_that_states_another_sha256_sends_nothing(desk: Desk) -> None:
    name = desk.entry("one", desk.on_hub("a/one", payload=desk.payload[::-1]))
    (error,) = desk.run(f"fetch {name}")
    assert error["error"] == "ChecksumMismatch"
    assert "sha256 of the file of hub a/one is" in error["message"]
    assert desk.hub.count("GET", ".pth") == 0


def test_wrong_bytes_everywhere_are_a_checksum_mismatch_and_stay_nowhere(desk: Desk) -> None:
    name = desk.entry("one", desk.on_hub("a/one", "wrong"), desk.at_url("one.pth", "wrong"))
    error, located = desk.run(f"fetch {name}", f"locate {name}")
    assert (error["error"], error["code"]) == ("ChecksumMismatch", 4)
    assert error["message"].count(f"the catalogue says {desk.sha256[:12]}…") == 2
    assert "the file from hub a/one is" in error["message"]
    assert f"the file from {desk.store} is" in error["message"]
    assert located["path"] is None
    wrong = desk.payload[::-1]
    assert not any(path.read_bytes() == wrong for path in desk.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("fault", ["cut", "slow", "deaf"])
def test_a_bad_line_costs_time_and_nothing_else(desk: Desk, fault: Fault) -> None:
    one = desk.entry("one", desk.on_hub("a/one", fault))
    two = desk.entry("two", desk.at_url("two.pth", fault))
    for said in desk.run(f"fetch {one}", f"fetch {two}"):
        assert desk.holds_payload(said["path"])
        assert said["seen"] == len(desk.payload)
    assert desk.leftovers() == []


def test_a_killed_download_from_a_url_goes_on_where_it_was(desk: Desk) -> None:
    desk.payload *= BIG
    name = desk.entry("one", desk.at_url("one.pth", "hang"))
    _kill_halfway(desk, name)
    (part,) = desk.cache.glob(".one.*.part")
    assert 0 < part.stat().st_size < len(desk.payload)
    before, after = desk.run(f"locate {name}", f"fetch {name}")
    assert before["path"] is None
    assert desk.holds_payload(after["path"])
    ranges = [seen.headers.get("range") for seen in desk.hub.seen("GET", ".pth")]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert desk.leftovers() == []


def test_a_killed_download_from_a_hub_is_never_taken_for_whole(desk: Desk) -> None:
    desk.payload *= BIG
    name = desk.entry("one", desk.on_hub("a/one", "hang"))
    _kill_halfway(desk, name)
    before, after = desk.run(f"locate {name}", f"fetch {name}")
    assert before["path"] is None
    assert desk.holds_payload(after["path"])


@pytest.mark.parametrize("junk", [b"<html>sign in</html>", b"\0" * 10**8])
def test_a_part_of_something_else_is_thrown_away(desk: Desk, junk: bytes) -> None:
    desk.payload *= BIG
    name = desk.entry("one", desk.at_url("one.pth", "hang"))
    _kill_halfway(desk, name)
    (part,) = desk.cache.glob(".one.*.part")
    part.write_bytes(junk)
    (said,) = desk.run(f"fetch {name}")
    assert desk.holds_payload(said["path"])
    assert desk.leftovers() == []


@pytest.mark.parametrize("where", ["hub", "url"])
def test_two_processes_that_want_the_same_file_fetch_it_once(desk: Desk, where: str) -> None:
    name = desk.entry("one", desk.on_hub("a/one", "slow") if where == "hub" else desk.at_url("one.pth", "slow"))
    clients = [desk.start(f"fetch {name}") for _ in range(2)]
    for client in clients:
        out, err = client.communicate()
        assert (client.returncode, err) == (0, "")
        assert '"path"' in out
    assert desk.hub.count("GET", ".pth") == 1
    assert desk.run(f"verify {name}")[0]["path"] is not None


@pytest.mark.parametrize("where", ["hub", "url"])
def test_a_damaged_file_is_noticed_said_and_replaced(desk: Desk, where: str) -> None:
    name = desk.entry("one", desk.on_hub("a/one") if where == "hub" else desk.at_url("one.pth"))
    path = Path(desk.run(f"fetch {name}")[0]["path"])
    path.write_bytes(desk.payload[:-1] + b"!")
    located, verified, offline, fetched, sound = desk.run(
        f"locate {name}", f"verify {name}", f"fetch {name} offline", f"fetch {name}", f"verify {name}"
    )
    assert located["path"] is None
    assert verified["error"] == offline["error"] == "ChecksumMismatch"
    assert f"restore models pull {name} --force" in verified["message"]
    assert desk.holds_payload(fetched["path"])
    assert sound["path"] == fetched["path"]


def test_without_a_published_sha256_the_first_one_seen_is_enforced(desk: Desk) -> None:
    source = desk.at_url("one.pth")
    name = desk.entry("one", source, sha256=None, size=None)
    first = desk.run(f"fetch {name}")[0]
    desk.at_url("one.pth", payload=b"another file")
    forced, kept = desk.run(f"fetch {name} force", f"locate {name}")
    assert forced["error"] == "ChecksumMismatch"
    assert "at the first download" in forced["message"]
    assert f"restore models rm {name}" in forced["message"]
    assert kept["path"] == first["path"]
    assert desk.holds_payload(kept["path"])
    removed, other = desk.run(f"remove {name}", f"fetch {name}")
    assert removed["gone"] == [first["path"]]
    assert Path(other["path"]).read_bytes() == b"another file"


def test_offline_uses_what_is_here_and_asks_nobody(desk: Desk) -> None:
    here = desk.entry("here", desk.on_hub("a/here"))
    away = desk.entry("away", desk.on_hub("a/away"), desk.at_url("away.pth"))
    desk.run(f"fetch {here}")
    asked = desk.hub.count()
    found, missing, both = desk.run(f"fetch {here} offline", f"fetch {away} offline", f"fetch {away} offline force")
    by_environment = desk.run(f"fetch {here}", f"fetch {away}", HF_HUB_OFFLINE="1")
    assert found == by_environment[0]
    assert desk.holds_payload(found["path"])
    assert missing["error"] == by_environment[1]["error"] == "WeightsUnavailable"
    assert both["error"] == "UsageError"
    assert "HF_HUB_OFFLINE is set" in by_environment[1]["message"]
    assert desk.hub.count() == asked


def test_without_a_network_the_line_says_so(desk: Desk) -> None:
    # port 9 (discard) answers nobody
    name = desk.entry("one", desk.on_hub("a/one"), '{ url = "http://127.0.0.1:9/one.pth" }')
    (error,) = desk.run(f"fetch {name}", HF_ENDPOINT="http://127.0.0.1:9")
    assert error["error"] == "WeightsUnavailable"
    assert error["message"].count("no connection") == 2


@pytest.mark.parametrize("where", ["hub", "url"])
def test_a_file_of_another_size_is_refused_before_it_is_stored(desk: Desk, where: str) -> None:
    more = desk.payload + b"\0" * 1000
    source = desk.on_hub("a/one", payload=more) if where == "hub" else desk.at_url("one.pth", payload=more)
    (error,) = desk.run(f"fetch {desk.entry('one', source)}")
    assert error["error"] == "WeightsUnavailable"
    assert f"offers {len(more)} bytes, not {len(desk.payload)}" in error["message"]
    assert desk.hub.count("GET", "/lfs/") == 0
    assert desk.leftovers() == []


def test_a_stream_without_end_is_cut_off(desk: Desk) -> None:
    (error,) = desk.run(f"fetch {desk.entry('one', desk.at_url('one.pth', 'endless'))}")
    assert error["error"] == "WeightsUnavailable"
    assert f"sent more than {len(desk.payload)} bytes" in error["message"]
    assert desk.leftovers() == []


def test_a_removed_file_is_gone_and_its_neighbour_stays(desk: Desk) -> None:
    one, two = desk.entry("one", desk.on_hub("a/one")), desk.entry("two", desk.at_url("two.pth"))
    first, second = desk.run(f"fetch {one}", f"fetch {two}")
    removed, located, neighbour, nothing = desk.run(f"remove {one}", f"locate {one}", f"locate {two}", f"remove {one}")
    assert removed["gone"] == [first["path"]]
    assert located["path"] is None
    assert neighbour["path"] == second["path"]
    assert nothing["gone"] == []
    blobs = desk.folder.glob("hf/hub/models--*/blobs/*")
    assert not any(path.is_file() for path in blobs)


def test_a_copy_that_another_program_brought_is_found(desk: Desk) -> None:
    name = desk.entry("one", desk.on_hub("a/one"))
    path = desk.run(f"fetch {name}")[0]["path"]
    for mine in desk.cache.iterdir():
        mine.unlink()
    assert desk.run(f"locate {name}", f"fetch {name} offline")[0]["path"] == path
    assert desk.hub.count("GET", ".pth") == 1


def test_the_first_that_can_be_had_is_taken_but_a_wrong_one_is_not_passed_over(desk: Desk) -> None:
    gone = desk.entry("gone", desk.on_hub("a/gone", "missing"))
    good = desk.entry("good", desk.on_hub("a/good"))
    wrong = desk.entry("wrong", desk.at_url("wrong.pth", "wrong"))
    taken, refused, none = desk.run(f"first {gone} {good}", f"first {wrong} {good}", f"first {gone}")
    assert taken["name"] == good
    assert refused["error"] == "ChecksumMismatch"
    assert none["error"] == "WeightsUnavailable"


@pytest.mark.parametrize("where", ["hub", "url"])
def test_a_full_disk_is_called_a_full_disk(desk: Desk, where: str) -> None:
    later = desk.at_url("later.pth")
    source = desk.on_hub("a/one") if where == "hub" else desk.at_url("one.pth")
    (error,) = desk.run(f"fetch {desk.entry('one', source, later)}", FILE_LIMIT=str(len(desk.payload) // 2))
    assert error["error"] == "WeightsUnavailable"
    assert "no space left in" in error["message"]
    assert ("HF_HOME" if where == "hub" else "RESTORE_CACHE") in error["message"]
    assert desk.hub.count("GET", "later") == 0


def test_a_cache_that_cannot_be_written_is_named(desk: Desk) -> None:
    name = desk.entry("one", desk.at_url("one.pth"))
    blocked = desk.folder / "file"
    blocked.write_text("not a folder")
    (error,) = desk.run(f"fetch {name}", RESTORE_CACHE=str(blocked))
    assert error["error"] == "WeightsUnavailable"
    assert str(blocked) in error["message"]
    assert "RESTORE_CACHE" in error["message"]


def _kill_halfway(desk: Desk, name: str) -> None:
    """Starts a fetch, and kills it when some of the file is on disk."""
    with desk.start(f"fetch {name}") as client:
        assert desk.hub.halfway.wait(60)
        while not any(_partial(desk)):
            assert client.poll() is None
        client.send_signal(signal.SIGKILL)
        client.communicate()


def _partial(desk: Desk) -> list[Path]:
    found = [*desk.folder.rglob("*.part"), *desk.folder.rglob("*.incomplete")]
    return [path for path in found if path.stat().st_size > 0]
