"""What a source says of its file before anything is downloaded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.address import WebPage, opened
from restore_cli.weights.entry import HubSource, UrlSource
from restore_cli.weights.reasons import status

__all__ = ["Answer", "ask"]

NOT_ALLOWED = (405, 501)
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Answer:
    """What a source states; None where it states nothing."""

    size: int | None = None
    """bytes"""
    sha256: str | None = None
    revision: str | None = None
    """the commit, of a hub"""


def ask(source: HubSource | UrlSource) -> Answer:
    """A hub's metadata of the file, or the headers of an address.

    Waits no longer than HF_HUB_ETAG_TIMEOUT, 10 seconds, for any step of the answer. Raises whatever the client does,
    without another attempt.
    """
    return _ask_hub(source) if isinstance(source, HubSource) else Answer(_size(source.url))


def _ask_hub(source: HubSource) -> Answer:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repo, source.file, repo_type=source.repo_type, revision=source.revision)
    there = get_hf_file_metadata(url)
    if there.commit_hash is None:
        raise WebPage("sent a web page, not the metadata of a file")
    if there.commit_hash != source.revision:
        raise WeightsUnavailable(f"answers for commit {there.commit_hash[:12]}, not {source.revision[:12]}")
    sha256 = there.etag if there.etag and SHA256.fullmatch(there.etag) else None
    return Answer(there.size, sha256, there.commit_hash)


def _size(url: str) -> int | None:
    from huggingface_hub import constants

    wait = float(constants.HF_HUB_ETAG_TIMEOUT)
    try:
        with opened(url, "HEAD", timeout=wait) as response:
            length = response.headers.get("Content-Length", "")
    except Exception as error:
        if status(error) not in NOT_ALLOWED:
            raise
        with opened(url, headers={"Range": "bytes=0-0"}, timeout=wait) as response:
            whole = response.headers.get("Content-Range", "").rpartition("/")[2]
            length = whole or response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None
