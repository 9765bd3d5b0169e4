"""A checkpoint of the catalogue: its sources, its sha256 and size, its task and its network."""

from __future__ import annotations

import copyreg
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import urlsplit

from restore_cli.weights.architectures import ARCHITECTURES
from restore_cli.weights.table import FieldType, Table, matching, one_of, read_field_types, suggest

__all__ = [
    "TASKS",
    "BundledSource",
    "Entry",
    "HubSource",
    "Origin",
    "Source",
    "UrlSource",
    "read_entry",
]

TASKS = ("sr", "denoise", "deblur", "derain", "dejpeg")
SUFFIXES = (".pth", ".safetensors", ".pt", ".ckpt")

SOURCES = FieldType[list[Any]]("a list of sources", "lists", lambda found: found if isinstance(found, list) else None)
ORIGIN = FieldType[dict[str, Any]]("a table", "tables", lambda found: found if isinstance(found, dict) else None)

NAME = matching("small letters, digits and single hyphens", re.compile(r"[a-z0-9]+(-[a-z0-9]+)*").fullmatch)
REPOSITORY_TYPE = one_of("model", "dataset")
SHA256 = matching("64 small hexadecimal digits", re.compile(r"[0-9a-f]{64}").fullmatch)
COMMIT = matching("a commit, 40 small hexadecimal digits", re.compile(r"[0-9a-f]{40}").fullmatch)
REPOSITORY = matching("owner/name", re.compile(r"[A-Za-z0-9_-][\w.-]*/[A-Za-z0-9_-][\w.-]*", re.ASCII).fullmatch)
INSIDE = matching(
    "a path inside the repository",
    lambda path: "\\" not in path and all(part.strip(".") for part in path.split("/")),
)
BARE_NAME = matching(
    "the bare name of a file",
    lambda name: name == PurePosixPath(name).name and not name.startswith(".") and "\\" not in name,
)


def is_web_url(url: str) -> bool:
    """Whether this is an http(s) address with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


WEB_URL = matching("an http or https address", is_web_url)


@dataclass(frozen=True)
class HubSource:
    """A file in a hub repository, at a fixed commit."""

    repo: str
    revision: str
    file: str
    repo_type: str = "model"
    """model or dataset; with the wrong one the hub does not find the repository"""

    def __str__(self) -> str:
        return f"hub {self.repo}" if self.repo_type == "model" else f"hub {self.repo_type}s/{self.repo}"


@dataclass(frozen=True)
class UrlSource:
    """A file at an http(s) address."""

    url: str

    def __str__(self) -> str:
        """The host, without a password; at GitHub with the repository."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        at_github = host.endswith(("github.com", "githubusercontent.com"))
        return host + "/".join(parts.path.split("/")[:3]) if at_github else host


@dataclass(frozen=True)
class BundledSource:
    """A file that ships with the package, under weights/bundled/."""

    file: str

    def __str__(self) -> str:
        return "bundled"


Source = HubSource | UrlSource | BundledSource


@dataclass(frozen=True)
class Origin:
    """The published file that a bundled checkpoint was made from; it is never fetched."""

    url: Annotated[str, WEB_URL]
    sha256: Annotated[str, SHA256]


@dataclass(frozen=True)
class Entry:
    """One checkpoint of the catalogue; `config` holds the fields of the architecture's Config."""

    name: str
    title: str
    task: Annotated[str, one_of(*TASKS)]
    model: str
    """the family a user names"""
    variant: str
    license: str
    sources: tuple[Source, ...]
    architecture: str
    config: Mapping[str, Any] = field(hash=False)
    noise: str | None = None
    """15, 25, 50, blind or real"""
    quality: int | None = None
    """JPEG quality of the training images"""
    license_note: str | None = None
    """conditions of the licence that users must know"""
    paper: str | None = None
    parameters: int | None = None
    sha256: Annotated[str, SHA256] | None = None
    """If None, no sha256 is published. The sha256 of the first download is recorded, and later files must have it."""
    bytes: int | None = None
    key: str | None = None
    """key of the state dict in the file; a file without that key is the state dict itself"""
    drop: tuple[str, ...] = ()
    """patterns of the names of buffers in the file that our code computes itself"""
    single_source: str | None = None
    """the reason why all sources belong to one service"""
    origin: Origin | None = None
    """the file from which a bundled one was converted"""

    @property
    def scale(self) -> int:
        return int(self.config.get("scale", 1))

    @property
    def channels(self) -> int:
        """Input channels: 1, 3, or 6 (dual pixel)."""
        return int(self.config.get("channels", self.config.get("channels_in", 3)))

    @property
    def bundled(self) -> bool:
        """Whether the file is part of the package."""
        return any(isinstance(source, BundledSource) for source in self.sources)

    @property
    def suffix(self) -> str:
        """Suffix of the cached file: that of the first source with a known one."""
        for source in self.sources:
            name = urlsplit(source.url).path if isinstance(source, UrlSource) else source.file
            if PurePosixPath(name).suffix in SUFFIXES:
                return PurePosixPath(name).suffix
        return SUFFIXES[0]


ENTRY_FIELDS = read_field_types(Entry, without=("name", "sources", "architecture", "config", "origin"))
ORIGIN_FIELDS = read_field_types(Origin)
CONFIG_FIELDS = {name: read_field_types(config) for name, config in ARCHITECTURES.items()}


def read_entry(file: Path, name: str, value: object) -> Entry:
    """Read the table `name` of a catalogue file. Raises UsageError for the first mistake."""
    table = Table(file, name, value)
    if NAME.read(name) is None:
        table.refuse(f"name: found {name!r}, expected {NAME.words}")
    origin = _read_origin(table)  # what remains as a sub-table is the network
    values = table.read_fields(ENTRY_FIELDS)
    sources, (architecture, config) = _read_sources(table), _read_architecture(table)
    entry = Entry(name, sources=sources, architecture=architecture, config=config, origin=origin, **values)
    table.close()
    if entry.channels not in (1, 3, 6):
        table.refuse(f"{architecture}: found {entry.channels} channels, expected 1, 3 or 6")
    return entry


def _read_architecture(table: Table) -> tuple[str, Mapping[str, Any]]:
    """Read the sub-table of the network: the name of the architecture, and the fields of its configuration."""
    names = [name for name, value in table.rest.items() if isinstance(value, dict)]
    table.known += ARCHITECTURES
    if len(names) != 1:
        table.refuse(f"found {len(names)} sub-tables, expected one named {' or '.join(ARCHITECTURES)}")
    name = names[0]
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        table.refuse(f"unknown architecture {name}{suggest(name, ARCHITECTURES)}; expected one of {known}")
    inner = Table(table.file, f"{table.place}.{name}", table.rest.pop(name))
    config = inner.read_fields(CONFIG_FIELDS[name])
    inner.close()
    return name, freeze(config)


def _read_sources(table: Table) -> tuple[Source, ...]:
    items = table.read_required("sources", SOURCES)
    if not items:
        table.refuse("sources: found none, expected at least one")
    return tuple(_read_source(Table(table.file, f"{table.place}.sources[{i}]", item)) for i, item in enumerate(items))


def _read_source(table: Table) -> Source:
    source: Source
    if (url := table.read_optional("url", WEB_URL)) is not None:
        source = UrlSource(url)
    elif (bundled := table.read_optional("bundled", BARE_NAME)) is not None:
        source = BundledSource(bundled)
    else:
        repo, revision = table.read_required("hub", REPOSITORY), table.read_required("revision", COMMIT)
        file, repo_type = table.read_required("file", INSIDE), table.read_optional("repo_type", REPOSITORY_TYPE)
        source = HubSource(repo, revision, file, repo_type or "model")
    table.close()
    return source


def _read_origin(table: Table) -> Origin | None:
    given = table.read_optional("origin", ORIGIN)
    if given is None:
        return None
    inner = Table(table.file, f"{table.place}.origin", given)
    origin = Origin(**inner.read_fields(ORIGIN_FIELDS))
    inner.close()
    return origin


def freeze(config: dict[str, Any]) -> MappingProxyType[str, Any]:
    """Return a view of `config` that cannot be changed."""
    return MappingProxyType(config)


copyreg.pickle(MappingProxyType, lambda view: (freeze, (dict(view),)))  # entries are sent to other processes
