"""The pages agree with the program: options, exit codes, defaults, command lines and links."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from command_lines import COMMANDS, check_command_lines, find_code_blocks
from images import make_checkpoint, make_image
from PIL import Image

import restore_cli
from restore_cli.cli.console import PipeClosed
from restore_cli.cli.options import OF_TASK
from restore_cli.cli.report import result_to_json, stats_to_json
from restore_cli.cli.run_stats import RunStats
from restore_cli.errors import RestoreError
from restore_cli.jobs.types import Result
from restore_cli.models import contracts, detect
from restore_cli.models.inference import optimize
from restore_cli.models.load import load_entry
from restore_cli.models.network import ARCHITECTURES, Network
from restore_cli.weights.catalogue import Request, read_catalogue
from restore_cli.weights.entry import TASKS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
OPTION = r"(?<![\w-])(--[a-z][a-z-]*|-[a-z0])(?![\w-])"


def split_sections(text: str, mark: str) -> dict[str, str]:
    """Return the text under each heading of a level, by the heading."""
    parts = re.split(rf"^{mark} (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def read_section(name: str) -> str:
    """Return the section of docs/cli.md on a command, without the commands that have a heading below it."""
    for mark in ("##", "###"):
        for heading, text in split_sections(CLI, mark).items():
            if f"`{name}`" in heading.split(", "):
                return re.split(r"^### `", re.split(r"^## ", text, flags=re.MULTILINE)[0], flags=re.MULTILINE)[0]
    raise AssertionError(f"docs/cli.md has no heading for {name}")


def list_options(name: str) -> dict[str, Any]:
    """Return the options of a command except --help, by each of their names."""
    named = [param for param in COMMANDS[name].params if param.param_type_name == "option"]
    return {name: param for param in named for name in (*param.opts, *param.secondary_opts)}


def read_option_rows(text: str) -> dict[str, str]:
    """Return the options in the first column of the tables of a text, each with the second column."""
    found = re.findall(r"^\| (`-.*?) \| (.*) \|$", text, re.MULTILINE)
    return {name: meaning for cell, meaning in found for name in re.findall(r"`(-[^`]*)`", cell)}


def find_inline_code(text: str) -> list[str]:
    """Return the options and the command lines of restore between backticks."""
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", outside)]
    return [span for span in found if re.match("-|restore ", span)]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_cli_page_names_the_options_of_each_command_and_no_others(name: str) -> None:
    listed = {
        option
        for span in [*find_inline_code(read_section(name)), *find_code_blocks(read_section(name))]
        for option in re.findall(OPTION, span)
    }
    siblings = [f"restore {task}" for task in TASKS] if name.split()[-1] in TASKS else [name]
    known = {option for sibling in siblings for option in list_options(sibling)}
    others = {"--help", "-h"} if name == "restore" else set()
    assert listed == known | others


@pytest.mark.parametrize("name", [*(f"restore {task}" for task in TASKS), "restore eval"])
def test_cli_page_has_the_groups_of_the_help_page(name: str) -> None:
    found = {title: set(re.findall(r"`(--[\w-]+)`", re.split(r"^## ", text, flags=re.MULTILINE)[0]))
             for title, text in split_sections(read_section(name), "###").items()}  # fmt: skip
    for option, param in list_options(name).items():
        if option.startswith("--"):
            assert option in found[param.rich_help_panel]
    panels = {param.rich_help_panel for param in list_options(name).values()}
    assert set(found) == panels


def test_cli_page_says_which_options_belong_to_one_task() -> None:
    for option, meaning in read_option_rows(read_section("restore sr")).items():
        task = OF_TASK.get(option.lstrip("-"))
        assert meaning.startswith(f"`{task}` only:") == (task is not None), option


@pytest.mark.parametrize("name", list(COMMANDS))
def test_cli_page_names_each_argument(name: str) -> None:
    for param in COMMANDS[name].params:
        assert param.param_type_name == "option" or f"{param.metavar}`" in read_section(name)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    assert COMMANDS[name].help
    for param in COMMANDS[name].params:
        assert getattr(param, "help", None), f"{name}: {param.name}"


def test_cli_page_lists_the_families_of_each_task() -> None:
    catalogue = read_catalogue()
    for task, line in re.findall(r"^\| `restore (\w+)` \|(.*)\|$", CLI, re.MULTILINE):
        others = [entry.model for entry in catalogue.entries if entry.task == task]
        assert re.findall(r"`(\w+)`", line.rsplit("|", 1)[1]) == [*dict.fromkeys([*catalogue.defaults[task], *others])]


def list_error_classes(kind: type[RestoreError]) -> Iterator[type[RestoreError]]:
    """Yield an error class and all its subclasses."""
    yield kind
    for lesser in kind.__subclasses__():
        yield from list_error_classes(lesser)


def test_cli_page_lists_the_exit_codes() -> None:
    listed = re.findall(r"^\| (\d+) \|", split_sections(CLI, "##")["Exit codes"], re.MULTILINE)
    assert {int(code) for code in listed} == {
        0,
        PipeClosed.code,
        *(kind.code for kind in list_error_classes(RestoreError)),
    }
    assert listed == sorted(listed, key=int)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_command_lines_can_be_parsed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in find_code_blocks(text):
        check_command_lines(block)
    for span in find_inline_code(text):
        name = next((name for name in reversed(COMMANDS) if f"{span} ".startswith(f"{name} ")), "restore")
        known = {*list_options(name), "--help"}
        assert name == "restore" or set(re.findall(OPTION, span)) <= known, span


def list_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_a_target(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in list_anchors(target), link


def test_pages_that_the_sources_name_exist() -> None:
    folders = ("restore_cli", "benchmarks", "training", "tests", "docs")
    files = [*ROOT.glob("*.*"), *(file for folder in folders for file in (ROOT / folder).rglob("*.*"))]
    for file in [file for file in files if file.suffix in (".py", ".md", ".toml")]:
        for path in re.findall(r"\b(?:docs|restore_cli/\w+|tests/\w+)/[\w./-]*\w", file.read_text(encoding="utf-8")):
            assert "espcn" in path or (ROOT / path).exists() or list(ROOT.glob(f"{path}-*")), f"{file.name}: {path}"


def test_the_models_in_readme_are_as_the_catalogue_and_the_measurements_say() -> None:
    catalogue = read_catalogue()
    pages = [ROOT / "docs/results.md", ROOT / "docs/performance.md", *ROOT.glob("docs/model-cards/*.md")]
    figures = re.findall(r"\d+\.\d+", "".join(page.read_text(encoding="utf-8") for page in pages))
    measured = {f"{float(figure):.{places}f}" for figure in figures for places in (1, 2)}
    table = re.findall(r"^\|[^|]*\| (`restore .*?) \| (.*?) ?\| (.*?) ?\| (.*) \|$", README, re.MULTILINE)
    assert {line.split()[1].strip("`") for line, *_ in table} == set(TASKS)
    for line, quality, seconds, download in table:
        task, *words = re.findall(r"`restore (.*?)`", line)[0].split()
        named = dict(zip(words[::2], words[1::2], strict=True))
        model, variant, noise_level = (named.get(f"--{name}") for name in ("model", "variant", "noise"))
        entry = catalogue.select(Request(task, model, variant, noise=noise_level))[0]
        assert download == ("–" if entry.bundled else f"{(entry.bytes or 0) / 1e6:.0f} MB"), line
        assert set(re.findall(r"\d+\.\d+", f"{quality} {seconds}")) <= measured, line


def test_each_decision_has_a_date_and_a_status_and_is_in_the_index() -> None:
    rows = []
    pages = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        head = re.match(
            r"# (\d{3}): (.+)\n\nDate: (\d{4}-\d\d-\d\d)\. Status: (accepted|superseded by (\d{3}))\.\n\n", text
        )
        assert head, page.name
        number, title, date, status, successor = head.groups()
        assert page.name.startswith(f"{number}-")
        assert successor is None or any(other.name.startswith(f"{successor}-") for other in pages)
        assert text.count("\n") <= 50, page.name
        rows.append(f"| [{number}]({page.name}) | {title} | {date} | {status} |")
    index = (ROOT / "docs/decisions/README.md").read_text(encoding="utf-8")
    assert [line for line in index.splitlines() if line.startswith("| [")] == rows


def test_the_batches_page_shows_the_keys_of_the_json_output() -> None:
    image, last = map(json.loads, find_code_blocks((ROOT / "docs/batches.md").read_text(encoding="utf-8"), ["json"]))
    assert list(image) == list(result_to_json(Result("in.png", "out.png", "done")))
    assert list(last["summary"]) == list(stats_to_json(RunStats()))
    assert list(last["summary"]["passed_over"]) == list(stats_to_json(RunStats())["passed_over"])


@pytest.fixture
def page_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the code of a page runs."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples/cat.png", tmp_path)
    return tmp_path


def test_the_code_of_the_library_page_runs(page_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = make_checkpoint(page_folder / "small.safetensors", "emt_x4")
    scope: dict[str, Any] = {}
    for block in find_code_blocks((ROOT / "docs/library.md").read_text(encoding="utf-8"), ["python"]):
        exec(block.replace('"emt-x4"', repr(str(small))), scope)
    with Image.open("cat_large.png") as large, Image.open("cat_sr4.png") as same:
        assert large.size == same.size == scope["written"].size == (896, 592)
    assert (scope["large_gray"].shape, scope["large_gray"].dtype) == ((592, 896), "float32")
    assert (scope["large_images"].shape, scope["top"]) == ((2, 3, 160, 240), 2400)
    *listed, contract, tiles, written_file, error = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [e.name for e in restore_cli.list_models("sr", 4)]
    assert (contract, tiles, written_file) == ("4 3", "2 tiles", "(896, 592) ()")
    assert error.endswith(" 2")


def test_a_checkpoint_is_added_as_its_page_says(page_folder: Path) -> None:
    page = (ROOT / "docs/adding-a-model.md").read_text(encoding="utf-8")
    saving, *_ = find_code_blocks(page, ["python"])
    exec(saving, {})
    command = [sys.executable, "-m", "restore_cli", "sr", "--weights", "mine.safetensors", "cat.png"]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open("cat_sr2.png") as enlarged:
        assert enlarged.size == (448, 296)
    (toml,) = find_code_blocks(page, ["toml"])
    (page_folder / "more.toml").write_text(toml, encoding="utf-8")
    entry = read_catalogue(page_folder / "more.toml").find_entry("mine-x2")
    assert entry.bytes == (page_folder / "mine.safetensors").stat().st_size
    load_entry(entry, page_folder / "mine.safetensors", torch.device("cpu"), torch.float32)


def test_an_architecture_is_added_as_its_page_says(page_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/adding-a-model.md").read_text(encoding="utf-8")
    _, module, contract, reader = find_code_blocks(page, ["python"])
    (page_folder / "espcn.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(page_folder)
    espcn: Any = importlib.import_module("espcn")
    config = espcn.ESPCNConfig(scale=2, dim=16)
    network = espcn.ESPCN(config).requires_grad_(False)
    scope = vars(contracts) | {"ESPCNConfig": espcn.ESPCNConfig}
    exec(contract, scope)
    monkeypatch.setitem(ARCHITECTURES, "espcn", (espcn.ESPCNConfig, espcn.ESPCN, scope["make_espcn_contract"]))
    scope = dict(vars(detect))
    exec(reader, scope)
    assert scope["read_espcn"](network.state_dict()) == asdict(config)
    optimize(network)
    model = Network(network, torch.device("cpu"), torch.float32)
    whole, tiled = (restore_cli.restore(model, make_image(90, 70), tile=tile) for tile in (0, 32))
    assert whole.shape == (180, 140, 3)
    assert np.abs(whole.astype(int) - tiled).max() <= 1
