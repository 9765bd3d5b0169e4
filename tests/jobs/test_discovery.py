"""Finding inputs: each once, in natural order, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from systems import IS_ROOT

from restore_cli.errors import NothingToDo
from restore_cli.image.formats.capabilities import FORMAT_BY_SUFFIX
from restore_cli.jobs.discovery import Search, collect_inputs
from restore_cli.jobs.paths import IgnoredFiles, InputSpec, make_natural_key, split_suffix


def found(spec: InputSpec, excluded: str | None = None) -> list[str]:
    search = Search(spec, FORMAT_BY_SUFFIX, excluded=excluded)
    return [item.relative for group in search.find_groups() for item in group]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "page10.png",
        "page2.png",
        "Page3.png",
        ".page1.png",
        "notes.txt",
        "z/page1.JPG",
        ".git/x.png",
        "b/c/d.tif",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    return tmp_path / "photos"


def test_order_is_natural_and_hidden_and_other_files_are_counted(tree: Path) -> None:
    passed = IgnoredFiles()
    groups = list(Search(InputSpec((str(tree),)), FORMAT_BY_SUFFIX, passed).find_groups())
    assert [[item.relative for item in group] for group in groups] == [
        ["page2.png", "Page3.png", "page10.png"],
        ["b/c/d.tif"],
        ["z/page1.JPG"],
    ]
    assert (passed.hidden, passed.others) == (2, 1)


def test_without_sub_folders(tree: Path) -> None:
    assert found(InputSpec((str(tree),), recursive=False)) == ["page2.png", "Page3.png", "page10.png"]


def test_the_folder_of_the_outputs_is_not_searched(tree: Path) -> None:
    assert found(InputSpec((str(tree),)), f"{tree}/b/") == ["page2.png", "Page3.png", "page10.png", "z/page1.JPG"]


@pytest.mark.needs("os.mkfifo")
def test_linked_folders_pipes_and_sockets_are_counted_as_ignored(tree: Path) -> None:
    (tree / "loop").symlink_to(tree)
    (tree / "link.png").symlink_to(tree / "page2.png")
    (tree / "folder.png").symlink_to(tree)
    (tree / "itself").symlink_to("itself")
    os.mkfifo(tree / "pipe.png")
    passed = IgnoredFiles()
    groups = list(Search(InputSpec((str(tree),)), FORMAT_BY_SUFFIX, passed).find_groups())
    assert [item.relative for item in groups[0]] == ["link.png", "page2.png", "Page3.png", "page10.png"]
    assert len(groups) == 3
    assert (passed.linked_folders, passed.others) == (2, 3)


def test_linked_folders_are_followed_once_each_after_the_others(tree: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "one.png").touch()
    (elsewhere / "deep/two.png").touch()
    (elsewhere / "deep/back").symlink_to(elsewhere)
    (elsewhere / "deep/home").symlink_to(tree)
    (tree / "a").symlink_to(elsewhere)
    (tree / "again").symlink_to(elsewhere / "deep")
    (tree / "b/up").symlink_to("../..")  # the folder that holds all of them
    (tree / "itself").symlink_to("itself")
    ordinary = ["page2.png", "Page3.png", "page10.png", "b/c/d.tif", "z/page1.JPG"]
    passed = IgnoredFiles()
    search = Search(InputSpec((str(tree),), follow_links=True), FORMAT_BY_SUFFIX, passed)
    items = [item.relative for group in search.find_groups() for item in group]
    assert items == [*ordinary, "a/one.png", "a/deep/two.png"]
    assert passed.linked_folders == 0
    assert found(InputSpec((str(tree),))) == ordinary
    assert found(InputSpec((str(tree),), recursive=False, follow_links=True)) == ordinary[:3]
    assert found(InputSpec((str(tree),), follow_links=True), str(elsewhere)) == ordinary  # results are no inputs
    assert found(InputSpec((str(tree), str(elsewhere)), follow_links=True)) == items


def test_patterns_end_in_spite_of_links_in_a_circle(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("loop1", "loop2", "b/loop3", "b/c/loop4"):
        (tree / name).symlink_to(tree)
    expected = ["b/c/d.tif", "page2.png", "Page3.png", "page10.png", "z/page1.JPG"]
    assert found(InputSpec((f"{tree}/**/*.*",))) == expected
    assert found(InputSpec((f"{tree}/**/*.*",), follow_links=True)) == expected
    assert found(InputSpec((f"{tree}/**",))) == expected
    assert found(InputSpec((f"{tree}/**/c/**/*.tif",))) == ["b/c/d.tif"]
    monkeypatch.chdir(tree)
    for pattern in ("**", "**/*.*", "./**/*"):
        assert found(InputSpec((pattern,))) == expected
    assert found(InputSpec(("*/**/d.*",))) == ["b/c/d.tif"]
    monkeypatch.chdir(tree / "b")
    assert found(InputSpec(("../**/*.tif",))) == ["b/c/d.tif"]


def test_patterns_that_the_shell_did_not_expand(tree: Path) -> None:
    assert found(InputSpec((f"{tree}/*.png",))) == ["page2.png", "Page3.png", "page10.png"]
    assert found(InputSpec((f"{tree}/**/*.*",))) == ["b/c/d.tif", "page2.png", "Page3.png", "page10.png", "z/page1.JPG"]
    (tree / "odd[1].png").touch()
    assert found(InputSpec((f"{tree}/odd[1].png",))) == ["odd[1].png"]  # a file of that name comes first


def test_a_list_keeps_its_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    listed = ("z/page1.JPG", "../photos/page2.png", f"{tree}/b/c/d.tif", "missing.png", "z/page1.JPG")
    items = [item for group in Search(InputSpec((), listed), FORMAT_BY_SUFFIX).find_groups() for item in group]
    assert [item.relative for item in items] == [
        "z/page1.JPG",
        "photos/page2.png",
        f"{tree}/b/c/d.tif"[1:],
        "missing.png",
    ]
    assert items[3].bytes == -1


def test_a_file_named_twice_is_restored_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert len(found(InputSpec((f"{tree}/page2.png", ".", str(tree), "page2.png", "z/../page2.png")))) == 5


@pytest.mark.needs("os.geteuid")
@pytest.mark.skipif(IS_ROOT, reason="root may look into every folder")
def test_an_unreadable_folder_is_reported(tree: Path) -> None:
    (tree / "z").rename(tree / "z: 1")
    (tree / "z: 1").chmod(0)
    passed = IgnoredFiles()
    list(Search(InputSpec((str(tree),)), FORMAT_BY_SUFFIX, passed).find_groups())
    (tree / "z: 1").chmod(0o755)
    path = f"{tree}/z: 1"
    assert {name: str(error) for name, error in passed.unreadable.items()} == {
        path: f"{path}: cannot be read: Permission denied"
    }


@pytest.mark.parametrize(
    ("first", "second"), [("2", "10"), ("a", "B"), ("a", "a1"), ("a1", "ab"), ("a007", "a08"), ("a1", "a01")]
)
def test_natural_order(first: str, second: str) -> None:
    assert make_natural_key(first) != make_natural_key(second)
    assert sorted([second, first], key=make_natural_key) == (
        [first, second] if first != "a1" or second != "a01" else ["a01", "a1"]
    )


def test_a_folder_without_images_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="no image in"):
        collect_inputs(tmp_path, FORMAT_BY_SUFFIX)


@given(st.text(alphabet="a.B-", min_size=1, max_size=8))
def test_names_split_as_os_path_does(name: str) -> None:
    assert split_suffix(name) == os.path.splitext(name)  # noqa: PTH122
