"""Size, sha256 and commit of a checkpoint, as its source states them before a download."""

from __future__ import annotations

import re
from dataclasses import dataclass

from restore_cli.errors import WeightsUnavailable
from restore_cli.weights.download_errors import read_status
from restore_cli.weights.entry import HubSource, UrlSource
from restore_cli.weights.hub_client import WebPageError, open_response

__all__ = ["SourceInfo", "query_source"]

NOT_ALLOWED = (405, 501)
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class SourceInfo:
    """What a source states about its file. None means that it does not say."""

    size: int | None = None
    """bytes"""
    sha256: str | None = None
    revision: str | None = None
    """the commit, if the source is a hub"""


def query_source(source: HubSource | UrlSource) -> SourceInfo:
    """Read the metadata of a file on a hub, or the headers of a web address.

    Each step waits for at most HF_HUB_ETAG_TIMEOUT, by default 10 seconds. There is one attempt. Raises
    WeightsUnavailable, and the errors of the client.
    """
    return _query_hub(source) if isinstance(source, HubSource) else SourceInfo(_query_size(source.url))


def _query_hub(source: HubSource) -> SourceInfo:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repo, source.file, repo_type=source.repo_type, revision=source.revision)
    there = get_hf_file_metadata(url)
    if there.commit_hash is None:
        raise WebPageError("sent a web page, not the metadata of a file")
    if there.commit_hash != source.revision:
        raise WeightsUnavailable(f"answers for commit {there.commit_hash[:12]}, not {source.revision[:12]}")
    sha256 = there.etag if there.etag and SHA256.fullmatch(there.etag) else None
    return SourceInfo(there.size, sha256, there.commit_hash)


def _query_size(url: str) -> int | None:
    from huggingface_hub import constants

    wait = float(constants.HF_HUB_ETAG_TIMEOUT)
    try:
        with open_response(url, "HEAD", timeout=wait) as response:
            length = response.headers.get("Content-Length", "")
    except Exception as error:
        if read_status(error) not in NOT_ALLOWED:
            raise
        with open_response(url, headers={"Range": "bytes=0-0"}, timeout=wait) as response:
            whole = response.headers.get("Content-Range", "").rpartition("/")[2]
            length = whole or response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None
