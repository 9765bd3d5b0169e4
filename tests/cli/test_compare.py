"""`restore compare`, `--compare`, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from command import Run
from images import make_image, save_image
from PIL import Image

from restore_cli.image.codec import decode, encode
from restore_cli.image.picture import PEAK, Picture, Pixels, Samples

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
BEFORE, AFTER = (200, 30, 30), (30, 30, 200)


def flat(path: str, colour: tuple[int, int, int], side: int) -> Path:
    return save_image(Path(path), np.full((side, side, 3), colour, np.uint8))


@pytest.fixture
def pair(restore: Run) -> None:
    flat("before.png", BEFORE, 50)
    flat("after.png", AFTER, 200)


@pytest.mark.usefixtures("pair")
def test_a_sheet_a_split_and_a_page_are_written(restore: Run) -> None:
    ran = restore("compare", "before.png", "after.png", "-o", "sheet.png")
    assert (ran.code, ran.out, ran.err) == (0, "before.png | after.png → sheet.png\n", "")
    with Image.open("sheet.png") as made:
        assert made.width > 400
    assert restore("compare", "before.png", "after.png", "-o", "s.jpg", "--split", "--crop", "0,0,80,40").code == 0
    with Image.open("s.jpg") as made:
        assert made.size == (80, 40)
    labels = ("--label", "x", "--label", "y")
    assert restore("compare", "before.png", "after.png", "-o", "page.html", "--html", *labels).code == 0
    assert ">y</option>" in Path("page.html").read_text()


@pytest.mark.usefixtures("pair")
def test_existing_files_are_replaced_only_with_overwrite(restore: Run) -> None:
    Path("sheet.png").write_text("mine")
    ran = restore("compare", "before.png", "after.png", "-o", "sheet.png")
    assert (ran.code, ran.err) == (1, "restore: sheet.png: exists already (try: --overwrite)\n")
    assert Path("sheet.png").read_text() == "mine"
    assert restore("compare", "before.png", "after.png", "-o", "sheet.png", "--overwrite").code == 0
    ran = restore("compare", "before.png", "after.png", "-o", "./after.png", "--overwrite")
    assert (ran.code, "one of the images" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["before.png", "-o", "o.png"], 2, "two images or more"),
        (["before.png", "none.png", "-o", "o.png"], 1, "none.png: no such file"),
        (["before.png", "after.png", "-o", "o.png", "--crop", "1,2,3"], 2, "--crop 1,2,3: expected four"),
        (["before.png", "after.png", "-o", "o.png", "--crop", "0,0,201,1"], 2, "the largest image, 200×200"),
        (["before.png", "after.png", "-o", "o.png", "--zoom", "0"], 2, "--zoom 0"),
        (["before.png", "after.png", "-o", "o.png", "--html"], 2, "-o compare.html"),
        (["before.png", "after.png", "-o", "o.html"], 2, "or --html"),
        (["before.png", "after.png", "-o", "o.html", "--html", "--split"], 2, "give one of them"),
        (["before.png", "after.png", "-o", "o.png", "--label", "x"], 2, "--label is given 1 times"),
        (["before.png", "odd.png", "-o", "o.png"], 1, "cannot be enlarged by a whole factor"),
    ],
)
@pytest.mark.usefixtures("pair")
def test_errors_are_one_line(arguments: list[str], code: int, words: str, restore: Run) -> None:
    save_image(Path("odd.png"), make_image(70, 90))
    ran = restore("compare", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran.err
    assert words in ran.err
    assert not list(Path().glob("o.*"))


def save_as(kind: str, path: Path, samples: Pixels) -> None:
    """Write a TIFF of this sample type from 8-bit (h, w, c + alpha)."""
    path.parent.mkdir(exist_ok=True)
    values: Samples = samples / np.float32(255) if kind == "float32" else samples.astype(kind)
    values = values * 257 if kind == "uint16" else values
    colours = samples.shape[2] - (samples.shape[2] in (2, 4))
    encode(Picture(values[..., :colours], values[..., -1] if colours < samples.shape[2] else None), path)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("how", [["-o", "made.png"], ["-o", "made.png", "--split"], ["-o", "made.html", "--html"]])
def test_images_of_any_depth_look_the_same(channels: int, how: list[str], restore: Run) -> None:
    found = set()
    for kind in PEAK:
        for name, seed in (("a.tif", 0), ("b.tif", 1)):
            save_as(kind, Path(kind) / name, make_image(24, 30, channels, seed))
        ran = restore("compare", f"{kind}/a.tif", f"{kind}/b.tif", *how, "--overwrite")
        assert (ran.code, ran.err) == (0, "")
        found.add(Path(how[1]).read_bytes())
    assert len(found) == 1


def test_a_12_bit_image_looks_like_its_8_bit_version(restore: Run) -> None:
    deep = pyvips.Image.new_from_array(make_image(24, 30).astype(np.uint16) * 257).copy(interpretation="rgb16")
    Path("deep.avif").write_bytes(deep.heifsave_buffer(compression="av1", bitdepth=12, lossless=True))
    save_image(Path("flat.png"), ((decode(Path("deep.avif")).pixels + 128.0) // 257).astype(np.uint8))
    assert restore("compare", "deep.avif", "flat.png", "-o", "page.html", "--html").code == 0
    first, second = re.findall(r'src="(data:[^"]*)"', Path("page.html").read_text())
    assert first == second


def test_values_that_are_not_finite_are_not_shown(restore: Run) -> None:
    save_image(Path("good.png"), make_image(9, 9))
    encode(Picture(np.full((9, 9, 3), np.inf, np.float32)), Path("bad.tif"))
    ran = restore("compare", "good.png", "bad.tif", "-o", "made.png")
    line = "restore: bad.tif: contains values that are not finite (NaN or infinity); expected finite numbers\n"
    assert (ran.code, ran.out, ran.err) == (1, "", line)
    assert not Path("made.png").exists()


@pytest.mark.parametrize("kind", PEAK)
def test_a_result_of_any_depth_gets_its_sheet(kind: str, restore: Run, x1: Path) -> None:
    save_as(kind, Path("in.tif"), make_image(20, 30))
    ran = restore("denoise", "--weights", x1, "in.tif", "--compare")
    assert (ran.code, ran.err) == (0, "")
    (sheet,) = Path().glob("*_compare.png")
    with Image.open(sheet) as made:
        assert (made.mode, made.width > 60) == ("RGB", True)


def test_labels_of_equal_names_include_folders(restore: Run) -> None:
    for name in ("in/a/x.png", "out/a/x.png"):
        save_image(Path(name), make_image(9, 9))
    assert restore("compare", "in/a/x.png", "out/a/x.png", "-o", "p.html", "--html").code == 0
    assert re.findall(r'alt="([^"]*)"', Path("p.html").read_text()) == ["in/a/x.png", "out/a/x.png"]


def test_task_commands_write_the_sheet_beside_the_result(restore: Run, x2: Path, x1: Path) -> None:
    save_image(Path("in.png"), make_image(20, 30))
    assert restore("sr", "--weights", x2, "in.png", "--compare").code == 0
    with Image.open("in_sr2_compare.png") as made:
        assert made.width > 2 * 60
    for name in ("photos/a.png", "photos/a.jpg"):
        save_image(Path(name), make_image(20, 30))
    assert restore("denoise", "--weights", x1, "photos", "--compare").code == 0
    made_now = sorted(path.name for path in Path("photos").glob("*_*"))
    assert made_now == ["a_denoise.jpg", "a_denoise.jpg_compare.png", "a_denoise.png", "a_denoise_compare.png"]
    again = restore("denoise", "--weights", x1, "photos", "--compare")
    assert again.code == 3  # sheets are not taken for pictures to restore
    assert sorted(path.name for path in Path("photos").glob("*_*")) == made_now


def test_a_sheet_without_memory_is_a_note(restore: Run, x1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(panels: object) -> None:
        raise MemoryError

    monkeypatch.setattr("restore_cli.evaluation.comparison.make_sheet", lacking)
    save_image(Path("in.png"), make_image(20, 30))
    ran = restore("denoise", "--weights", x1, "in.png", "--compare")
    line = "in_denoise_compare.png: no sheet: out of memory: cpu has no room for the sheet\n"
    assert (ran.code, ran.err) == (0, line)


def test_an_existing_sheet_is_kept_and_the_result_is_written(restore: Run, x2: Path) -> None:
    save_image(Path("in.png"), make_image(20, 30))
    Path("in_sr2_compare.png").write_text("mine")
    ran = restore("sr", "--weights", x2, "in.png", "--compare")
    assert (ran.code, "in_sr2_compare.png: no sheet" in ran.err) == (0, True)
    assert Path("in_sr2_compare.png").read_text() == "mine"
    assert Path("in_sr2.png").is_file()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("at", [20, 75])
def test_the_page_shows_before_left_of_the_line_and_after_right_of_it(at: int, restore: Run) -> None:
    assert restore("compare", "before.png", "after.png", "-o", "page.html", "--html").code == 0
    picture = take_screenshot(Path("page.html"), f"#at={at}")
    stage = np.argwhere((picture == BEFORE).all(2) | (picture == AFTER).all(2))
    (top, left), (bottom, right) = stage.min(0), stage.max(0)
    line = picture[top + 20 : bottom - 20, left : right + 1]
    assert bottom - top > 400
    width = line.shape[1]
    middle = width * at // 100
    assert (line[:, : middle - 25] == BEFORE).all()  # 25: half of the knob
    assert (line[:, middle + 25 :] == AFTER).all()


def take_screenshot(file: Path, fragment: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return (h, w, 3): the page as Chromium draws it in a window of 1000×800 px."""
    shot = file.with_suffix(".shot.png").absolute()
    address = f"{file.absolute().as_uri()}{fragment}"
    profile = f"--user-data-dir={file.absolute().parent / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, "--window-size=1000,800", f"--screenshot={shot}", address]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as image:
        return np.asarray(image.convert("RGB"))


class Driver:
    """A page in Chromium, driven over the WebDriver protocol."""

    def __init__(self, port: int) -> None:
        self.address, self.session = f"http://127.0.0.1:{port}", ""

    def ask(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON
        """Return the answer to a command."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path, profile: Path) -> None:
        """Open the page in a new window of 900×800 px."""
        flags = [*FLAGS, f"--user-data-dir={profile}", "--window-size=900,800"]
        options = {"binary": CHROMIUM, "args": flags}
        wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self.session = f"/session/{self.ask('/session', {'capabilities': wanted})['sessionId']}"
        self.ask(f"{self.session}/url", {"url": page.absolute().as_uri()})

    def run(self, script: str) -> Any:  # noqa: ANN401  # JSON
        """Return the value of JavaScript."""
        return self.ask(f"{self.session}/execute/sync", {"script": script, "args": []})

    def act(self, kind: str, actions: list[dict[str, Any]]) -> None:
        """Use the keyboard or the mouse."""
        self.ask(f"{self.session}/actions", {"actions": [{"type": kind, "id": kind, "actions": actions}]})

    @property
    def at(self) -> float:
        """Return the position of the line as it is drawn, in percent of the stage."""
        script = """const stage = document.querySelector('#stage').getBoundingClientRect();
        const line = document.querySelector('#line').getBoundingClientRect();
        return 100 * (line.left + line.width / 2 - stage.left) / stage.width"""
        return float(self.run(script))


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    with subprocess.Popen(
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        found = next(filter(None, (re.search(r"started successfully on port (\d+)", line) for line in process.stdout)))
        made = Driver(int(found[1]))
        try:
            yield made
        finally:
            if made.session:
                request = urllib.request.Request(made.address + made.session, method="DELETE")
                urllib.request.urlopen(request, timeout=60).close()
            process.terminate()


@pytest.mark.usefixtures("pair")
def test_the_slider_follows_the_mouse_and_the_keyboard(driver: Driver, restore: Run, tmp_path: Path) -> None:
    flat("third.png", (30, 200, 30), 100)
    assert restore("compare", "before.png", "after.png", "third.png", "-o", "page.html", "--html").code == 0
    driver.open(Path("page.html"), tmp_path / "profile")
    assert driver.at == pytest.approx(50, abs=0.2)
    x, y, width = driver.run(
        "const s = document.querySelector('#stage').getBoundingClientRect(); return [s.x, s.y, s.width]"
    )

    def move(percent: float) -> dict[str, Any]:
        return {"type": "pointerMove", "duration": 50, "x": round(x + width * percent / 100), "y": round(y + 40)}

    down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
    driver.act("pointer", [move(50), down, move(40), move(25), up])
    assert driver.at == pytest.approx(25, abs=0.5)
    driver.act("pointer", [move(80), down, up])  # a click is enough
    assert driver.at == pytest.approx(80, abs=0.5)
    left = "\ue012"
    driver.act("key", [{"type": kind, "value": left} for kind in ("keyDown", "keyUp")])
    assert driver.at < 79.95
    driver.act("key", [{"type": kind, "value": "\ue011"} for kind in ("keyDown", "keyUp")])  # Home
    assert driver.at == pytest.approx(0, abs=0.2)
    driver.run("const s = document.querySelector('#right'); s.value = 2; s.dispatchEvent(new Event('change'))")
    shown = "return [...document.querySelectorAll('img')].filter(i => getComputedStyle(i).visibility === 'visible')"
    assert driver.run(f"{shown}.map(i => i.alt)") == ["before.png", "third.png"]
