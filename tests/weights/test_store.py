"""Bundled files, the cache folder, and the records of hashes in it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from systems import IS_ROOT

from restore_cli.errors import ChecksumMismatch, UsageError, WeightsError, WeightsUnavailable
from restore_cli.weights import store
from restore_cli.weights.entry import BundledSource, Entry, UrlSource
from restore_cli.weights.fetch import fetch
from restore_cli.weights.store import locate, remove, verify

CONTENT = b"small weights"
ENTRY = Entry(
    name="lite-x4",
    title="Lite",
    task="sr",
    model="lite",
    variant="lite",
    license="MIT",
    sources=(BundledSource("lite.safetensors"),),
    architecture="emt",
    config={"scale": 4},
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled files that holds the file of ENTRY, and an empty cache."""
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bundled").mkdir()
    file = tmp_path / "bundled" / "lite.safetensors"
    file.write_bytes(CONTENT)
    return file


def test_a_bundled_file_is_found_offline_and_cannot_be_removed(bundled: Path) -> None:
    assert fetch(ENTRY, offline=True) == locate(ENTRY) == verify(ENTRY) == fetch(ENTRY, force=True) == bundled
    with pytest.raises(UsageError, match="ships with the package"):
        remove(ENTRY)
    assert bundled.exists()


def test_a_bundled_file_needs_no_writable_cache(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_CACHE", str(bundled / "no folder"))
    assert fetch(ENTRY) == bundled


def test_a_damaged_bundled_file_is_a_checksum_mismatch_and_a_missing_one_is_named(bundled: Path) -> None:
    bundled.write_bytes(b"other")
    with pytest.raises(ChecksumMismatch, match="lite-x4: sha256 of"):
        fetch(ENTRY)
    bundled.unlink()
    with pytest.raises(WeightsUnavailable, match=r"lite-x4 cannot be fetched: bundled: .*install restore-cli again"):
        fetch(ENTRY)


def test_the_bundled_file_of_another_installation_is_not_used(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both installations record their file in the same cache."""
    other = tmp_path / "other" / "lite.safetensors"
    other.parent.mkdir()
    other.write_bytes(CONTENT)
    monkeypatch.setattr(store, "BUNDLED", other.parent)
    assert locate(ENTRY) == other
    monkeypatch.setattr(store, "BUNDLED", bundled.parent)
    assert locate(ENTRY) == bundled


@pytest.mark.parametrize("record", ["", "{}", "[1]", '{"path": 1, "size": 2, "mtime_ns": 3, "sha256": 4}'])
def test_a_broken_record_is_ignored(bundled: Path, record: str) -> None:
    assert fetch(ENTRY) == bundled
    for entry in (ENTRY, replace(ENTRY, sha256=None)):
        (store.get_cache_dir() / "lite-x4.json").write_text(record)
        assert locate(entry) == bundled


def test_a_file_is_hashed_again_only_if_it_has_changed(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(ENTRY) == bundled
    hashed: list[Path] = []
    real = store.verify_file

    def counted(entry: Entry, path: Path, origin: str | None = None) -> str:
        hashed.append(path)
        return real(entry, path, origin)

    monkeypatch.setattr(store, "verify_file", counted)
    assert locate(ENTRY) == bundled
    assert hashed == []
    bundled.write_bytes(CONTENT)
    assert locate(ENTRY) == bundled
    assert verify(ENTRY) == bundled
    assert hashed == [bundled, bundled]


def test_another_sha256_in_the_catalogue_outdates_the_record(bundled: Path) -> None:
    assert locate(ENTRY) == bundled
    assert locate(replace(ENTRY, sha256="0" * 64)) is None


def test_the_environment_sets_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert store.get_cache_dir() == Path("/one")
    monkeypatch.delenv("RESTORE_CACHE")
    assert store.get_cache_dir() == Path("/two/restore")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.get_cache_dir() == Path("/three/.cache/restore")


def test_no_two_addresses_share_a_partial_file(bundled: Path) -> None:
    entry = replace(ENTRY, sources=(UrlSource("https://a/x.pth"), UrlSource("https://b/x.pth")))
    assert store.get_part_file(entry, "https://a/x.pth") != store.get_part_file(entry, "https://b/x.pth")
    assert store.get_cached_file(entry) == store.get_cache_dir() / "lite-x4.pth"


def plant_file(entry: Entry, path: Path) -> None:
    """Write a file into the cache folder, and a record that declares it the checkpoint."""
    store.get_cache_dir().mkdir(exist_ok=True)
    path.write_bytes(b"other weights")
    facts = path.stat()
    record = {"path": str(path), "size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "sha256": entry.sha256}
    (store.get_cache_dir() / f"{entry.name}.json").write_text(json.dumps(record))


def test_a_cache_that_every_user_may_write_to_is_refused(bundled: Path) -> None:
    plant_file(ENTRY, store.get_cache_dir() / "lite-x4.safetensors")
    store.get_cache_dir().chmod(0o777)
    before = sorted(store.get_cache_dir().iterdir())
    assert fetch(ENTRY) == locate(ENTRY) == verify(ENTRY) == bundled  # bundled files need no cache
    published = replace(ENTRY, sources=(UrlSource("https://a/x.pth"),))
    for use in (fetch, locate, verify, remove):
        with pytest.raises(WeightsError, match=r"is not used: every user of this machine may write to it") as caught:
            use(published)
        assert str(caught.value).endswith(
            f"(try: chmod o-w {store.get_cache_dir()}, or set RESTORE_CACHE to a folder of your own)"
        )
    assert sorted(store.get_cache_dir().iterdir()) == before


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
@pytest.mark.parametrize("kind", ["link", "link above", "folder"])
def test_a_cache_that_another_user_made_is_refused(
    kind: str, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = 65534
    (tmp_path / "theirs/cache").mkdir(parents=True)
    (tmp_path / "common").mkdir()
    (tmp_path / "common").chmod(0o1777)
    if kind == "folder":
        cache = tmp_path / "common/cache"
        cache.mkdir()
        os.chown(cache, nobody, nobody)
    else:
        link = tmp_path / "common/link"
        link.symlink_to(tmp_path / "theirs" / ("cache" if kind == "link" else ""))
        cache = link if kind == "link" else link / "cache"
        os.lchown(link, nobody, nobody)
    monkeypatch.setenv("RESTORE_CACHE", str(cache))
    published = replace(ENTRY, sources=(UrlSource("https://a/x.pth"),))
    with pytest.raises(WeightsError, match="another user"):
        locate(published)
    assert fetch(ENTRY) == bundled
    assert list(cache.iterdir()) == []
    if kind != "folder":
        os.lchown(link, 0, 0)
        assert locate(published) is None


def test_the_cache_folder_is_private_under_any_umask(bundled: Path) -> None:
    before = os.umask(0)
    try:
        assert fetch(ENTRY) == bundled
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.get_cache_dir().stat().st_mode) == 0o755
