"""`restore eval`: a table, JSON lines, a CSV file, and errors of one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command import Run
from images import make_image, save_image

from restore_cli.evaluation.degrade import imresize
from restore_cli.evaluation.metrics import psnr
from restore_cli.image.codec import encode
from restore_cli.image.picture import PEAK, Picture, Pixels, Samples


@pytest.fixture
def folders(restore: Run) -> None:
    """Make hr/ and lr/ with two images of ×2, one of them named [b]."""
    for name, seed in (("a", 0), ("[b]", 1)):
        whole = make_image(40, 48, seed=seed)
        save_image(Path(f"hr/{name}.png"), whole)
        save_image(Path(f"lr/{name}x2.png"), imresize(whole, 0.5))


@pytest.mark.usefixtures("folders")
def test_the_table_has_a_row_for_each_image_the_mean_and_the_baseline(restore: Run, x2: Path) -> None:
    ran = restore("eval", "sr", "--weights", x2, "--reference", "hr", "--input", "lr")
    assert (ran.code, ran.err) == (0, "")
    first, *rows = ran.out.splitlines()
    assert first.split() == ["image", "PSNR", "SSIM", "PSNR", "Y", "SSIM", "Y", "seconds"]
    assert [row.split()[0] for row in rows[:4]] == ["[b].png", "a.png", "mean", "baseline"]
    assert rows[4].startswith(f"{x2.name}  sha256 ")
    assert rows[5].endswith("s per megapixel of input")


@pytest.mark.usefixtures("folders")
def test_json_has_one_object_per_image_and_a_last_one(restore: Run, x2: Path) -> None:
    ran = restore("eval", "sr", "-s", 2, "--weights", x2, "--reference", "hr", "--json", "--tiles", "8,16")
    *rows, small, large, last = [json.loads(line) for line in ran.out.splitlines()]
    measures = ["psnr", "ssim", "psnr_y", "ssim_y"]
    assert [list(row) for row in rows] == [["image", *measures, "seconds"]] * 2
    assert list(last) == ["mean", "baseline", "checkpoint", "sha256"]
    assert list(last["mean"]) == [*measures, "seconds_per_megapixel"]
    assert list(last["baseline"]) == measures
    assert last["mean"]["psnr"] == pytest.approx((rows[0]["psnr"] + rows[1]["psnr"]) / 2)
    assert list(small) == ["tile", "cut", "psnr", "seam", "seam_untiled", "seam_relative"]
    assert [(tile["tile"], tile["cut"]) for tile in (small, large)] == [(8, 2), (16, 2)]


def test_strength_zero_measures_the_input(restore: Run, x1: Path) -> None:
    save_image(Path("HR/a.png"), make_image(24, 32))
    words = ("eval", "denoise", "--weights", x1, "--reference", "HR", "--noise", 25, "--json")
    lines = [restore(*words, "--strength", share).out.splitlines()[-1] for share in (0, 0.5, 1)]
    none, half, whole = (json.loads(line) for line in lines)
    assert half["mean"]["psnr"] not in (none["mean"]["psnr"], whole["mean"]["psnr"])
    assert none["mean"]["psnr"] == pytest.approx(none["baseline"]["psnr"], abs=0.01)
    assert whole["mean"]["psnr"] == json.loads(restore(*words).out.splitlines()[-1])["mean"]["psnr"]
    assert restore(*words, "--strength", 2).err == "restore: --strength 2: expected 0 to 1\n"


@pytest.mark.usefixtures("folders")
def test_csv_has_the_same_values_and_is_not_overwritten(restore: Run, x2: Path) -> None:
    asked = ["eval", "sr", "--weights", x2, "--reference", "hr", "--csv", "out.csv", "--json"]
    ran = restore(*asked)
    with Path("out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["[b].png", "a.png", "mean", "baseline"]
    said = [json.loads(line) for line in ran.out.splitlines()]
    assert [float(row["psnr"]) for row in rows[:2]] == [line["psnr"] for line in said[:2]]
    assert float(rows[2]["ssim_y"]) == said[2]["mean"]["ssim_y"]
    again = restore(*asked)
    assert (again.code, again.out) == (1, "")
    assert "out.csv: exists already (try: --overwrite)" in again.err
    assert restore(*asked, "--overwrite").code == 0
    before = Path("hr/a.png").read_bytes()
    other = restore("eval", "--restored", "hr", "--reference", "hr", "--csv", "hr/a.png", "--overwrite")
    assert (other.code, other.out) == (1, "")
    assert "--csv hr/a.png: exists already and is not a table of restore eval" in other.err
    assert Path("hr/a.png").read_bytes() == before


def test_two_folders_need_no_model(restore: Run) -> None:
    save_image(Path("hr/a.png"), make_image(30, 30))
    save_image(Path("out/a_sr4.png"), make_image(30, 30))
    save_image(Path("hr/b.png"), make_image(30, 30))
    save_image(Path("out/b.png"), np.clip(make_image(30, 30).astype(int) + 3, 0, 255).astype(np.uint8))
    ran = restore("eval", "--restored", "out", "--reference", "hr", "--border", 4)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[1].split() == ["a.png", "∞", "1.0000", "∞", "1.0000"]
    said = [
        json.loads(line)
        for line in restore("eval", "--restored", "out", "--reference", "hr", "--json").out.split("\n")[:-1]
    ]
    assert said[0] == {"image": "a.png", "psnr": None, "ssim": 1, "psnr_y": None, "ssim_y": 1}
    assert said[-1]["mean"]["psnr"] is None
    assert (said[-1]["baseline"], said[-1]["checkpoint"], said[-1]["sha256"]) == (None, None, None)


def save_as(kind: str, path: str, pixels: Pixels) -> None:
    """Write a TIFF of this sample type whose values equal the same 8-bit values."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    samples: Samples = pixels / np.float32(255) if kind == "float32" else pixels.astype(kind)
    encode(Picture(samples * 257 if kind == "uint16" else samples), Path(path))


def lines(out: str) -> list[dict[str, object]]:
    """Return the JSON lines without the times, which differ between runs."""
    rows = [json.loads(line) for line in out.splitlines()]
    for row in [*rows, *(row.get("mean", {}) for row in rows)]:
        row.pop("seconds", None), row.pop("seconds_per_megapixel", None)
    return rows


def test_results_and_references_of_any_depth_measure_the_same(restore: Run) -> None:
    whole, result = make_image(24, 28), make_image(24, 28, seed=1)
    for kind in PEAK:
        save_as(kind, f"hr-{kind}/a.tif", whole)
        save_as(kind, f"out-{kind}/a.tif", result)
    pairs = [(out, hr) for out in PEAK for hr in PEAK]
    ran = [restore("eval", "--restored", f"out-{out}", "--reference", f"hr-{hr}", "--json") for out, hr in pairs]
    assert {(each.code, each.out, each.err) for each in ran} == {(0, ran[0].out, "")}
    assert lines(ran[0].out)[0]["psnr"] == psnr(result, whole)


@pytest.mark.parametrize("task", ["sr", "denoise", "dejpeg"])
def test_references_of_any_depth_are_degraded_the_same(task: str, restore: Run, x1: Path, x2: Path) -> None:
    how = {"sr": ["--weights", x2], "denoise": ["--sigma", 25, "--weights", x1], "dejpeg": ["--quality", 10]}[task]
    how += ["--weights", x1] if task == "dejpeg" else []
    found = []
    for kind in PEAK:
        save_as(kind, f"{kind}/a.tif", make_image(24, 28))
        ran = restore("eval", task, *how, "--reference", kind, "--json")
        assert (ran.code, ran.err) == (0, "")
        found.append(lines(ran.out))
    assert found[1:] == found[:1] * 2


def test_inputs_of_any_depth_are_restored_the_same(restore: Run, x2: Path) -> None:
    found = []
    for kind in PEAK:
        save_as(kind, f"hr-{kind}/a.tif", make_image(40, 48))
        save_as(kind, f"lr-{kind}/a.tif", imresize(make_image(40, 48), 0.5))
        folders = ["--reference", f"hr-{kind}", "--input", f"lr-{kind}"]
        ran = restore("eval", "sr", "--weights", x2, *folders, "--json", "--tiles", 8)
        assert (ran.code, ran.err) == (0, "")
        found.append(lines(ran.out))
    assert found[1:] == found[:1] * 2


def test_values_beyond_8_bits_are_rounded_and_clipped(restore: Run) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 20, 3)).astype(np.uint16)
    floats = np.random.default_rng(0).uniform(-0.1, 1.2, (20, 20, 3)).astype(np.float32)
    rounded = {"deep": (deep + 128.0) // 257, "floats": np.rint(floats.clip(0, 1) * 255)}
    for name, samples in (("deep", deep), ("floats", floats)):
        encode(Picture(samples), Path(f"{name}.tif"))
        save_image(Path(f"{name}.png"), rounded[name].astype(np.uint8))
        ran = restore("eval", "--restored", f"{name}.tif", "--reference", f"{name}.png", "--json")
        assert (ran.code, lines(ran.out)[0]["psnr"]) == (0, None)


def test_values_that_are_not_finite_are_an_error(restore: Run) -> None:
    save_image(Path("good.png"), make_image(20, 20))
    values = make_image(20, 20) / np.float32(255)
    values[3, 4, 1] = np.nan
    encode(Picture(values), Path("bad.tif"))
    for result, reference in (("good.png", "bad.tif"), ("bad.tif", "good.png")):
        ran = restore("eval", "--restored", result, "--reference", reference)
        line = "restore: bad.tif: contains values that are not finite (NaN or infinity); expected finite numbers\n"
        assert (ran.code, ran.out, ran.err) == (1, "", line)


def test_jpeg_repair_has_one_more_column(restore: Run, x1: Path) -> None:
    save_image(Path("hr/a.png"), make_image(40, 48))
    ran = restore("eval", "dejpeg", "--quality", 10, "--weights", x1, "--reference", "hr")
    assert "PSNR-B" in ran.out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--reference", "hr"], 2, ["a task, or --restored"]),
        (["sr", "--reference", "hr", "--restored", "lr"], 2, ["--restored", "a task"]),
        (["--reference", "hr", "--restored", "lr", "--model", "emt"], 2, ["--restored", "--model"]),
        (["--reference", "hr", "--restored", "lr"], 1, ["lr/[b]x2.png", "24×20", "48×40"]),
        (["--reference", "hr", "--restored", "hr", "--border", "-1"], 2, ["--border -1"]),
        (["--reference", "hr", "--restored", "none"], 2, ["no reference for none", "hr/[b].png, hr/a.png"]),
        (["--reference", "hr", "--restored", "hr/a.png"], 2, ["hr/[b].png"]),
        (["sr", "--reference", "hr", "--tiles", "64,x"], 2, ["--tiles 64,x"]),
        (["sr", "--reference", "hr", "--tiles", "0"], 2, ["--tiles 0"]),
        (["deblur", "--reference", "hr"], 2, ["deblur", "--input FOLDER"]),
        (["sr", "--model", "hat", "--reference", "hr"], 4, ["hat-x4"]),
        (["colour", "--reference", "hr"], 2, ["no task 'colour'"]),
    ],
)
@pytest.mark.usefixtures("folders")
def test_errors_are_one_line(arguments: list[str], code: int, words: list[str], restore: Run) -> None:
    ran = restore("eval", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran.err
    assert all(word in ran.err for word in words), ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos",), "no task 'photos'; there are sr, denoise, deblur, derain, dejpeg"),
        (("dejpeg", "--quality", "0"), "quality 0 is not a JPEG quality; expected 1 to 100"),
        (("dejpeg", "--quality", "101"), "quality 101 is not a JPEG quality; expected 1 to 100"),
        (("denoise", "--quality", "50"), "denoise takes no quality (found 50)"),
        (("denoise", "--sigma", "25", "--seed", "-1"), "--seed -1: expected 0 to 4294967295"),
        (("denoise", "--sigma", "25", "--seed", "4294967296"), "--seed 4294967296: expected 0 to 4294967295"),
    ],
)
def test_invalid_options_are_refused_with_a_checkpoint_too(
    arguments: tuple[str, ...], message: str, restore: Run, x1: Path
) -> None:
    save_image(Path("hr/a.png"), make_image(12, 12))
    ran = restore("eval", *arguments, "--weights", x1, "--reference", "hr")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"restore: {message}")
    assert ran.err.count("\n") == 1
