"""The shipped catalogue is complete, requests select the right entries, and errors in a user's file are one line."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from golden_files import GOLDEN, convert_config, read_golden
from hypothesis import given
from hypothesis import strategies as st

from restore_cli.errors import UsageError
from restore_cli.models import network
from restore_cli.models.load import build_module
from restore_cli.weights.architectures import ARCHITECTURES, SpandrelConfig
from restore_cli.weights.catalogue import Request, read_catalogue
from restore_cli.weights.entry import TASKS, Entry, HubSource, Source, UrlSource

CATALOGUE = read_catalogue()
ENTRIES = {entry.name: entry for entry in CATALOGUE.entries}
PUBLISHED = [entry for entry in CATALOGUE.entries if entry.model != "lite"]


def select_names(request: Request) -> list[str]:
    return [entry.name for entry in CATALOGUE.select(request)]


def test_the_catalogue_holds_the_63_published_checkpoints() -> None:
    assert len(PUBLISHED) == 63
    assert len(CATALOGUE.entries) == len(ENTRIES)
    assert {entry.model for entry in PUBLISHED} == {"swinir", "hat", "restormer", "emt"}
    assert len({(e.task, e.model, e.variant, e.scale, e.noise, e.quality, e.channels) for e in PUBLISHED}) == 63


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_an_entry_is_complete(entry: Entry) -> None:
    assert entry.sources
    for source in entry.sources:
        if isinstance(source, UrlSource):
            assert urlsplit(source.url).scheme == "https"
    assert entry.paper is not None
    assert entry.suffix == (".safetensors" if entry.bundled else ".pth")
    assert (entry.origin is not None) == entry.bundled
    assert entry.license in ("Apache-2.0", "MIT") or entry.license_note
    assert entry.model == entry.architecture
    assert (entry.noise is not None) == (entry.task == "denoise")
    assert (entry.quality is not None) == (entry.task == "dejpeg")
    assert (entry.scale > 1) == (entry.task == "sr")


AUTHORS = ("github.com/JingyunLiang/", "github.com/swz30/", "raw.githubusercontent.com/Fried-Rice-Lab/")
QUOTA = "drive.usercontent.google.com"
UNSURE = {"Aptronym/SDNext"}
"""its files are on a branch that was never merged"""


def find_service(source: Source) -> str:
    """Return the service on which a source depends."""
    if not isinstance(source, UrlSource):
        return "hub" if isinstance(source, HubSource) else "bundled"
    host = urlsplit(source.url).hostname or ""
    return {"raw.githubusercontent.com": "github.com", QUOTA: "google.com"}.get(host, host)


@pytest.mark.parametrize("entry", [e for e in PUBLISHED if not e.bundled], ids=lambda entry: entry.name)
def test_an_entry_has_two_services_or_says_why_not(entry: Entry) -> None:
    services = {find_service(source) for source in entry.sources}
    assert (len(services) < 2) == (entry.single_source is not None), services
    assert len(set(entry.sources)) == len(entry.sources)


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_no_source_is_a_branch_or_a_tag(entry: Entry) -> None:
    """Files of a release are not in a commit. Their sha256 pins them."""
    origin = [UrlSource(entry.origin.url)] if entry.origin else []
    for source in [*entry.sources, *origin]:
        if isinstance(source, HubSource):
            assert re.fullmatch("[0-9a-f]{40}", source.revision)
        elif isinstance(source, UrlSource):
            folders = urlsplit(source.url).path.split("/")
            assert not {"raw", "resolve", "blob", "tree"} & set(folders)
            if urlsplit(source.url).hostname == "raw.githubusercontent.com":
                assert re.fullmatch("[0-9a-f]{40}", folders[3])


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_sources_are_in_order_of_reliability(entry: Entry) -> None:
    order = [rank_source(source) for source in entry.sources]
    late = [place for place in order if place is not None]
    assert late == sorted(late)
    assert order == sorted(order, key=lambda place: place == 3)
    if entry.sha256 is None:  # without a sha256, a wrong file of a hub could not be noticed
        assert order[0] == 0


def rank_source(source: Source) -> int | None:
    """Return 0 for authors, 1 mirrors, 2 unreliable hubs, 3 quotas. None is for other hubs, which may come anywhere."""
    if isinstance(source, HubSource):
        return 2 if source.repo in UNSURE or source.repo_type == "dataset" else None
    url = source.url if isinstance(source, UrlSource) else ""
    return 3 if QUOTA in url else 0 if any(author in url for author in AUTHORS) else 1


def test_every_config_is_a_published_one_with_its_number_of_parameters() -> None:
    forms = json.loads((GOLDEN / "fingerprints.json").read_text()).values()
    published = [
        (
            form["architecture"],
            convert_config(form["architecture"], form["hyperparameters"]),
            form["trainable_parameters"],
        )
        for form in forms
    ]
    for entry in PUBLISHED:
        ours = json.loads(json.dumps(dict(entry.config)))  # tuples as lists
        assert (entry.architecture, ours, entry.parameters) in published, entry.name


def test_an_architecture_of_the_catalogue_is_one_of_the_networks() -> None:
    ours = {name: pair[0] for name, pair in network.ARCHITECTURES.items()}
    assert ours | {"spandrel": SpandrelConfig} == ARCHITECTURES


@pytest.mark.parametrize("form", ["swinir_classical_x4", "hat_x4"])
def test_dropped_buffers_are_those_that_only_a_published_file_has(form: str) -> None:
    architecture, ours, weights, _, _ = read_golden(form)
    model = build_module(architecture, ours)
    entry = next(entry for entry in CATALOGUE.entries if entry.architecture == architecture)
    kept = {key for key in weights if not any(fnmatch(key, pattern) for pattern in entry.drop)}
    assert kept == set(model.state_dict())


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request("sr"), ["emt-x4", "swinir-classical-x4"]),
        (Request("sr", scale=2), ["emt-x2", "swinir-classical-x2"]),
        (Request("sr", scale=8), ["swinir-classical-x8"]),
        (Request("sr", "hat"), ["hat-x4"]),
        (Request("sr", "hat", "real-sharper"), ["hat-real-sharper-x4"]),
        (Request("sr", "swinir"), ["swinir-classical-x4"]),
        (Request("sr", "swinir", "real"), ["swinir-real-x4"]),
        (Request("sr", "swinir", "real-medium", 2), ["swinir-real-medium-x2"]),
        (Request("sr", "swinir", "real-medium-raw"), ["swinir-real-medium-raw-x2"]),
        (Request("sr", variant="small"), ["hat-small-x4"]),
        (Request("denoise"), ["lite-denoise", "restormer-denoise-real", "swinir-denoise-color-25"]),
        (Request("denoise", noise="25"), ["restormer-denoise-color-25", "swinir-denoise-color-25"]),
        (Request("denoise", noise="blind"), ["lite-denoise", "restormer-denoise-color-blind"]),
        (Request("denoise", "restormer", "gaussian"), ["restormer-denoise-color-blind"]),
        (Request("denoise", "swinir"), ["swinir-denoise-color-25"]),
        (Request("denoise", "swinir", noise="50", channels=1), ["swinir-denoise-gray-50"]),
        (Request("denoise", channels=1), ["lite-denoise", "restormer-denoise-real", "swinir-denoise-gray-25"]),
        (Request("deblur"), ["restormer-deblur-motion"]),
        (Request("deblur", variant="defocus"), ["restormer-deblur-defocus"]),
        (Request("deblur", variant="dual-pixel"), ["restormer-deblur-dual-pixel"]),
        (Request("derain", channels=1), ["restormer-derain"]),
        (Request("dejpeg"), ["lite-dejpeg", "swinir-jpeg-color-40"]),
        (Request("dejpeg", "swinir", quality=1), ["swinir-jpeg-color-10"]),
        (Request("dejpeg", quality=25), ["lite-dejpeg", "swinir-jpeg-color-20"]),
        (Request("dejpeg", "swinir", quality=26, channels=1), ["swinir-jpeg-gray-30"]),
        (Request("dejpeg", "lite", quality=95), ["lite-dejpeg"]),
    ],
)
def test_a_request_selects(request_: Request, expected: list[str]) -> None:
    assert select_names(request_) == expected


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("sharpen"), ["no task 'sharpen'", "sr, denoise, deblur, derain, dejpeg"]),
        (Request("sr", "hta"), ["no model 'hta' (did you mean hat?)", "emt, hat, lite, restormer, swinir"]),
        (Request("sr", "restormer"), ["restormer has no checkpoint for sr", "denoise, deblur, derain", "--model emt"]),
        (
            Request("sr", "hat", "smal"),
            ["hat has no variant smal", "(did you mean small?)", "real-sharper", "--model hat"],
        ),
        (
            Request("sr", "hat", scale=5),
            ["hat has no scale ×5 for sr", "×2, ×3, ×4", "restore models --task sr --model hat"],
        ),
        (Request("sr", scale=5), ["no model has scale ×5", "×2, ×3, ×4, ×8"]),
        (Request("sr", "swinir", "real", 2), ["swinir real has no scale ×2", "there is ×4"]),
        (Request("denoise", noise="99"), ["no model has noise 99", "25, 15, 50"]),
        (Request("denoise", "swinir", noise="blind"), ["swinir has no noise blind"]),
        (Request("sr", noise="25"), ["sr takes no noise"]),
        (Request("deblur", quality=10), ["deblur takes no quality"]),
        (Request("dejpeg", quality=101), ["quality 101", "1 to 100"]),
        (Request("denoise", scale=4), ["no model has scale ×4 for denoise", "there is ×1"]),
    ],
)
def test_an_error_for_an_impossible_request_lists_what_exists(request_: Request, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        CATALOGUE.select(request_)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


def test_an_error_for_an_unknown_name_suggests_the_nearest() -> None:
    assert CATALOGUE.find_entry("hat-x4") is ENTRIES["hat-x4"]
    with pytest.raises(UsageError, match=r"no checkpoint is named 'hatx4' \(did you mean hat-x4\?\).*restore models"):
        CATALOGUE.find_entry("hatx4")


requests = st.builds(
    Request,
    task=st.sampled_from(TASKS),
    model=st.sampled_from([None, "swinir", "hat", "restormer", "emt"]),
    variant=st.sampled_from([None, *sorted({entry.variant for entry in CATALOGUE.entries})]),
    scale=st.sampled_from([None, 1, 2, 3, 4, 8]),
    noise=st.sampled_from([None, "15", "25", "50", "blind", "real"]),
    quality=st.none() | st.integers(1, 100),
    channels=st.sampled_from([1, 3]),
)


@given(requests)
def test_a_requested_model_is_never_replaced(request_: Request) -> None:
    try:
        chosen = CATALOGUE.select(request_)
    except UsageError:
        return
    assert chosen
    assert len({entry.model for entry in chosen}) == len(chosen)
    if request_.model or request_.variant:
        assert len(chosen) == 1
    for entry in chosen:
        for field in ("task", "model", "variant", "scale", "noise"):
            assert getattr(request_, field) in (None, getattr(entry, field))
        assert entry.channels != 1 or request_.channels == 1
        assert entry.channels != 6 or request_.variant == entry.variant


OWN = """
[mine-x2]
title = "Mine"
task = "sr"
model = "hat"
variant = "mine"
license = "MIT"
sources = [{ url = "https://example.org/mine.safetensors" }]
[mine-x2.hat]
scale = 2
dim = 180
depths = [6]
heads = [6]
window = 16
compress = 3
squeeze = 30
conv_scale = 0.01
overlap_ratio = 0.5
mlp_ratio = 2
"""


def test_a_users_file_adds_and_overrides_and_may_change_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(OWN)
    two.write_text(
        OWN.replace("mine-x2", "emt-x2").replace('mine"', 'other"').replace("Mine", "Other")
        + '[defaults]\nsr = ["hat"]\n'
    )
    monkeypatch.setenv("RESTORE_WEIGHTS_TOML", str(one))
    both = read_catalogue(two)
    assert len(both.entries) == len(CATALOGUE.entries) + 1
    assert (both.find_entry("mine-x2").suffix, both.find_entry("mine-x2").sha256) == (".safetensors", None)
    assert both.find_entry("emt-x2").title == "Other"
    assert [entry.name for entry in both.select(Request("sr"))] == ["hat-x4"]
    assert [entry.name for entry in both.select(Request("sr", "hat", "mine"))] == ["mine-x2"]
    assert both.defaults["denoise"] == CATALOGUE.defaults["denoise"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("title", "titel", ["mine-x2", "title", "found nothing", "expected a text"]),
        ('license = "MIT"', 'license = "MIT"\nlicence = "MIT"', ["unknown field licence (did you mean license?)"]),
        ('"sr"', '"upscale"', ["task: found 'upscale'", "expected one of sr, denoise"]),
        ("scale = 2", "scale = 2.5", ["mine-x2.hat: scale: found 2.5, expected a whole number above 0"]),
        ("scale = 2", "scale = true", ["scale: found True"]),
        ("dim = 180", "dim = -1", ["dim: found -1"]),
        ("mlp_ratio = 2", "mlp_ratio = nan", ["mlp_ratio: found nan, expected a number above 0"]),
        ("depths = [6]", 'depths = [6, "6"]', ["depths: found [6, '6'], expected a list of whole numbers above 0"]),
        ("dim = 180\n", "", ["mine-x2.hat: dim: found nothing"]),
        ("[mine-x2.hat]", "[mine-x2.hut]", ["unknown architecture hut (did you mean hat?)"]),
        ("[mine-x2.hat]", "[mine-x2.hat]\nwindows = 3", ["unknown field windows (did you mean window?)"]),
        ("mine-x2", "Mine_x2", ["name: found 'Mine_x2'", "small letters"]),
        ("mine-x2", '"../mine"', ["name: found '../mine'"]),
        ('{ url = "https://example.org/mine.safetensors" }', "", ["sources: found none"]),
        ("https://", "file://", ["mine-x2.sources[0]: url: found 'file://", "expected an http or https address"]),
        ("https://example.org/", "https:///", ["expected an http or https address"]),
        ('url = "https://', 'ftp = "https://', ["sources[0]: hub: found nothing"]),
        (
            'url = "https://example.org/mine.safetensors"',
            'bundled = "../x"',
            ["bundled: found '../x', expected the bare"],
        ),
        ("https://example.org/mine", "https://[", ["address"]),
        ('license = "MIT"', 'license = "MIT"\nsha256 = "ABC"', ["sha256: found 'ABC', expected 64 small"]),
        ('license = "MIT"', 'license = "MIT"\norigin = "a.pth"', ["mine-x2: origin: found 'a.pth', expected a table"]),
        (
            'license = "MIT"',
            'license = "MIT"\norigin = { url = "a", sha256 = "b" }',
            ["mine-x2.origin: url: found 'a'"],
        ),
        (
            'license = "MIT"',
            'license = "MIT"\norigin = { url = "https://a/b", sha256 = "b" }',
            ["mine-x2.origin: sha256: found 'b', expected 64 small"],
        ),
        ('title = "Mine"', "title = Mine", ["not TOML", "line 3"]),
        ("[mine-x2]", '[defaults]\nsr = ["hot"]\n[mine-x2]', ["defaults: sr: found 'hot'", "emt, hat"]),
        ("[mine-x2]", 'title = "x"\n[mine-x2]', ["title: found 'x', expected a table"]),
    ],
)
def test_a_mistake_in_a_users_file_is_one_line_with_the_place(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace(old, new))
    with pytest.raises(UsageError) as caught:
        read_catalogue(file)
    line = str(caught.value)
    assert line.startswith(f"{file}: ")
    assert "\n" not in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("hub", "revision", "file", "word"),
    [
        ("owner", "0" * 40, "a.pth", "owner/name"),
        ("../owner", "0" * 40, "a.pth", "owner/name"),
        ("owner/name", "main", "a.pth", "a commit"),
        ("owner/name", "0" * 40, "../a.pth", "inside the repository"),
        ("owner/name", "0" * 40, "/etc/a.pth", "inside the repository"),
        ("owner/name", "0" * 40, "a\\\\b.pth", "inside the repository"),
        ("owner/name", "0" * 40, 'a.pth", repo_type = "space', "repo_type: found 'space', expected model or dataset"),
    ],
)
def test_a_hub_source_is_pinned_and_stays_inside_its_repository(
    tmp_path: Path, hub: str, revision: str, file: str, word: str
) -> None:
    own = tmp_path / "own.toml"
    source = f'{{ hub = "{hub}", revision = "{revision}", file = "{file}" }}'
    own.write_text(OWN.replace('{ url = "https://example.org/mine.safetensors" }', source))
    with pytest.raises(UsageError, match=word):
        read_catalogue(own)


@pytest.mark.parametrize(
    ("field", "repo_type"), [("", "model"), ('repo_type = "model", ', "model"), ('repo_type = "dataset", ', "dataset")]
)
def test_a_hub_source_is_a_model_unless_it_says_dataset(tmp_path: Path, field: str, repo_type: str) -> None:
    own = tmp_path / "own.toml"
    source = f'{{ hub = "owner/name", {field}revision = "{"0" * 40}", file = "a.pth" }}'
    own.write_text(OWN.replace('{ url = "https://example.org/mine.safetensors" }', source))
    assert read_catalogue(own).find_entry("mine-x2").sources == (HubSource("owner/name", "0" * 40, "a.pth", repo_type),)


def test_a_missing_binary_or_enormous_file_is_refused(tmp_path: Path) -> None:
    binary, large = tmp_path / "binary.toml", tmp_path / "large.toml"
    binary.write_bytes(b"\xff\xfe")
    large.write_bytes(b"#" * (4 * 2**20 + 1))
    for file, word in [(tmp_path / "no.toml", "No such file"), (binary, "not TOML"), (large, "larger than")]:
        with pytest.raises(UsageError, match=word):
            read_catalogue(file)
