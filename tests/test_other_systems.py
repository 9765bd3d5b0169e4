"""The command runs on systems where Python has fewer functions and modules, such as macOS and Windows."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from architecture import MODULES
from fake_gpu import fake_gpu, move_to_gpu
from golden_files import read_golden
from images import make_image, save_image
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from restore_cli import atomic, system
from restore_cli.errors import OutputError
from restore_cli.jobs import paths
from restore_cli.jobs.discovery import Search
from restore_cli.jobs.naming import Naming, assign_outputs
from restore_cli.jobs.paths import Input, InputSpec
from restore_cli.models.inference import keep_biases
from restore_cli.models.load import COMPUTED_KEYS, build_network, drop_keys
from restore_cli.special_files import refuse_special_file
from restore_cli.system import ignores_case

ROOT = Path(__file__).parents[1]

OPEN_FILES = Path("/proc/self/fd")

HIDING = """
import os
import signal
import sys
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
for name in ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGXFSZ", "alarm", "pthread_sigmask", "setitimer"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in (
    "sched_getaffinity", "sched_setaffinity", "copy_file_range", "eventfd", "fdatasync", "getrandom", "memfd_create",
    "pidfd_open", "pipe2", "fork", "geteuid", "killpg", "mkfifo", "pread", "set_blocking", "O_CLOEXEC", "O_NONBLOCK",
    "posix_fadvise", "posix_fallocate", "splice", "O_DIRECT", "O_PATH", "O_TMPFILE",
):
    if hasattr(os, name):
        delattr(os, name)
"""
"""Python runs a sitecustomize module when it starts, also in worker processes."""


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_images_are_restored_without_functions_that_some_systems_lack(device: str, tmp_path: Path, x1: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    save_image(tmp_path / "in/a.png", make_image(20, 24))
    save_image(tmp_path / "in/b.png", make_image(20, 24, seed=1))
    command = [sys.executable, "-m", "restore_cli", "denoise", "--weights", str(x1), "in", "-o", "out"]
    given = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([*command, "--device", device], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png"]


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="this system does not list the open files of a process")
def test_files_are_written_and_swept_without_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The system refuses to remove and to rename an open file, as Windows does."""
    (tmp_path / ".restore-1-00000000.part").touch()
    monkeypatch.setattr(system, "HAS_UNIX_MODULES", False)
    monkeypatch.setattr(atomic, "locks_by_opening", lambda: True)
    for name in ("unlink", "replace"):
        monkeypatch.setattr(Path, name, refuse_open_files(getattr(Path, name)))
    with pytest.raises(ZeroDivisionError), atomic.atomic_write(tmp_path / "b"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == [".restore-1-00000000.part"]
    with atomic.atomic_write(tmp_path / "c"):
        atomic.sweep(tmp_path)  # leaves what is being written
    (tmp_path / "c").unlink()
    (tmp_path / ".restore-1-00000000.part").touch()
    with atomic.atomic_write(tmp_path / "a") as file:
        file.write(b"whole")
    atomic.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


def refuse_open_files(change: Callable[..., object]) -> Callable[..., object]:
    """Return a method of Path that raises PermissionError if this process has the file open."""

    def guarded(path: Path, *given: object) -> object:
        for link in OPEN_FILES.iterdir():
            with suppress(FileNotFoundError):  # the descriptor of iterdir itself
                if link.readlink() == path:
                    raise PermissionError(errno.EACCES, "the file is open", str(path))
        return change(path, *given)

    return guarded


def test_names_that_differ_in_case_are_one_output_where_the_disk_ignores_case(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inputs = [Input(f"{folder}/{name}.png", f"{name}.png", folder) for folder, name in (("x", "A"), ("y", "a"))]
    naming = Naming("denoise", "lite", 1, "out")
    assert len(assign_outputs(inputs, naming, str(tmp_path)).pairs) == 2
    monkeypatch.setattr(paths, "ignores_case", lambda folder: True)
    assignment = assign_outputs(inputs, naming, str(tmp_path))
    assert [(item.path, path) for item, path, _ in assignment.refused] == [("y/a.png", f"{tmp_path}/a.png")]


def test_the_tree_of_a_folder_is_kept_where_paths_have_backslashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: os.path and os.scandir join with a backslash."""
    save_image(tmp_path / "in/sub/a.png", make_image(8, 8))
    join, scandir = os.path.join, os.scandir

    @contextmanager
    def list_entries(folder: str) -> Iterator[Iterator[SimpleNamespace]]:
        with scandir(folder) as entries:
            yield (
                SimpleNamespace(
                    name=found.name,
                    path=f"{folder}\\{found.name}",
                    is_dir=found.is_dir,
                    is_symlink=found.is_symlink,
                    stat=found.stat,
                )
                for found in entries
            )

    monkeypatch.setattr(os.path, "join", lambda *parts: join(*parts).replace("/", "\\"))
    monkeypatch.setattr(os, "scandir", list_entries)
    monkeypatch.setattr(sys, "platform", "win32")
    (group,) = Search(InputSpec((str(tmp_path / "in"),)), [".png"]).find_groups()
    (pair,) = assign_outputs(group, Naming("denoise", "lite", 1, "out/"), "out/").pairs
    assert pair[0].path == f"{tmp_path}/in/sub/a.png"
    assert pair[1] == "out/sub/a.png"
    assert system.use_slashes(r"s3://bucket/a\b") == r"s3://bucket/a\b"


def test_this_disk_is_asked_whether_it_ignores_case(tmp_path: Path) -> None:
    (tmp_path / "Name").touch()
    assert ignores_case(str(tmp_path / "missing")) == (tmp_path / "nAME").exists()


@pytest.mark.parametrize("name", ["nul", "CON.png", "aux.tar.gz", "com1.jpg", "LPT9"])
def test_names_that_windows_takes_for_devices_are_refused_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_special_file(Path(name))
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OutputError, match="is a device"):
        refuse_special_file(Path(name))
    refuse_special_file(Path(f"my {name}"))


def test_all_tests_are_collected_without_what_some_systems_lack(tmp_path: Path) -> None:
    """Elsewhere, a test file that needs more than is there would end the whole run of the tests."""
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider"]
    given = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


LACKING_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
LACKING_NAMES = """
os.fork os.forkpty os.getpgid os.killpg os.mkfifo os.nice os.pidfd_open os.posix_fadvise os.sched_getaffinity
os.sched_setaffinity os.setsid signal.SIGALRM signal.SIGCHLD signal.SIGCONT signal.SIGHUP signal.SIGKILL signal.SIGPIPE
signal.SIGQUIT signal.SIGSTOP signal.SIGUSR1 signal.SIGUSR2 signal.alarm signal.pause signal.pthread_kill
signal.pthread_sigmask signal.setitimer signal.sigwait
"""


def test_only_one_module_uses_what_some_systems_lack() -> None:
    names = set(LACKING_NAMES.split())
    imports = {module for module, path in MODULES.items() if LACKING_MODULES & find_imported_modules(path)}
    uses = {module for module, path in MODULES.items() if names & find_attributes(path)}
    assert (imports, uses) == ({"system"}, {"system"})


def find_attributes(path: Path) -> set[str]:
    """Return what a file reads of names that it imports, such as `os.name`."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)]
    return {f"{node.value.id}.{node.attr}" for node in nodes if isinstance(node.value, ast.Name)}


def find_imported_modules(path: Path) -> set[str]:
    """Return the top-level names of all modules that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["swinir_classical_x4", "swinir_color_jpeg", "hat_x4", "restormer_withbias", "emt_x2"])
def test_networks_run_on_mps_and_use_no_float64_there(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apple's GPUs have no float64. The tensors have shapes and dtypes, but no values."""
    mps = torch.device("mps:0")
    architecture, ours, weights, _, _ = read_golden(name)
    net = build_network(architecture, ours, drop_keys(weights, COMPUTED_KEYS), Path(name), torch.device("cpu"), dtype)
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **given: torch.empty_like(q))
    side = 2 * net.contract.tile_multiple
    keep_biases(net.module)
    with fake_gpu() as recorded:
        move_to_gpu(net.module, mps)
        net.device = mps
        out = net(torch.empty(1, net.contract.channels, side, side))
    assert (out.device, out.dtype) == (mps, torch.float32)
    tensors = [leaf for _, given in recorded.calls for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    assert mps in {tensor.device for tensor in tensors}
    assert torch.float64 not in {tensor.dtype for tensor in tensors}
