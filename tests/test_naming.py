"""No input is written over, and no two inputs share an output."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_cli.errors import NothingToDo, UsageError
from restore_cli.image.codec import SUFFIXES
from restore_cli.inputs import Input, collect
from restore_cli.naming import Naming, outputs


def naming(output: str | None, task: str = "sr") -> Naming:
    return Naming(task, "emt", 4 if task == "sr" else 1, output, SUFFIXES)


def inputs(*names: str) -> list[Input]:
    return [Input(Path("photos", name), Path("photos")) for name in names]


names = st.builds(
    lambda folder, stem, suffix: f"{folder}{stem}{suffix}",
    st.sampled_from(["", "x/", "x/y/"]),
    st.sampled_from(["a", "b", "a_sr4", "a.jpg", "a_denoise"]),
    st.sampled_from([".png", ".jpg", ".PNG", ".webp", ".tif"]),
)


@given(
    st.lists(names, min_size=1, max_size=8, unique=True),
    st.sampled_from([None, "out/", "out/{stem}.png", "{stem}_{task}", "out/{model}"]),
    st.sampled_from(["sr", "denoise"]),
)
def test_outputs_are_all_different_and_no_inputs(found: list[str], output: str | None, task: str) -> None:
    items = inputs(*found)
    try:
        pairs = outputs(items, naming(output, task))
    except UsageError:
        return
    paths = [path for _, path in pairs]
    assert len(set(paths)) == len(paths)
    assert not {item.path for item, _ in pairs} & set(paths)
    assert all(path.suffix.lower() in SUFFIXES for path in paths)


def test_beside_the_input() -> None:
    (_, path), *_ = outputs(inputs("in.jpg"), naming(None))
    assert path == Path("photos/in_sr4.png")
    (_, path), *_ = outputs(inputs("in.jpg"), naming(None, "dejpeg"))
    assert path == Path("photos/in_dejpeg.jpg")


def test_results_of_an_earlier_run_are_no_inputs() -> None:
    pairs = outputs(inputs("a.png", "a_denoise.png"), naming(None, "denoise"))
    assert [item.path.name for item, _ in pairs] == ["a.png"]


def test_one_name_in_two_formats() -> None:
    pairs = outputs(inputs("a.jpg", "a.png", "a.webp"), naming("out/"))
    assert [str(path) for _, path in pairs] == ["out/a.jpg.png", "out/a.png", "out/a.webp.png"]


@pytest.mark.parametrize("output", ["one.png", "{task}.png"])
def test_several_inputs_for_one_file_are_refused(output: str) -> None:
    with pytest.raises(UsageError, match=r"2 inputs|both be written"):
        outputs(inputs("a.png", "b.png"), naming(output))


def test_order_is_natural_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("page10.png", "page2.png", "Page3.png", ".page1.png", "notes.txt", "z/page1.JPG", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(item.relative) for item in collect([tmp_path], SUFFIXES)]
    assert found == ["page2.png", "Page3.png", "page10.png", "z/page1.JPG"]


def test_a_file_named_twice_is_restored_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert len(collect([tmp_path / "a.png", tmp_path, tmp_path / "a.png"], SUFFIXES)) == 1


def test_a_folder_without_images_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="no image in"):
        collect([tmp_path], SUFFIXES)
