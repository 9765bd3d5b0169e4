"""Every reference is measured once with its partner, or the error names it."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from images import Pixels, make_image, save_image
from PIL import Image

from benchmarks import results
from restore_cli.api import load
from restore_cli.api import restore as restored
from restore_cli.errors import ImageError, NothingToDo, UsageError
from restore_cli.evaluation.degrade import add_noise, compress_jpeg, imresize
from restore_cli.evaluation.evaluate import EvalOptions, Row, evaluate, evaluate_folders, measure_image, summarize
from restore_cli.evaluation.metrics import luma, psnr, psnr_b, seam, ssim
from restore_cli.evaluation.pairing import pair_files
from restore_cli.image.codec import decode, encode
from restore_cli.image.picture import Picture
from restore_cli.jobs.paths import Input
from restore_cli.jobs.types import ModelOptions
from restore_cli.weights.catalogue import Request, read_catalogue


def options(task: str, weights: Path, noise: str | None = None, quality: int | None = None) -> ModelOptions:
    return ModelOptions(Request(task, noise=noise, quality=quality), read_catalogue(), weights=weights, device="cpu")


def make_inputs(root: str, *names: str) -> list[Input]:
    return [Input(f"{root}/{name}", name, root) for name in names]


@pytest.mark.parametrize(
    ("reference", "other"),
    [
        ("baby.png", "baby.jpg"),
        ("baby.png", "babyx4.png"),
        ("baby.bmp", "baby_x2.png"),
        ("baby.png", "baby_LRBI_x4.png"),
        ("img_001_SRF_4_HR.png", "img_001_SRF_4_LR.png"),
        ("baby_HR.png", "baby.png"),
        ("baby.png", "baby_sr4.png"),
        ("baby.jpg", "baby.jpg.png"),
        ("baby.png", "baby_SwinIR.png"),
        ("x2.png", "x2x4.png"),
        ("deep/a.png", "deep/a_x2.png"),
    ],
)
def test_names_with_the_usual_endings_are_partners(reference: str, other: str) -> None:
    more = ["z.png", "baby2.png", "ba.png"]
    pairs = pair_files(make_inputs("hr", reference, *more), make_inputs("lr", *reversed(more), other))
    assert [(str(a.relative), str(b.relative)) for a, b in pairs] == [(reference, other), *zip(more, more, strict=True)]


def test_the_longest_name_and_then_the_suffix_decide() -> None:
    references = make_inputs("hr", "a.png", "ax2.png", "a.jpg", "ax2_HR.png")
    others = make_inputs("lr", "a_x4.jpg", "ax2_x4.png", "a_x4.png")
    with pytest.raises(UsageError, match=r"no partner for the reference hr/ax2_HR\.png$"):
        pair_files(references, others)
    found = {str(a.relative): str(b.relative) for a, b in pair_files(references[:3], others)}
    assert found == {"a.png": "a_x4.png", "ax2.png": "ax2_x4.png", "a.jpg": "a_x4.jpg"}


def test_every_file_without_a_partner_is_named() -> None:
    with pytest.raises(UsageError) as raised:
        pair_files(make_inputs("hr", "a.png", "b.png", "sub/c.png"), make_inputs("lr", "a.png", "c.png", "d_LR.png"))
    assert raised.value.message == (
        "no partner for the reference hr/b.png, hr/sub/c.png; no reference for lr/c.png, lr/d_LR.png"
    )
    with pytest.raises(UsageError, match=r"hr/0\.png, .*, hr/7\.png and 12 more;"):
        pair_files(make_inputs("hr", *(f"{i}.png" for i in range(20))), make_inputs("lr", "a.png"))


def test_two_partners_of_one_reference_are_named() -> None:
    with pytest.raises(UsageError, match=r"lr/a\.png and lr/ax4\.png both fit the reference hr/a\.png"):
        pair_files(make_inputs("hr", "a.png"), make_inputs("lr", "a.png", "ax4.png"))


def test_two_single_files_are_partners_under_any_names() -> None:
    assert len(pair_files(make_inputs("hr", "before.png"), make_inputs("lr", "after.png"))) == 1


def test_given_and_generated_inputs_measure_the_same(tmp_path: Path, x2: Path) -> None:
    for name, sides in {"a": (40, 44), "b": (41, 47)}.items():
        whole = make_image(*sides)
        save_image(tmp_path / f"hr/{name}.png", whole)
        save_image(tmp_path / f"lr/{name}x2.png", imresize(whole[:40, : sides[1] // 2 * 2], 0.5))
    given = EvalOptions(tmp_path / "hr", tmp_path / "lr")
    rows = list(evaluate(options("sr", x2), given))
    made = list(evaluate(options("sr", x2), replace(given, input=None)))
    assert [(r.image, r.measures, r.baseline) for r in rows] == [(r.image, r.measures, r.baseline) for r in made]
    assert [row.image for row in rows] == ["a.png", "b.png"]


def test_a_row_holds_the_metrics_of_the_result(tmp_path: Path, x2: Path) -> None:
    whole = save_image(tmp_path / "a.png", make_image(40, 44))
    low = imresize(decode(whole).pixels, 0.5)
    out = restored(load(x2, "cpu"), low)
    (row,) = evaluate(options("sr", x2), EvalOptions(whole))
    assert row.measures == measure_expected(out, decode(whole).pixels, 2)
    assert row.baseline == measure_expected(imresize(low, 2), decode(whole).pixels, 2)
    assert row.sha256 == hashlib.sha256(x2.read_bytes()).hexdigest()
    assert (row.checkpoint, row.megapixels) == (x2.name, 20 * 22 / 1e6)
    (cut,) = evaluate(options("sr", x2), EvalOptions(whole, border=5, baseline="none"))
    assert cut.measures == measure_expected(out, decode(whole).pixels, 5)
    assert cut.baseline is None


def test_a_deep_input_is_restored_unrounded_and_its_result_rounded_once(tmp_path: Path, x2: Path) -> None:
    whole = save_image(tmp_path / "a.png", make_image(40, 44))
    deep = np.random.default_rng(0).integers(0, 65536, (20, 22, 3)).astype(np.uint16)
    encode(Picture(deep), tmp_path / "low.png")
    (row,) = evaluate(options("sr", x2), EvalOptions(whole, tmp_path / "low.png"))
    out = restored(load(x2, "cpu"), deep.astype(np.float32) / np.float32(65535))
    assert out.dtype == np.float32
    assert row.measures == measure_expected(np.rint(out.clip(0, 1) * 255).astype(np.uint8), decode(whole).pixels, 2)


def measure_expected(image: Pixels, reference: Pixels, border: int) -> dict[str, float]:
    return {
        "psnr": psnr(image, reference, border=border),
        "ssim": ssim(image, reference, border=border),
        "psnr_y": psnr(luma(image), luma(reference), border=border),
        "ssim_y": ssim(luma(image), luma(reference), border=border),
    }


def test_the_model_gets_unrounded_unclipped_noise_and_8_bits_are_measured(tmp_path: Path, x1: Path) -> None:
    white = save_image(tmp_path / "a.png", np.full((24, 24, 3), 250, np.uint8))
    noisy = add_noise(decode(white).pixels, 25, seed=3)
    assert noisy.max() > 1
    (row,) = evaluate(options("denoise", x1, noise="25"), EvalOptions(white, seed=3))
    out = restored(load(x1, "cpu"), noisy)
    assert row.measures["psnr"] == psnr(np.rint(out.clip(0, 1) * 255), decode(white).pixels)
    assert row.baseline is not None
    assert row.baseline["psnr"] == psnr(np.rint(noisy.clip(0, 1) * 255), decode(white).pixels)
    (other,) = evaluate(options("denoise", x1, noise="blind"), EvalOptions(white, seed=3, sigma=25))
    assert other.measures == row.measures


def test_jpeg_has_psnr_b(tmp_path: Path, x1: Path) -> None:
    whole = save_image(tmp_path / "a.png", make_image(40, 48))
    (row,) = evaluate(options("dejpeg", x1, quality=10), EvalOptions(whole))
    spoiled = compress_jpeg(decode(whole).pixels, 10)
    assert row.baseline is not None
    assert row.baseline["psnrb"] == psnr_b(spoiled, decode(whole).pixels)
    assert row.measures["psnrb"] == psnr_b(restored(load(x1, "cpu"), spoiled), decode(whole).pixels)


def test_gray_counts_as_three_equal_channels() -> None:
    gray, other = make_image(30, 30, 1), make_image(30, 30, 1, seed=2)
    found = measure_image(gray, other)
    assert (
        found
        == measure_image(gray.repeat(3, 2), other)
        == pytest.approx(measure_image(gray.repeat(3, 2), other.repeat(3, 2)))
    )
    assert found["psnr"] == psnr(gray, other)


def test_a_gray_reference_is_restored_as_gray(tmp_path: Path, x1: Path) -> None:
    whole = save_image(tmp_path / "a.bmp", make_image(32, 32, 1))
    (row,) = evaluate(options("dejpeg", x1, quality=30), EvalOptions(whole))
    assert math.isfinite(row.measures["psnrb"])


def test_any_two_folders_can_be_compared(tmp_path: Path) -> None:
    one, two = make_image(30, 30), make_image(30, 30, seed=5)
    for name, pixels in {"hr/a.png": one, "hr/b.png": one, "out/a_sr4.png": one, "out/b.bmp": two}.items():
        save_image(tmp_path / name, pixels)
    rows = list(evaluate_folders(tmp_path / "out", tmp_path / "hr", 4))
    equal = {"psnr": math.inf, "ssim": 1.0, "psnr_y": math.inf, "ssim_y": 1.0}
    assert [row.image for row in rows] == ["a.png", "b.png"]
    assert rows[0].measures == pytest.approx(equal)
    assert rows[1] == Row("b.png", measure_expected(two, one, 4))
    found = summarize(rows)
    assert found.mean["psnr"] == math.inf
    assert found.mean["ssim"] == pytest.approx((1 + ssim(two, one, border=4)) / 2)
    assert (found.baseline, found.seconds_per_megapixel, found.checkpoints) == (None, None, {})


@pytest.mark.parametrize(("over", "fits"), [((0, 0), True), ((1, 1), True), ((2, 0), False), ((0, -1), False)])
def test_a_reference_may_be_larger_by_less_than_the_scale(
    over: tuple[int, int], fits: bool, tmp_path: Path, x2: Path
) -> None:
    save_image(tmp_path / "hr/a.png", make_image(40, 40))
    save_image(tmp_path / "lr/a.png", make_image(20, 20))
    whole = save_image(tmp_path / "hr/b.png", make_image(40 + over[0], 40 + over[1]))
    save_image(tmp_path / "lr/b.png", make_image(20, 20))
    rows = evaluate(options("sr", x2), EvalOptions(tmp_path / "hr", tmp_path / "lr"))
    if fits:
        assert len(list(rows)) == 2
    else:
        with pytest.raises(ImageError, match=rf"lr/b\.png: 20×20 px times 2, its reference {whole} has"):
            next(rows)  # before anything is restored


def test_an_image_that_is_too_small_to_measure_is_named(tmp_path: Path, x2: Path) -> None:
    whole = save_image(tmp_path / "a.png", make_image(14, 40))
    with pytest.raises(ImageError, match=r"a\.png: 40×14 px without a border of 2 px: SSIM needs at least 11 px"):
        list(evaluate(options("sr", x2), EvalOptions(whole)))
    Image.new("RGB", (1, 40)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match="less than one pixel"):
        list(evaluate(options("sr", x2), EvalOptions(tmp_path / "b.png")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToDo):
        list(evaluate(options("sr", x2), EvalOptions(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("task", "request_words", "options_words", "words"),
    [
        ("deblur", {}, {}, "no standard degradation"),
        ("denoise", {}, {}, "give its strength"),
        ("denoise", {"noise": "blind"}, {}, "blind is no number"),
        ("dejpeg", {}, {}, "needs their quality"),
        ("denoise", {}, {"sigma": -1.0}, "0 or more"),
        ("deblur", {}, {"sigma": 5.0}, "for denoise"),
        ("denoise", {"noise": "25"}, {"baseline": "bicubic"}, "auto, input, none for denoise"),
        ("denoise", {"noise": "25"}, {"baseline": "x"}, "--baseline x"),
    ],
)
def test_contradictory_options_are_refused(
    task: str, request_words: dict[str, str], options_words: dict[str, float], words: str, tmp_path: Path, x1: Path
) -> None:
    asked = Request(task, noise=request_words.get("noise"))
    baseline, sigma = str(options_words.get("baseline", "auto")), options_words.get("sigma")
    with pytest.raises(UsageError, match=words):
        next(evaluate(replace(options(task, x1), request=asked), EvalOptions(tmp_path, sigma=sigma, baseline=baseline)))


def test_tiles_are_compared_with_the_whole(tmp_path: Path, x2: Path) -> None:
    save_image(tmp_path / "large.png", make_image(96, 140))
    save_image(tmp_path / "small.png", make_image(32, 32))
    large, small = evaluate(options("sr", x2), EvalOptions(tmp_path, tiles=(16, 32, 256)))
    assert [tile.tile for tile in large.tiles] == [16, 32]  # nothing is cut at 256
    assert small.tiles == ()
    assert large.tiles[0].psnr < large.tiles[1].psnr < math.inf
    assert large.tiles[0].seam != large.tiles[0].seam_untiled


def test_the_seam_measure_is_the_step_at_borders_over_the_step_elsewhere() -> None:
    ramp = np.add.outer(np.arange(40.0), np.arange(60.0))[..., None]
    assert seam(ramp, [(20, 28)], [(8, 8)]) == pytest.approx(1)
    stepped = ramp.copy()
    stepped[:, 30:] += 4  # the step into column 30 is 5, all others are 1
    assert seam(stepped, [(30, 30)], []) == pytest.approx(5)
    assert seam(stepped, [(29, 31)], []) == pytest.approx((1 + 5 + 1) / 3)
    assert seam(stepped, [(30, 30)], [(8, 8)]) == pytest.approx((5 + 1) / 2)
    assert seam(np.zeros((9, 9)), [(4, 4)], []) == 1
    with pytest.raises(ValueError, match="at least one border"):
        seam(ramp, [], [])


def test_the_published_weights_on_set5_from_both_kinds_of_input(shared: Path) -> None:
    """EMT ×4 (arXiv:2305.11403, table 3): 32.64 dB on Y. Our bicubic gives the same as the official one."""
    wanted = replace(options("sr", shared / "checkpoints/EMT_LSR_x4.pth"), precision="fp32")
    given = EvalOptions(shared / "bench/Set5/HR", shared / "bench/Set5/LR_bicubic/X4")
    found = [summarize(list(evaluate(wanted, trial))) for trial in (given, replace(given, input=None))]
    assert found[0].mean["psnr_y"] == pytest.approx(32.639, abs=1e-3)
    assert found[0].mean == pytest.approx(found[1].mean, abs=1e-3)
    assert found[0].baseline is not None
    assert found[0].baseline["psnr_y"] == pytest.approx(28.42, abs=0.02)


def test_rows_of_checkpoints_that_are_not_on_this_machine_are_kept(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    rows = {("b", "Set5 ×2"): "| b | Set5 ×2 | 1.0 |", ("a", "Set5 ×2"): "| a | Set5 ×2 | 2.0 |"}
    results.write_page(page, rows, ["a", "b"])
    assert list(results.read_rows(page).values()) == ["| a | Set5 ×2 | 2.0 |", "| b | Set5 ×2 | 1.0 |"]
    assert results.read_rows(page) == rows
    results.write_page(page, rows, ["a"])  # rows of removed checkpoints are removed
    assert list(results.read_rows(page)) == [("a", "Set5 ×2")]


def test_published_figures_have_their_own_table_until_their_checkpoint_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    names = ["a", "swinir-classical-x2", "swinir-classical-x3"]
    rows = {("a", "Set5 ×2"): "| a | Set5 ×2 | 2.0 |"}
    results.write_page(page, rows, names)
    assert results.read_rows(page) == rows
    figures = page.read_text(encoding="utf-8").split("## Published figures")[1]
    assert re.findall(r"^\| (swinir\S+)", figures, re.MULTILINE) == names[1:]
    rows["swinir-classical-x2", "Set5 ×2"] = "| swinir-classical-x2 | Set5 ×2 | 38.4 |"
    results.write_page(page, rows, names)
    assert results.read_rows(page) == rows
    assert "swinir-classical-x2" not in page.read_text(encoding="utf-8").split("## Published figures")[1]


def test_published_figures_belong_to_existing_benchmarks() -> None:
    entries = read_catalogue().entries
    made = {(entry.name, test.name) for entry in entries for test in results.list_benchmarks(entry, Path("bench"))}
    assert results.PUBLISHED.keys() <= made
