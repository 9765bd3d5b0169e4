"""Files that ship with the package, where the cache is, and what a record is worth."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from restore_cli.errors import ChecksumMismatch, UsageError, WeightsUnavailable
from restore_cli.weights import store
from restore_cli.weights.catalogue import BundledSource, Entry, UrlSource
from restore_cli.weights.fetch import fetch, locate, remove, verify

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
    """A folder of shipped files, with the one of ENTRY; and an empty cache."""
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bundled").mkdir()
    file = tmp_path / "bundled" / "lite.safetensors"
    file.write_bytes(CONTENT)
    return file


def test_a_bundled_file_is_at_hand_offline_and_stays(bundled: Path) -> None:
    assert fetch(ENTRY, offline=True) == locate(ENTRY) == verify(ENTRY) == fetch(ENTRY, force=True) == bundled
    with pytest.raises(UsageError, match="ships with the package"):
        remove(ENTRY)
    assert bundled.exists()


def test_a_bundled_file_needs_no_cache_that_can_be_written(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_CACHE", str(bundled / "no folder"))
    assert fetch(ENTRY) == bundled


def test_a_damaged_bundled_file_is_a_checksum_mismatch_and_a_missing_one_is_named(bundled: Path) -> None:
    bundled.write_bytes(b"other")
    with pytest.raises(ChecksumMismatch, match="lite-x4: sha256 of"):
        fetch(ENTRY)
    bundled.unlink()
    with pytest.raises(WeightsUnavailable, match="lite-x4 cannot be had: bundled: "):
        fetch(ENTRY)


@pytest.mark.parametrize("record", ["", "{}", "[1]", '{"path": 1, "size": 2, "mtime_ns": 3, "sha256": 4}'])
def test_a_broken_record_is_no_record(bundled: Path, record: str) -> None:
    assert fetch(ENTRY) == bundled
    for entry in (ENTRY, replace(ENTRY, sha256=None)):
        (store.cache_dir() / "lite-x4.json").write_text(record)
        assert locate(entry) == bundled


def test_a_file_is_hashed_again_only_when_it_changed(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(ENTRY) == bundled
    hashed: list[Path] = []
    real = store.checked

    def counted(entry: Entry, path: Path, origin: str | None = None) -> str:
        hashed.append(path)
        return real(entry, path, origin)

    monkeypatch.setattr(store, "checked", counted)
    assert locate(ENTRY) == bundled
    assert hashed == []
    bundled.write_bytes(CONTENT)
    assert locate(ENTRY) == bundled
    assert verify(ENTRY) == bundled
    assert hashed == [bundled, bundled]


def test_another_sha256_in_the_catalogue_outdates_the_record(bundled: Path) -> None:
    assert locate(ENTRY) == bundled
    assert locate(replace(ENTRY, sha256="0" * 64)) is None


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert store.cache_dir() == Path("/one")
    monkeypatch.delenv("RESTORE_CACHE")
    assert store.cache_dir() == Path("/two/restore")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_dir() == Path("/three/.cache/restore")


def test_no_two_addresses_share_a_part(bundled: Path) -> None:
    entry = replace(ENTRY, sources=(UrlSource("https://a/x.pth"), UrlSource("https://b/x.pth")))
    assert store.part_file(entry, "https://a/x.pth") != store.part_file(entry, "https://b/x.pth")
    assert store.own_file(entry) == store.cache_dir() / "lite-x4.pth"
