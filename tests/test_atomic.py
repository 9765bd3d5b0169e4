"""A file is complete, or as it was before."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from systems import IS_ROOT

from restore_cli.atomic import atomic_write, make_folder
from restore_cli.errors import OutputError
from restore_cli.image.codec import decode, encode
from restore_cli.image.picture import Picture

root_only = pytest.mark.skipif(not IS_ROOT, reason="mounting needs root")


def write(path: Path, data: bytes = b"new") -> None:
    with atomic_write(path) as file:
        file.write(data)


def test_content_appears_at_the_end_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (other,) = set(tmp_path.iterdir()) - {path}
        assert other.name.startswith(f".restore-{os.getpid()}-")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_obeys_the_umask(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            write(tmp_path / f"{mask}")
            (tmp_path / f"plain {mask}").touch()
        finally:
            os.umask(before)
        modes = [stat.S_IMODE((tmp_path / f"{prefix}{mask}").stat().st_mode) for prefix in ("", "plain ")]
        assert modes[0] == modes[1] == 0o666 & ~mask


@pytest.mark.parametrize("error", [RuntimeError("writer"), KeyboardInterrupt(), OSError("no number"), TimeoutError()])
def test_failure_of_the_writer_leaves_nothing_and_is_not_renamed(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_failure_of_the_last_steps_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(call, fail)
    with pytest.raises(OutputError, match="Input/output error"):
        write(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_each_reason_has_its_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"there is no folder .*none \(try: mkdir -p .*none\)"):
        write(tmp_path / "none" / "out.png")
    with pytest.raises(OutputError, match="is a folder"):
        write(tmp_path)
    with pytest.raises(OutputError, match="is a file, not a folder"):
        write(tmp_path / "file" / "out.png")
    with pytest.raises(OutputError, match="name is too long"):
        write(tmp_path / ("x" * 300))
    with pytest.raises(OutputError, match="not an ordinary file"):
        write(Path(os.devnull))
    assert Path(os.devnull).is_char_device()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_accepts_no_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"^/proc/x\.png: cannot be written: (/proc accepts no new files|no permission)"
    ):
        write(Path("/proc/x.png"))
    with pytest.raises(OutputError, match=r"^/proc/x: cannot be written: (/proc accepts no new files|no permission)"):
        make_folder(Path("/proc/x"))


def test_the_longest_name_is_possible(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255))
    assert (tmp_path / ("x" * 255)).read_bytes() == b"new"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "out")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "there" / "out").read_bytes() == b"new"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OutputError):
        write(loop)


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "out"
    threads = [threading.Thread(target=write, args=(path, bytes([n]) * 100_000)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(path.read_bytes())) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.needs("os.geteuid")
@pytest.mark.skipif(IS_ROOT, reason="root may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission to write there"):
        write(tmp_path / "out")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small memory disk with the given options, or skip the test if that is not possible."""
    place, command = tmp_path / "disk", shutil.which("mount")
    place.mkdir()
    mounted: list[Path] = []

    def do(options: str) -> Path:
        arguments = [command or "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if not command or subprocess.run(arguments, capture_output=True, check=False).returncode:
            pytest.skip("this machine mounts no tmpfs")
        mounted.append(place)
        return place

    yield do
    for each in mounted:
        subprocess.run(["umount", str(each)], check=True)


@root_only
def test_full_disk_keeps_the_old_picture(mount: Callable[[str], Path]) -> None:
    path = mount("size=64k") / "out.png"
    small = Picture(np.zeros((4, 4, 3), np.uint8))
    encode(small, path)
    noise = Picture(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    for suffix in ("png", "tif", "jpg"):
        with pytest.raises(OutputError, match="no space left on its disk"):
            encode(noise, path.with_suffix(f".{suffix}"))
    assert np.array_equal(decode(path).pixels, small.pixels)
    assert list(path.parent.iterdir()) == [path]


@root_only
def test_read_only_disk(mount: Callable[[str], Path]) -> None:
    with pytest.raises(OutputError, match="mounted read-only"):
        write(mount("ro,size=64k") / "out.png")


@pytest.mark.needs("resource")
def test_a_limit_on_file_size_is_named(tmp_path: Path) -> None:
    """A short write without root. It runs in its own process, because the limit is for a whole process."""
    import resource

    program = (
        "import sys, signal; from pathlib import Path; from restore_cli.atomic import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with atomic_write(Path(sys.argv[1])) as file: file.write(bytes(100_000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OutputError" in done.stderr
    assert "larger than is allowed" in done.stderr
    assert not list(tmp_path.iterdir())
