"""The commands that restore: images are written, and errors are one line with an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import Run
from images import make_image, save_image
from PIL import Image

from restore_cli.jobs.manifest import MANIFEST_NAME


def size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


def test_sr_writes_beside_the_input(restore: Run, x2: Path) -> None:
    save_image(Path("in.png"), make_image(20, 30))
    ran = restore("sr", "--weights", x2, "in.png")
    assert (ran.code, ran.err) == (0, "")
    assert "in.png → in_sr2.png" in ran.out
    assert size("in_sr2.png") == (60, 40)


def test_sr_writes_lossy_inputs_as_png(restore: Run, x2: Path) -> None:
    save_image(Path("in.jpg"), make_image(20, 30))
    assert restore("sr", "--weights", x2, "in.jpg").code == 0
    assert size("in_sr2.png") == (60, 40)


@pytest.mark.parametrize("task", ["denoise", "deblur", "derain", "dejpeg"])
def test_other_tasks_keep_size_and_format(task: str, restore: Run, x1: Path) -> None:
    save_image(Path("in.jpg"), make_image(20, 30))
    assert restore(task, "--weights", x1, "in.jpg").code == 0
    assert size(f"in_{task}.jpg") == (30, 20)


def test_a_folder_keeps_its_tree(restore: Run, x1: Path) -> None:
    for name in ("a.png", "sub/b.webp", "sub/deep/c.tif", ".hidden/d.png", ".e.png"):
        save_image(Path("photos", name), make_image(9, 9))
    Path("photos/notes.txt").write_text("no image")
    ran = restore("denoise", "--weights", x1, "photos", "-o", "clean/")
    assert ran.code == 0
    found = sorted(str(path.relative_to("clean")) for path in Path("clean").rglob("*") if path.is_file())
    assert found == [MANIFEST_NAME, "a.png", "sub/b.webp", "sub/deep/c.tif"]


def test_inputs_of_one_stem_get_different_outputs(restore: Run, x2: Path) -> None:
    save_image(Path("in/a.jpg"), make_image(8, 8))
    save_image(Path("in/a.png"), make_image(10, 10))
    assert restore("sr", "--weights", x2, "in", "-o", "out").code == 0
    assert size("out/a.png") == (20, 20)
    assert size("out/a.jpg.png") == (16, 16)


def test_a_second_run_has_nothing_to_do(restore: Run, x1: Path) -> None:
    save_image(Path("photos/a.png"), make_image(8, 8))
    assert restore("denoise", "--weights", x1, "photos").code == 0
    before = Path("photos/a_denoise.png").stat().st_mtime_ns
    ran = restore("denoise", "--weights", x1, "photos")
    assert ran.code == 3
    assert "--overwrite" in ran.err
    assert Path("photos/a_denoise.png").stat().st_mtime_ns == before
    assert sorted(path.name for path in Path("photos").iterdir()) == [MANIFEST_NAME, "a.png", "a_denoise.png"]
    assert restore("denoise", "--weights", x1, "photos", "--overwrite").code == 0
    assert Path("photos/a_denoise.png").stat().st_mtime_ns != before


def test_templates(restore: Run, x2: Path) -> None:
    save_image(Path("a.png"), make_image(8, 8))
    assert restore("sr", "--weights", x2, "a.png", "-o", "out/{task}-{stem}-x{scale}-{model}.bmp").code == 0
    assert size("out/sr-a-x2-x2.bmp") == (16, 16)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-o", "out/{name}.png"], "{name} is none of"),
        (["-o", "{stem"], "not a template"),
        (["-o", "{stem!r}.png"], "write {stem} without a conversion or a format"),
        (["-o", "{stem:>20}.png"], "write {stem} without a conversion or a format"),
        (["-o", "{stem:{model}}.png"], "write {stem} without a conversion or a format"),
        (["-o", "{scale:03d}.png"], "write {scale} without a conversion or a format"),
        (["-o", "{stem[0]}.png"], "{stem[0]} is none of"),
        (["-o", "{stem.__class__}.png"], "{stem.__class__} is none of"),
        (["-o", "{}.png"], "{} is none of"),
        (["-o", "{0}.png"], "{0} is none of"),
        (["-o", "in.png"], "which is an input"),
        (["-s", "4"], "enlarges ×2, not ×4"),
        (["--device", "gpu"], "expected auto, cpu"),
        (["--precision", "fp8"], "expected auto, fp32"),
        (["--tile", "-1"], "expected 0 or more"),
        (["--batch", "0"], "expected 1 or more"),
        (["--model", "hat"], "is a checkpoint of swinir, not of hat"),
        (["--variant", "real"], "--weights names a checkpoint file"),
    ],
)
def test_invalid_options_are_one_line(arguments: list[str], word: str, restore: Run, x2: Path) -> None:
    save_image(Path("in.png"), make_image(8, 8))
    before = Path("in.png").read_bytes()
    ran = restore("sr", "--weights", x2, "in.png", *arguments)
    assert ran.code == 2
    assert word in one_line(ran.err)
    assert Path("in.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["sr", "in.png", "--model", "hatt"], 2, ["no model 'hatt'", "hat"]),
        (["sr", "in.png", "-s", "5"], 2, ["×5"]),
        (["sr", "in.png", "--model", "emt", "-s", "8"], 2, ["emt", "×8"]),
        (["sr", "in.png", "--model", "hat", "--variant", "huge"], 2, ["huge", "large"]),
        (["denoise", "in.png", "--noise", "26"], 2, ["26", "25"]),
        (["deblur", "in.png", "--model", "emt"], 2, ["emt", "(try: restore deblur --model restormer)"]),
        (["derain", "in.png", "--model", "lite"], 2, ["lite", "only for", "(try: restore derain --model restormer)"]),
        (["dejpeg", "in.png", "--quality", "0"], 2, ["quality"]),
        (["sr", "in.png", "--model", "hat"], 4, ["hat-x4", "HF_HUB_OFFLINE"]),
        (["sr", "in.png", "--model", "hat", "--offline"], 4, ["hat-x4", "--offline", "restore models pull hat-x4"]),
        (["sr", "in.png", "--weights", "none.pth"], 4, ["none.pth: no such"]),
        (["sr", "empty"], 3, ["no image in empty"]),
        (["sr", "in.png", "--catalogue", "none.toml"], 2, ["none.toml"]),
    ],
)
def test_errors_before_the_first_image_have_their_exit_codes(
    arguments: list[str], code: int, words: list[str], restore: Run
) -> None:
    save_image(Path("in.png"), make_image(8, 8))
    Path("empty").mkdir()
    ran = restore(*arguments)
    assert ran.code == code, ran.err
    assert all(word in one_line(ran.err) for word in words), ran.err


def test_bad_images_are_named_and_the_others_restored(restore: Run, x1: Path) -> None:
    save_image(Path("photos/a.png"), make_image(8, 8))
    Path("photos/b.png").write_text("text")
    Path("photos/c.jpg").write_bytes(save_image(Path("whole.jpg"), make_image(80, 80)).read_bytes()[:900])
    Path("photos/d.png").write_bytes(b"")
    save_image(Path("photos/e.png"), make_image(8, 8))
    Image.fromarray(np.zeros((8, 8), np.uint16)).save("photos/f.png")
    Image.new("CMYK", (8, 8)).save("photos/g.jpg")
    ran = restore("denoise", "--weights", x1, "photos", "-o", "out")
    assert ran.code == 1
    lines = ran.err.splitlines()
    reasons = {"b.png": "not an image", "c.jpg": "damaged", "d.png": "empty"}
    for name, word in reasons.items():
        assert any(name in line and word in line for line in lines), (name, ran.err)
    assert lines[-1].startswith("7 images: 4 done, 0 skipped, 3 failed; ")
    assert sorted(path.name for path in Path("out").iterdir()) == [MANIFEST_NAME, "a.png", "e.png", "f.png", "g.jpg"]


def test_a_missing_file_is_one_line(restore: Run, x1: Path) -> None:
    ran = restore("denoise", "--weights", x1, "none.png")
    assert ran.code == 1
    assert "none.png: no such file" in one_line(ran.err)


def test_a_corrupt_checkpoint_is_one_line(restore: Run) -> None:
    save_image(Path("in.png"), make_image(8, 8))
    Path("net.pth").write_bytes(b"\x80\x02garbage")
    ran = restore("sr", "--weights", "net.pth", "in.png")
    assert ran.code == 4
    assert "net.pth" in one_line(ran.err)


def test_an_output_that_cannot_be_written_is_one_line(restore: Run, x1: Path) -> None:
    save_image(Path("in.png"), make_image(8, 8))
    Path("file").write_text("in the way")
    ran = restore("denoise", "--weights", x1, "in.png", "-o", "file/out.png")
    assert ran.code == 1
    assert "file" in one_line(ran.err)


def test_gray_images_and_alpha_channels_are_kept(restore: Run, x2: Path) -> None:
    save_image(Path("gray.png"), make_image(8, 8, 1))
    rgba = np.concatenate([make_image(8, 8), make_image(8, 8, 1, seed=3)], 2)
    save_image(Path("alpha.png"), rgba)
    assert restore("sr", "--weights", x2, "gray.png", "alpha.png").code == 0
    with Image.open("gray_sr2.png") as gray, Image.open("alpha_sr2.png") as alpha:
        assert (gray.mode, alpha.mode, alpha.size) == ("L", "RGBA", (16, 16))


def test_long_names_are_not_cut(restore: Run, x2: Path) -> None:
    save_image(Path("photo [final] [b].png"), make_image(8, 8))
    ran = restore("sr", "--weights", x2, "photo [final] [b].png")
    assert "photo [final] [b].png → photo [final] [b]_sr2.png" in ran.out


def test_quiet_prints_nothing(restore: Run, x2: Path) -> None:
    save_image(Path("in.png"), make_image(8, 8))
    ran = restore("sr", "--weights", x2, "in.png", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_tracebacks_are_shown_only_for_debugging(restore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_DEBUG", "1")
    save_image(Path("in.png"), make_image(8, 8))
    with pytest.raises(Exception, match="no model 'x'"):
        restore("sr", "--model", "x", "in.png")


def test_help_and_version_import_no_slow_module() -> None:
    code = "import sys; sys.argv = ['restore', {!r}]\nfrom restore_cli.cli.main import main\n" + (
        "try: main()\nexcept SystemExit as e: assert not e.code\n"
        "assert not {{'torch', 'numpy', 'PIL', 'pyvips'}} & set(sys.modules)"
    )
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code.format(option)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["denoise", "--nosuch"], "No such option: --nosuch (Possible options: --noise)"),
        (["denoise", "a.png", "--tile", "wide"], "Invalid value for '--tile'"),
        (["models", "info"], "Missing argument 'NAME'"),
        (["denos", "a.png"], "Did you mean 'denoise'?"),
    ],
)
def test_an_invalid_command_line_is_one_line(words: list[str], said: str, restore: Run) -> None:
    ran = restore(*words)
    assert (ran.code, ran.out) == (2, "")
    assert said in one_line(ran.err)
    assert "--help)" in ran.err


def test_no_arguments_show_the_help(restore: Run) -> None:
    ran = restore()
    assert ran.code == 2
    assert "Usage: restore" in ran.out + ran.err


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the compiler's own
def test_the_compiler_is_tried_and_the_image_does_not_change(restore: Run, x2: Path) -> None:
    save_image(Path("in.png"), make_image(60, 70))
    ran = restore("sr", "--weights", x2, "in.png", "-o", "compiled.png", "--tile", 32, "--compile")
    assert ran.code == 0
    assert one_line(ran.err).startswith("--compile: ")
    assert restore("sr", "--weights", x2, "in.png", "-o", "plain.png", "--tile", 32).code == 0
    pictures = [np.asarray(Image.open(name)).astype(int) for name in ("compiled.png", "plain.png")]
    assert abs(pictures[0] - pictures[1]).max() <= 1


def test_an_image_of_one_tile_is_not_compiled_for(restore: Run, x2: Path) -> None:
    save_image(Path("in.png"), make_image(20, 30))
    ran = restore("sr", "--weights", x2, "in.png", "--compile")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("name", ["a:b:c:smile:.png", "[red]a[bold].png", "a\\[b].png", "100%.png", "{a}.png"])
def test_names_are_shown_as_they_are(name: str, restore: Run, x1: Path) -> None:
    missing = restore("denoise", "--weights", x1, name)
    assert missing.err.startswith("restore: ")
    assert name in missing.err
    save_image(Path("in") / name, make_image(12, 12))
    ran = restore("denoise", "--weights", x1, "in", "-o", "out")
    assert ran.out.startswith(f"in/{name} → out/{name}  (")
    again = restore("denoise", "--weights", x1, f"in/{name}", "-o", "out/")
    assert again.err.startswith(f"in/{name} → out/{name}: done before")
    measured = restore("eval", "--restored", "out", "--reference", "in")
    assert measured.out.splitlines()[1].startswith(name)


BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize("odd", ["\x1b[31m\n", "\u2028\x85", BIDIRECTIONAL])
def test_control_characters_of_names_are_escaped_in_lines_tables_and_logs(odd: str, restore: Run, x1: Path) -> None:
    shown = "a" + repr(odd)[1:-1]
    save_image(Path(f"in/a{odd}.png"), make_image(12, 12))
    Path(f"in/a{odd}.jpg").write_bytes(b"no image")
    ran = restore("denoise", "--weights", x1, "in", "-o", "out", "--log", "run.log")
    assert ran.code == 1
    assert ran.out.startswith(f"in/{shown}.png → out/{shown}.png  (")
    assert f"restore: in/{shown}.jpg" in ran.err
    assert {shown in line and odd not in line for line in Path("run.log").read_text().split("\n") if "/a" in line} == {
        True
    }
    missing = restore("denoise", "--weights", x1, f"b{odd}.png")
    assert f"b{shown[1:]}.png" in missing.err
    measured = restore("eval", "--restored", "out", "--reference", "out")
    assert measured.code == 0
    assert measured.out.split("\n")[1].startswith(shown[:9])
    assert odd not in measured.out
    told = restore("denoise", "--weights", x1, f"in/a{odd}.png", "-o", "json/", "--json")
    assert json.loads(told.out.split("\n")[0])["input"] == f"in/a{odd}.png"
