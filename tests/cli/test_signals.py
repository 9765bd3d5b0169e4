"""Signals to a real process while it restores."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from images import make_image, save_image
from PIL import Image
from systems import IMPORT_PATH

from restore_cli.jobs.manifest import MANIFEST_NAME
from restore_cli.system import SIGNALS

pytestmark = pytest.mark.needs("signal.SIGHUP")  # Windows sends no signal to another process


@pytest.fixture(autouse=True)
def hangup_is_not_ignored() -> Iterator[None]:
    """Restore the handling of SIGHUP, which child processes of a test run under `nohup` would ignore."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def running(*arguments: object, cwd: Path, before: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Start `restore` in a process."""
    command = [*before, sys.executable, "-m", "restore_cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": IMPORT_PATH, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=cwd
    ) as process:
        yield process
        process.kill()


def wait_until(process: subprocess.Popen[str], happened: Callable[[], object]) -> None:
    """Wait for something that a process does."""
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def partial_files(folder: Path) -> list[Path]:
    """Return the results that are being written."""
    return list(folder.rglob(".restore-*.part"))


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_finishes_images_in_flight_and_the_same_command_continues(
    number: signal.Signals, tmp_path: Path, x1: Path
) -> None:
    for name in "abcdefgh":
        save_image(tmp_path / f"in/{name}.png", make_image(500, 500))
    command = ("denoise", "--weights", x1, "in", "-o", "out")
    with running(*command, cwd=tmp_path) as process:
        wait_until(process, lambda: partial_files(tmp_path))
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert "stopping: finishing 1 image; Ctrl-C again stops at once" in err or "stopping: finishing 2 images" in err
    assert err.splitlines()[-1].startswith("restore: interrupted after")
    assert "the same command again continues" in err
    done = sorted(path.name for path in (tmp_path / "out").glob("[!.]*"))
    assert 0 < len(done) < 8
    assert len(out.splitlines()) == len(done)
    assert not partial_files(tmp_path)
    for name in done:
        with Image.open(tmp_path / "out" / name) as image:
            image.load()
    with running(*command, cwd=tmp_path) as process:
        _, err = process.communicate()
    assert process.returncode == 0
    assert f"8 images: {8 - len(done)} done, {len(done)} skipped, 0 failed" in err


def test_a_second_signal_ends_at_once_and_leaves_nothing(tmp_path: Path, x1: Path) -> None:
    save_image(tmp_path / "in.png", make_image(3000, 3000))
    with running("denoise", "--weights", x1, "in.png", "--tile", "0", cwd=tmp_path) as process:
        wait_until(process, lambda: partial_files(tmp_path))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("stopping: finishing 1 image")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err == "restore: stopped at once (try: the same command again continues)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_a_second_lost_session_ends_at_once_and_leaves_nothing(tmp_path: Path, x1: Path) -> None:
    save_image(tmp_path / "in.png", make_image(3000, 3000))
    with running("denoise", "--weights", x1, "in.png", "--tile", "0", cwd=tmp_path) as process:
        wait_until(process, lambda: partial_files(tmp_path))
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("stopping: finishing 1 image")
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.needs("pty")
def test_a_lost_terminal_finishes_images_in_flight(tmp_path: Path, x1: Path) -> None:
    """The leader of the session gets SIGHUP and cannot write to its terminal any more."""
    for name in "abcdefgh":
        save_image(tmp_path / f"in/{name}.png", make_image(500, 500))
    import pty

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "restore_cli", "denoise", "--weights", str(x1), "in", "-o", "out", "--log", "log"]
    environment = os.environ | {"PYTHONPATH": IMPORT_PATH, "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    with subprocess.Popen(
        command, preexec_fn=lambda: os.login_tty(slave), pass_fds=[slave], env=environment, cwd=tmp_path, text=True
    ) as process:
        os.close(slave)
        try:
            wait_until(process, lambda: read_waiting(master) and partial_files(tmp_path))
            os.close(master)
            process.wait()
        finally:
            process.kill()
    assert process.returncode == 130
    log = (tmp_path / "log").read_text()
    assert " stopping finishing " in log
    assert "exit code 130; " in log
    assert not partial_files(tmp_path)
    done = list((tmp_path / "out").glob("[!.]*"))
    assert 0 < len(done) < 8
    for path in done:
        with Image.open(path) as image:
            image.load()


def test_workers_leave_a_lost_session_to_their_parent(tmp_path: Path, x1: Path) -> None:
    for number in range(16):
        save_image(tmp_path / f"in/{number}.png", make_image(500, 500))
    command = ("denoise", "--weights", x1, "in", "-o", "out", "--device", "cpu,cpu")
    with running(*command, cwd=tmp_path, before=["setsid"]) as process:
        wait_until(process, lambda: partial_files(tmp_path))
        os.killpg(process.pid, signal.SIGHUP)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert "died" not in err
    done = list((tmp_path / "out").glob("[!.]*"))
    assert 0 < len(done) == len(out.splitlines()) < 16
    assert not partial_files(tmp_path)


def read_waiting(terminal: int) -> bool:
    """Read what a process has drawn, so that it never waits for its terminal."""
    while select.select([terminal], [], [], 0)[0]:
        os.read(terminal, 65536)
    return True


def test_nohup_makes_a_run_ignore_a_lost_session(tmp_path: Path, x1: Path) -> None:
    save_image(tmp_path / "in.png", make_image(500, 500))
    with running("denoise", "--weights", x1, "in.png", cwd=tmp_path, before=["nohup"]) as process:
        wait_until(process, lambda: partial_files(tmp_path))
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "in.png → in_denoise.png" in out


@pytest.mark.parametrize("number", SIGNALS[1:])
def test_a_signal_to_a_command_without_batch_leaves_no_temporary_file(number: signal.Signals, tmp_path: Path) -> None:
    for name in "ab":
        save_image(tmp_path / f"{name}.png", make_image(1500, 1500))
    with running("compare", "a.png", "b.png", "-o", "sheet.png", "--zoom", "4", cwd=tmp_path) as process:
        wait_until(process, lambda: partial_files(tmp_path))
        process.send_signal(number)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_without_images_in_flight_the_first_signal_ends_the_run(
    tmp_path: Path, x1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command waits for an image on standard input."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running("denoise", "--weights", x1, "-", "-o", "out.png", cwd=tmp_path) as process:
        wait_until(process, lambda: list(tmp_path.glob("restore-*")))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err == "restore: interrupted after 0 images (try: the same command again continues)\n"
    assert not list(tmp_path.iterdir())


def test_a_signal_ends_a_watching_run_with_success(tmp_path: Path, x1: Path) -> None:
    (tmp_path / "in").mkdir()
    with running("denoise", "--weights", x1, "in", "-o", "out", "--watch", cwd=tmp_path) as process:
        save_image(tmp_path / "new.png", make_image(9, 9)).rename(tmp_path / "in/new.png")
        wait_until(process, (tmp_path / "out/new.png").exists)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "in/new.png → out/new.png" in out


def test_a_closed_pipe_ends_the_run(tmp_path: Path, x1: Path) -> None:
    for name in "abcdefgh":
        save_image(tmp_path / f"in/{name}.png", make_image(300, 300))
    with running("denoise", "--weights", x1, "in", "-o", "out", "--log", "log.txt", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("in/a.png")
        process.stdout.close()
        err = process.stderr.read()
    assert process.wait() == 141
    assert err == ""
    assert not partial_files(tmp_path)
    assert "exit code 141" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "out" / MANIFEST_NAME).exists()
