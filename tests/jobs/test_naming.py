"""No input is overwritten, and no two inputs get the same output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_cli.errors import UsageError
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX
from restore_cli.jobs.naming import Naming, assign_outputs
from restore_cli.jobs.paths import Input


def naming(output: str | None, task: str = "sr") -> Naming:
    return Naming(task, "emt", 4 if task == "sr" else 1, output)


def inputs(*names: str) -> list[Input]:
    return [Input(f"photos/{name}", name, "photos") for name in names]


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
def test_outputs_differ_from_each_other_and_from_inputs(found: list[str], output: str | None, task: str) -> None:
    items = inputs(*found)
    wanted = naming(output, task)
    pairs, refused = assign_outputs(items, wanted, wanted.find_folder(several=True))
    paths = [path for _, path in pairs]
    assert len(set(paths)) == len(paths)
    assert not {item.path for item, _ in pairs} & set(paths)
    assert all(Path(path).suffix.lower() in FORMAT_BY_SUFFIX for path in paths)
    if output is not None:
        assert {item for item, _ in pairs} | {item for item, _, _ in refused} == set(items)


def output_paths(output: str | None, task: str, *names: str) -> list[str]:
    wanted = naming(output, task)
    return [path for _, path in assign_outputs(inputs(*names), wanted, wanted.find_folder(len(names) > 1)).pairs]


def test_beside_the_input() -> None:
    assert output_paths(None, "sr", "in.jpg") == ["photos/in_sr4.png"]
    assert output_paths(None, "dejpeg", "in.jpg") == ["photos/in_dejpeg.jpg"]


def test_results_of_an_earlier_run_are_not_inputs() -> None:
    assert output_paths(None, "denoise", "a.png", "a_denoise.png") == ["photos/a_denoise.png"]


def test_one_name_in_two_formats() -> None:
    assert output_paths("out/", "sr", "a.jpg", "a.png", "a.webp") == ["out/a.jpg.png", "out/a.png", "out/a.webp.png"]


def test_several_inputs_for_one_file_are_refused() -> None:
    with pytest.raises(UsageError, match="one file for several inputs"):
        output_paths("one.png", "sr", "a.png", "b.png")
    wanted = naming("{task}.png")
    pairs, refused = assign_outputs(inputs("a.png", "b.png"), wanted, None)
    assert [item.relative for item, _ in pairs] == ["a.png"]
    assert [str(error) for _, _, error in refused] == [
        "photos/a.png and photos/b.png would both be written to sr.png (try: put {stem} into the template)"
    ]


def test_an_input_is_never_overwritten() -> None:
    wanted = naming("photos/", "denoise")
    pairs, refused = assign_outputs(inputs("a.png", "b.png"), wanted, "photos/")
    assert not pairs
    assert "which is an input" in str(refused[0][2])


@pytest.mark.parametrize(
    ("output", "found", "kept"),
    [
        ("out/a.png", ["a.png"], ["a.png"]),
        ("photos/a.png", ["a_compare.png"], []),
        ("out/", ["a.png", "a_compare.png"], ["a_compare.png"]),
        ("out/", ["a.jpg", "a.jpg_compare.png"], ["a.jpg_compare.png"]),
    ],
)
def test_a_sheet_overwrites_neither_an_input_nor_an_output(output: str, found: list[str], kept: list[str]) -> None:
    wanted = naming(output, "denoise")
    folder = wanted.find_folder(several=len(found) > 1)
    assert len(assign_outputs(inputs(*found), wanted, folder).pairs) == len(found)
    pairs, refused = assign_outputs(inputs(*found), replace(wanted, sheets=True), folder)
    assert [item.relative for item, _ in pairs] == kept
    assert all("the sheet of" in error.message for _, _, error in refused)
