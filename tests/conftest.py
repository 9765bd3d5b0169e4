"""Fixtures that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest
import torch
from command import CommandResult, Run
from command_server import Server
from huggingface_hub import constants
from hypothesis import HealthCheck, settings
from images import make_checkpoint
from s3_proxy import S3Proxy
from s3_store import CREDENTIALS, Store, make_store, start_s3_server
from systems import is_here

from restore_cli.cli.main import main

settings.register_profile("restore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("restore")  # a busy machine is no failure

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `needs` on a system that lacks one of the names: `needs("resource")`, `needs("os.fork")`."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if not is_here(name):
                pytest.skip(f"this system has no {name}")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests run in parallel processes. Each uses one core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the project: real checkpoints, benchmark images."""
    if not SHARED.is_dir():
        pytest.skip("reference data (../shared) is not here")
    return SHARED


@pytest.fixture
def restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`restore("sr", "in.png")` in an empty folder, with empty caches and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the hub's client has read its variables by now
    monkeypatch.delenv("RESTORE_WEIGHTS_TOML", raising=False)
    monkeypatch.delenv("RESTORE_DEBUG", raising=False)

    def run(*argv: object) -> CommandResult:
        monkeypatch.setattr("sys.argv", ["restore", *map(str, argv)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return CommandResult(code, out, err)

    return run


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A process that has loaded the program and runs command lines in forks."""
    server = Server()
    yield server
    server.process.communicate()


@pytest.fixture(scope="session")
def x2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint for ×2 super-resolution."""
    return make_checkpoint(tmp_path_factory.mktemp("weights") / "x2.safetensors", "swinir_lightweight_x2")


@pytest.fixture(scope="session")
def x1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint for denoising, which keeps the size."""
    return make_checkpoint(tmp_path_factory.mktemp("weights") / "x1.safetensors", "swinir_color_denoise")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[Popen[str], S3Proxy]]:
    """An S3 server, and a proxy in front of it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install '.[s3]'")
    with start_s3_server() as started:
        yield started


@pytest.fixture
def store(s3_server: tuple[Popen[str], S3Proxy], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket. Its server and its credentials are set in the environment, where s3fs finds them."""
    from s3fs import S3FileSystem

    process, proxy = s3_server
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": proxy.url}.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # of clients with other variables
    yield make_store(process, proxy)
    S3FileSystem.clear_instance_cache()
