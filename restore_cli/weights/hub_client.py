"""HTTP requests through the client of huggingface_hub, with its proxies, certificates and timeouts."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from restore_cli.errors import WeightsUnavailable
from restore_cli.shared_context import NO_WARNINGS, SharedContext

if TYPE_CHECKING:
    from httpx2 import Response

__all__ = ["MovedError", "WebPageError", "is_offline", "open_response", "refuse_page", "silence_client"]

PERMANENT = (301, 308)
MAX_REDIRECTS = 10
TITLE = re.compile(rb"<title[^>]*>(.{1,200}?)</title", re.IGNORECASE | re.DOTALL)
PAGE_LIMIT = 1 << 16
"""bytes of a page that are searched for its title"""


class MovedError(WeightsUnavailable):
    """A permanent redirect, for example of a renamed repository. Someone else may own the old name later."""

    def __init__(self, target: str) -> None:
        super().__init__(f"moved to {target}")
        self.target = target


class WebPageError(WeightsUnavailable):
    """A web page, for example about a quota or a login, instead of the file."""


@contextmanager
def _no_log() -> Iterator[None]:
    """Turn off the log of huggingface_hub."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


_NO_LOG = SharedContext(_no_log)


@contextmanager
def silence_client() -> Iterator[None]:
    """Turn off the log and the warnings of huggingface_hub, because our own errors give the reason."""
    with NO_WARNINGS, _NO_LOG:
        yield


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids requests."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


@contextmanager
def open_response(
    url: str, method: str = "GET", headers: dict[str, str] | None = None, timeout: float | None = None
) -> Iterator[Response]:
    """Open the response of `url`, without its body. Temporary redirects are followed.

    Raises MovedError, WebPageError, and the client's own error for a status that reports a failure.
    """
    from huggingface_hub import constants, get_session

    wait = timeout or constants.HF_HUB_DOWNLOAD_TIMEOUT
    asked = {"Accept-Encoding": "identity"} | (headers or {})  # a compressed body has another size
    for _ in range(MAX_REDIRECTS):
        with get_session().stream(method, url, headers=asked, timeout=wait, follow_redirects=False) as response:
            if not response.has_redirect_location:
                _refuse_failure(response)
                yield response
                return
            target = str(response.url.join(response.headers["Location"]))
            if response.status_code in PERMANENT and _read_host_and_path(target) != _read_host_and_path(url):
                raise MovedError(target)
            url = target
    raise WeightsUnavailable(f"redirects more than {MAX_REDIRECTS} times")


def refuse_page(head: bytes) -> None:
    """Raise WebPageError if a file begins as a web page does."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise _make_web_page_error(head)


def _refuse_failure(response: Response) -> None:
    response.raise_for_status()
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _make_web_page_error(next(response.iter_bytes(PAGE_LIMIT), b""))


def _read_host_and_path(url: str) -> tuple[str | None, str]:
    """Return the parts of an address that a redirect from http to https keeps."""
    parts = urlsplit(url)
    return parts.hostname, parts.path


def _make_web_page_error(head: bytes) -> WebPageError:
    found = TITLE.search(head)
    title = " ".join(html.unescape(found[1].decode("utf-8", "replace")).split())[:60] if found else ""
    return WebPageError(f"sent a web page{f' ({title})' if title else ''}, not the file")
