"""Random command lines from the program's own options, with odd values, end in a documented exit code and no traceback.

A command writes only where its command line says. It changes no input and leaves no temporary file.
"""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_lines import COMMANDS
from command_server import Server, fill

from restore_cli.jobs.naming import name_sheet

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
EXIT_CODES = REFERENCE.split("\n## Exit codes")[1].split("\n## ")[0]
CODES = {int(code) for code in re.findall(r"^\| (\d+) \|", EXIT_CODES, re.MULTILINE)} - {130, 141}
"""The documented ones, without those of an interrupted command and of a closed standard output."""
GROUPS = 6

NASTY = [
    "nan", "inf", "-inf", "1e400", "1_0", "-1", "0", "99999999999", "1/0", "2/1", "0x", "-5x", "1,2,3,4", "0,0,0,0",
    "", " ", "-", "*", "~", "{", "%s", "{stem!r}", "../..", "/dev/null", "a\nb", "\x1b[31m", "\u202e", "\udcff",
]  # fmt: skip
ORDINARY = [
    "in.png", "photos", "out/", "list.txt", "weights.safetensors", "auto", "lite", "sr", "denoise", "cpu", "fp32",
    "bf16", "png", "srgb", "drop", "none", "{stem}", "1", "2", "8", "16", "25", "1/2", "0.5x", "7x9", "1.5G",
]  # fmt: skip
LEFT_OUT = {
    "--watch": "runs until it is stopped",
    "--compile": "takes minutes",
    "--cluster": "starts a cluster",
    "--install-completion": "writes into the home folder of the user",
}


@dataclass(frozen=True)
class Parameter:
    """An option of a command, or an argument, whose name is empty."""

    name: str
    flag: bool = False


def parameters(param: Any) -> list[Parameter]:  # noqa: ANN401  # typer's own, which it does not name
    """Return one for each name of an option."""
    if param.param_type_name == "argument":
        return [Parameter("")]
    return [
        Parameter(name, bool(param.is_flag)) for name in (*param.opts, *param.secondary_opts) if name not in LEFT_OUT
    ]


TABLE = {
    name.removeprefix("restore").strip(): [one for param in command.params for one in parameters(param)]
    for name, command in COMMANDS.items()
}
TASKS = ("sr", "denoise", "deblur", "derain", "dejpeg")
USUAL = {
    **{task: (["in.png"], {"--weights": "weights.safetensors", "--output": "out/"}) for task in TASKS},
    "eval": (["denoise"], {"--weights": "weights.safetensors", "--reference": "photos", "--sigma": "25"}),
    "compare": (["in.png", "photos/1.png"], {"--output": "both.png"}),
}
"""Arguments and options with which a command works."""

EVERY = [(name, one) for name, taken in TABLE.items() for one in taken]
"""Each option and argument of each command. Each one begins a command line of its own."""


def value(chance: random.Random, nasty: float = 0.5) -> str:
    """Return a value: a nasty one with the probability `nasty`."""
    return chance.choice(NASTY if chance.random() < nasty else ORDINARY)


def words_for(one: Parameter, chance: random.Random, nasty: float = 0.5) -> list[str]:
    """Return the words of an option, written in one of the two ways, or the value of an argument."""
    text = value(chance, nasty)
    if one.flag or not one.name:
        return [one.name or text]
    return [f"{one.name}={text}"] if one.name.startswith("--") and chance.random() < 0.5 else [one.name, text]


def command_line(name: str, first: Parameter, chance: random.Random) -> list[str]:
    """Return `name` with `first`, up to five other options, and most of the usual arguments, in random order."""
    options = [one for one in TABLE[name] if one.name and one != first]
    some = chance.sample(options, min(len(options), chance.choice((0, 0, 1, 2, 5))))
    parts = [words_for(first, chance, 0.9), *(words_for(one, chance) for one in some)]
    if name in USUAL:
        arguments, usual = USUAL[name]
        arguments = ["photos"] if name in TASKS and chance.random() < 0.3 else arguments
        parts += [[word] for word in arguments if first.name or chance.random() < 0.5]
        given = {one.name.replace("-o", "--output") for one in (first, *some)}
        parts += [[option, text] for option, text in usual.items() if option not in given and chance.random() < 0.85]
    chance.shuffle(parts)
    return [*name.split(), *(word for part in parts for word in part)]


def contents(box: Path) -> dict[Path, bytes]:
    """Return every file that a command could have written or changed."""
    return {path: path.read_bytes() for path in box.rglob("*") if path.is_file() and path.parent != box}


def places(arguments: list[str], work: Path) -> list[Path]:
    """Return the files and folders that a command line names for its results, or those of the inputs."""
    words = "\0".join(arguments)
    outputs = re.findall(r"(?:^|\0)(?:--output[\0=]|-o\0)([^\0]*)", words)
    folders = [text.partition("{")[0].rpartition("/")[0] or "." for text in outputs if "{" in text]
    files = re.findall(r"(?:^|\0)(?:--log|--csv)[\0=]([^\0]*)", words)
    named = [*outputs, *map(name_sheet, outputs), *folders, *files, *([] if outputs else [".", "photos"])]
    return [(work / text).resolve() for text in named if text]


def test_the_law_covers_at_least_200_command_lines() -> None:
    assert len(EVERY) >= 200


@pytest.mark.needs("os.fork")
@pytest.mark.parametrize("group", range(GROUPS))
def test_random_command_lines(group: int, server: Server, x1: Path, x2: Path, tmp_path: Path) -> None:
    chance, found = random.Random(group), []
    for number, (name, first) in enumerate(EVERY[group::GROUPS]):
        arguments, box = command_line(name, first, chance), tmp_path / str(number)
        work = fill(box, x2 if arguments[:1] == ["sr"] else x1)
        before = contents(box)
        found += [(arguments, what) for what in violations(server.run(arguments, box), arguments, work, before)]
        shutil.rmtree(box)
    assert found == []


def violations(ran: dict[str, Any], arguments: list[str], work: Path, before: dict[Path, bytes]) -> list[str]:
    """Return what a command did that no command may do."""
    box = work.parents[2]
    after = contents(box)
    new = [path for path in after if path not in before]
    allowed = [*places(arguments, work), box / "cache"]
    found = {
        "no message": ran["code"] != 0 and not ran["err"] + ran["out"],
        f"code {ran['code']}": ran["code"] not in CODES,
        "a traceback": "Traceback" in ran["err"],
        "a raw control character": re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", ran["out"] + ran["err"]),
        f"changes elsewhere: {ran['outside']}": ran["outside"],
        "another input": {path: after.get(path) for path in before} != before,
        "a temporary file": [path for path in new if ".part" in path.name or path.is_relative_to(box / "tmp")],
        f"files elsewhere: {new}": [path for path in new if not any(map(path.is_relative_to, allowed))],
    }
    return [f"{what}: {ran['err'][-2000:]}" for what, is_so in found.items() if is_so]
