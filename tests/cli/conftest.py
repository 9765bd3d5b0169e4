"""The command as a person runs it, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Ran, Run
from pictures import checkpoint

from restore_cli.cli.main import main


@pytest.fixture
def restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`restore("sr", "in.png")` in an empty folder, with empty caches and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("RESTORE_WEIGHTS_TOML", raising=False)
    monkeypatch.delenv("RESTORE_DEBUG", raising=False)

    def run(*argv: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["restore", *map(str, argv)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture(scope="session")
def x2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that enlarges twice."""
    return checkpoint(tmp_path_factory.mktemp("weights") / "x2.safetensors", "swinir_lightweight_x2")


@pytest.fixture(scope="session")
def x1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that enlarges nothing."""
    return checkpoint(tmp_path_factory.mktemp("weights") / "x1.safetensors", "swinir_color_denoise")
