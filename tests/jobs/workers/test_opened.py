"""Local copies of remote files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from restore_cli.atomic import make_folder
from restore_cli.errors import OutputError
from restore_cli.jobs.types import Task
from restore_cli.jobs.workers.opened import LocalTask


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """Return an empty store in memory."""
    found = fsspec.filesystem("memory")
    yield found
    found.store.clear()


@pytest.mark.parametrize("name", ["photo.png", "in", "out"])
def test_the_copy_of_an_input_leaves_room_for_its_output(name: str, store: fsspec.AbstractFileSystem) -> None:
    store.pipe_file(f"/photos/{name}", b"pixels")
    local = LocalTask(Task(f"memory://photos/{name}", f"memory://clean/{name}.png"))
    local.download()
    assert Path(local.input).read_bytes() == b"pixels"
    make_folder(Path(local.output).parent)
    local.discard()
    assert local.temporary is not None
    assert not local.temporary.exists()


def test_a_full_temporary_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match="temporary files cannot be written: No such file or directory"):
        LocalTask(Task("memory://photos/a.png", "a.png")).download()
