"""The hub's client, and what a web address answers through it: its file, or the reason why it has none."""

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

__all__ = ["Moved", "WebPage", "is_offline", "opened", "quiet_client", "refuse_page"]

PERMANENT = (301, 308)
MAX_REDIRECTS = 10
TITLE = re.compile(rb"<title[^>]*>(.{1,200}?)</title", re.IGNORECASE | re.DOTALL)
PAGE_LIMIT = 1 << 16
"""bytes of a page in which its title is looked for"""


class Moved(WeightsUnavailable):
    """A permanent redirect, as of a renamed repository: the old name may belong to someone else some day."""

    def __init__(self, target: str) -> None:
        super().__init__(f"moved to {target}")
        self.target = target


class WebPage(WeightsUnavailable):
    """A page for people, as of a quota or a login, in place of the file."""


@contextmanager
def _no_log() -> Iterator[None]:
    """Silence the log of the hub's library."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


_NO_LOG = SharedContext(_no_log)


@contextmanager
def quiet_client() -> Iterator[None]:
    """The hub's library neither logs nor warns: what went wrong is in our own error."""
    with NO_WARNINGS, _NO_LOG:
        yield


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids any request."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


@contextmanager
def opened(
    url: str, method: str = "GET", headers: dict[str, str] | None = None, timeout: float | None = None
) -> Iterator[Response]:
    """The answer of `url` with its body not yet read, through the hub client's own session (proxies, certificates).

    Temporary redirects are followed. Raises Moved, WebPage, or the client's own error for a status that is a refusal.
    """
    from huggingface_hub import constants, get_session

    wait = timeout or constants.HF_HUB_DOWNLOAD_TIMEOUT
    asked = {"Accept-Encoding": "identity"} | (headers or {})  # a compressed body has another size
    for _ in range(MAX_REDIRECTS):
        with get_session().stream(method, url, headers=asked, timeout=wait, follow_redirects=False) as response:
            if not response.has_redirect_location:
                _refuse(response)
                yield response
                return
            target = str(response.url.join(response.headers["Location"]))
            if response.status_code in PERMANENT and _place(target) != _place(url):
                raise Moved(target)
            url = target
    raise WeightsUnavailable(f"redirects more than {MAX_REDIRECTS} times")


def refuse_page(head: bytes) -> None:
    """Raises WebPage where the first bytes of a file are those of a page."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise _web_page(head)


def _refuse(response: Response) -> None:
    response.raise_for_status()
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _web_page(next(response.iter_bytes(PAGE_LIMIT), b""))


def _place(url: str) -> tuple[str | None, str]:
    """What stays the same where a redirect leads from http to https."""
    parts = urlsplit(url)
    return parts.hostname, parts.path


def _web_page(head: bytes) -> WebPage:
    found = TITLE.search(head)
    title = " ".join(html.unescape(found[1].decode("utf-8", "replace")).split())[:60] if found else ""
    return WebPage(f"sent a web page{f' ({title})' if title else ''}, not the file")
