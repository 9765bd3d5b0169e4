"""`--resize`: sizes that are not allowed are refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Run
from images import make_image, save_image
from PIL import Image

LIMIT = ("--max-pixels", "2000")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("3x", "in.png: --resize 3x: 40×32 px would become 120×96 px; the limit is 2,000 px (try: --max-pixels 11520)"),
        ("x100", "in.png: --resize x100: 40×32 px would become 125×100 px; the limit is 2,000 px"),
        ("500x", "in.png: --resize 500x: 40×32 px would become 500×400 px; the limit is 2,000 px"),
        ("50x50", "--resize 50x50: 50×50 px; the limit is 2,000 px"),
        ("2001x", "--resize 2001x: 2001×1 px; the limit is 2,000 px"),
        ("0.01x", "in.png: --resize 0.01x: 40×32 px would become 0×0"),
        ("0x0", "--resize 0x0: expected numbers above 0"),
        ("0x", "--resize 0x: expected numbers above 0"),
        ("0.0x", "--resize 0.0x: expected numbers above 0"),
        ("x0", "--resize x0: expected numbers above 0"),
        ("5x0", "--resize 5x0: expected numbers above 0"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_an_invalid_size_is_one_line_and_exit_code_2(
    wish: str, message: str, dry: bool, restore: Run, x1: Path
) -> None:
    save_image(Path("in.png"), make_image(32, 40))
    extra = ("--dry-run", "-q") if dry else ()
    ran = restore("denoise", "--weights", x1, "in.png", "-o", "out/", "--resize", wish, *LIMIT, *extra)
    assert ran.code == 2
    assert ran.err.startswith(f"restore: {message}")
    assert ran.err.count("\n") == 1
    assert not Path("out/in.png").exists()


def test_the_limit_is_for_the_final_size_and_not_for_the_scale(restore: Run, x2: Path) -> None:
    save_image(Path("in.png"), make_image(32, 40))
    command = ("sr", "--weights", x2, "in.png", "--overwrite", *LIMIT)
    assert restore(*command, "--resize", "1.25x").code == 0  # 50×40 px: exactly the limit, though ×2 makes 80×64
    with Image.open("in_sr2.png") as image:
        assert image.size == (50, 40)
    assert restore(*command, "--resize", "1.3x").code == 2


def test_a_side_too_large_for_memory_is_refused(restore: Run, x1: Path) -> None:
    save_image(Path("in.png"), make_image(1, 1))
    for wish in ("2000000x1", "1x2000000", "x1000001"):
        ran = restore("denoise", "--weights", x1, "in.png", "--resize", wish, "--dry-run")
        assert ran.code == 2
        assert "the limit is 1,000,000 px a side" in ran.err


@pytest.mark.parametrize(("wish", "size"), [("0.5x", (20, 16)), ("0.1x", (4, 3)), ("0.03x", (1, 1)), ("1x1", (1, 1))])
def test_resize_can_shrink(wish: str, size: tuple[int, int], restore: Run, x1: Path) -> None:
    save_image(Path("in.png"), make_image(32, 40))
    assert restore("denoise", "--weights", x1, "in.png", "--resize", wish).code == 0
    with Image.open("in_denoise.png") as image:
        assert image.size == size


def test_the_limit_is_checked_for_each_image_of_a_folder(restore: Run, x1: Path) -> None:
    save_image(Path("photos/large.png"), make_image(32, 40))
    save_image(Path("photos/small.png"), make_image(8, 10))
    command = ("denoise", "--weights", x1, "photos", "-o", "out", "--resize", "2x", *LIMIT, "--json")
    dry = restore(*command, "--dry-run")
    assert dry.code == 1
    *each, last = [json.loads(line) for line in dry.out.splitlines()]
    assert [(one["input"], one["status"]) for one in each] == [
        ("photos/large.png", "planned"),
        ("photos/small.png", "planned"),
        ("photos/large.png", "failed"),
    ]
    summary = last["summary"]
    assert (summary["planned"], summary["failed"], summary["unreadable"], summary["exit_code"]) == (1, 1, 0, 1)
    ran = restore(*command)
    assert ran.code == 1
    assert Path("out/small.png").exists()
    assert not Path("out/large.png").exists()
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert found[0]["error"] == each[2]["error"]


def test_a_page_that_is_too_large_is_refused_before_the_first_is_restored(restore: Run, x1: Path) -> None:
    pages = [Image.fromarray(make_image(side, side)) for side in (8, 32)]
    pages[0].save("in.tif", save_all=True, append_images=pages[1:])
    ran = restore("denoise", "--weights", x1, "in.tif", "--resize", "2x", *LIMIT)
    assert ran.code == 2
    assert "in.tif: --resize 2x: 32×32 px would become 64×64 px" in ran.err
    assert not Path("in_denoise.tif").exists()
