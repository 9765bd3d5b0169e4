"""The install lines of the README, each in an empty environment, from a copy of this checkout and without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import uv
from images import make_image, save_image

from restore_cli.errors import INSTALL_EXTRA

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = sorted({line.strip() for line in re.findall(r"(?:\b(?:uv tool|pip) install|`make demo)[^`\n#]*", README)})
# pip is not imported here: setuptools would hide its distutils in this process, which PyTorch's compiler needs.
SITE = {str(distribution(name).locate_file("")) for name in ("torch", "hatchling", "pip")}
SAID = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "constraints.txt", "Makefile")),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("restore_cli/**/*.py"),
    )
}


def made_environment(folder: Path) -> dict[str, str]:
    """Make an empty environment and return its variables. Dependencies and the build backend are those of this test."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (folder / "bin").mkdir()
    (folder / "bin/uv").symlink_to(uv.find_uv_bin())
    (folder / "venv/bin/pip").write_text(f'#!/bin/sh\nexec "{folder}/venv/bin/python" -m pip "$@"\n')
    (folder / "venv/bin/pip").chmod(0o755)
    names = [re.split(r"[^\w-]", requirement)[0] for requirement in PROJECT["dependencies"]]
    (folder / "none.txt").write_text("".join(f"{name}; python_version < '0'\n" for name in names))
    return {
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "PATH": os.pathsep.join(map(str, (folder / "venv/bin", folder / "bin", "/usr/bin", "/bin"))),
        "PYTHONPATH": os.pathsep.join(SITE),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip inverts this variable: there is no isolation
        "PIP_ROOT_USER_ACTION": "ignore",
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_NO_BUILD_ISOLATION": "1",
        "UV_OVERRIDE": str(folder / "none.txt"),
        "UV_PYTHON": str(folder / "venv/bin/python"),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_CACHE_DIR": str(folder / "uv"),
        "UV_TOOL_DIR": str(folder / "tools"),
        "UV_TOOL_BIN_DIR": str(folder / "bin"),
    }


def copied_checkout(folder: Path) -> Path:
    """Copy what git would clone, without tests."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "dist", "build", "runs", "*_sr4.png")
    return Path(shutil.copytree(ROOT, folder / "checkout", ignore=ignored))


def test_the_readme_says_how_to_install() -> None:
    assert {"uv tool install .", "pip install .", "pip install '.[heic]'", "pip install '.[cluster]'"} <= set(LINES)
    assert "`make demo" in LINES


@pytest.mark.timeout(900)
@pytest.mark.parametrize("line", [line.removeprefix("`") for line in LINES])
def test_an_install_line_of_the_readme_gives_the_command(line: str, tmp_path: Path) -> None:
    checkout, environment = copied_checkout(tmp_path), made_environment(tmp_path)
    ran = subprocess.run(["bash", "-c", line], cwd=checkout, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "does not provide the extra" not in ran.stderr
    if line == "make demo":
        environment["PATH"] = f"{checkout}/.venv/bin{os.pathsep}{environment['PATH']}"
        assert (checkout / "examples/cat_sr4.png").exists()
    else:
        shutil.rmtree(checkout)  # the command no longer needs it
    save_image(tmp_path / "work/in.png", make_image(9, 9))
    command = ["bash", "-c", "restore --version && restore denoise --model lite in.png && restore sr in.png"]
    used = subprocess.run(command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr
    assert used.stdout.startswith(f"restore {PROJECT['version']}\nin.png → in_denoise.png")
    assert "in.png → in_sr4.png  (emt-x4, 36×36 px" in used.stdout


def test_a_wheel_carries_the_checkpoints_and_their_licences(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(command, cwd=copied_checkout(tmp_path), check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    for file in (ROOT / "restore_cli/weights/bundled").iterdir():
        assert parts[f"weights/bundled/{file.name}"] == file.read_bytes()
    licence = (ROOT / "restore_cli/weights/bundled/LICENSE-EMT").read_bytes()
    assert parts["licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert parts["licenses/restore_cli/weights/bundled/LICENSE-EMT"] == licence
    assert b"License-Expression: Apache-2.0 AND MIT\n" in parts["METADATA"]


@pytest.mark.parametrize("path", SAID, ids=str)
def test_nothing_is_installed_under_a_name_that_is_not_registered(path: Path) -> None:
    for line in re.findall(r"(?:uv tool|pipx?|uv pip) install[^\n`]*", SAID[path]):
        assert PROJECT["name"] not in line, line
        assert set(re.findall(r"\[(\w+)\]", line)) <= {*PROJECT["optional-dependencies"], "client", "default"}, line


def test_one_constant_holds_the_hint_for_extras() -> None:
    assert INSTALL_EXTRA.startswith("pip install '.[{}]'")
    code = {path: text for path, text in SAID.items() if path.suffix == ".py"}
    assert [str(path) for path, text in code.items() if "pip install" in text] == ["restore_cli/errors.py"]
    extras = {name for text in code.values() for name in re.findall(r'INSTALL_EXTRA\.format\("(\w+)"\)', text)}
    assert extras == {"cluster", "heic", "jxl", "s3", "spandrel"}
    assert extras <= set(PROJECT["optional-dependencies"])
