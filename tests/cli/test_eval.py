"""`restore eval`: a table for people, JSON lines and CSV for programs, one line for what went wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command import Run
from pictures import noise, save

from restore_cli.degrade import imresize


@pytest.fixture
def folders(restore: Run) -> None:
    """hr/ and lr/ with two pictures of ×2, [b] among them."""
    for name, seed in (("a", 0), ("[b]", 1)):
        whole = noise(40, 48, seed=seed)
        save(Path(f"hr/{name}.png"), whole)
        save(Path(f"lr/{name}x2.png"), imresize(whole, 0.5))


@pytest.mark.usefixtures("folders")
def test_the_table_has_a_row_for_each_picture_the_mean_and_the_baseline(restore: Run, x2: Path) -> None:
    ran = restore("eval", "sr", "--weights", x2, "--reference", "hr", "--input", "lr")
    assert (ran.code, ran.err) == (0, "")
    first, *rows = ran.out.splitlines()
    assert first.split() == ["image", "PSNR", "SSIM", "PSNR", "Y", "SSIM", "Y", "seconds"]
    assert [row.split()[0] for row in rows[:4]] == ["[b].png", "a.png", "mean", "baseline"]
    assert rows[4].startswith(f"{x2.name}  sha256 ")
    assert rows[5].endswith("s per megapixel of input")


@pytest.mark.usefixtures("folders")
def test_json_is_an_object_for_each_picture_and_a_last_one(restore: Run, x2: Path) -> None:
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


@pytest.mark.usefixtures("folders")
def test_csv_says_the_same_and_is_not_written_over(restore: Run, x2: Path) -> None:
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
    assert "out.csv: is there already (try: --overwrite)" in again.err
    assert restore(*asked, "--overwrite").code == 0


def test_two_folders_need_no_model(restore: Run) -> None:
    save(Path("hr/a.png"), noise(30, 30))
    save(Path("out/a_sr4.png"), noise(30, 30))
    save(Path("hr/b.png"), noise(30, 30))
    save(Path("out/b.png"), np.clip(noise(30, 30).astype(int) + 3, 0, 255).astype(np.uint8))
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


def test_jpeg_repair_has_a_column_more(restore: Run, x1: Path) -> None:
    save(Path("hr/a.png"), noise(40, 48))
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
        (["sr", "--model", "emt", "--reference", "hr"], 4, ["emt-x4"]),
        (["colour", "--reference", "hr"], 2, ["no task 'colour'"]),
    ],
)
@pytest.mark.usefixtures("folders")
def test_what_is_wrong_is_one_line(arguments: list[str], code: int, words: list[str], restore: Run) -> None:
    ran = restore("eval", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran.err
    assert all(word in ran.err for word in words), ran.err
