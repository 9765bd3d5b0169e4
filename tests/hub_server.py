"""A small hub on 127.0.0.1 that serves what the real client needs to download a file, with faults on request.

`/OWNER/NAME/resolve/COMMIT/FILE` answers like a hub: with the file's metadata and a redirect to another origin that has
the bytes, as for LFS files. Datasets are below `/datasets`, and models are not. Addresses without a
repository (`add_url`) are served by the second origin directly.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import quote, unquote

__all__ = ["COMMIT", "NEW_NAME", "PAGE", "Fault", "HubServer", "Request"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 1 << 16
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
RESOLVE = re.compile(r"(/datasets)?/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/")

Fault = Literal[
    "missing", "unauthorized", "forbidden", "limited", "error", "moved", "moved-away", "page", "page-as-file", "short",
    "broken", "cut", "hang", "slow", "wrong", "endless", "no-range", "no-head", "no-answer", "held",
]  # fmt: skip
"""missing: 404; unauthorized: 401; forbidden: 403; limited: 429 with Retry-After; error: 500; moved: 301 to the file;
moved-away: 301 to an address without the file; page: a web page; page-as-file: a web page with the type of a file;
short: half of the file, declared as the whole; broken: every answer ends at half; cut: the first answer ends at half;
hang: the first answer stops at half and waits; slow: pauses between chunks; wrong: other bytes of the same size;
endless: no length and no end; no-range: ranges are ignored; no-head: 405 to HEAD; no-answer: the connection stays open
without an answer; held: no answer until `released` is set."""

REFUSALS = {
    "missing": (404, "EntryNotFound"),
    "unauthorized": (401, "RepoNotFound"),
    "forbidden": (403, "GatedRepo"),
    "limited": (429, "TooManyRequests"),
    "error": (500, "InternalError"),
}
PAGE = b"<!DOCTYPE html><html><head><title>Quota exceeded</title></head><body>Try again later.</body></html>"
NEW_NAME = "renamed-"


@dataclass
class Served:
    """A file and its fault."""

    payload: bytes
    fault: Fault | None = None
    spent: bool = False
    """whether a fault that happens only once has happened"""

    @property
    def bytes_sent(self) -> bytes:
        if self.fault == "short":
            return self.payload[: len(self.payload) // 2]
        return {"wrong": self.payload[::-1], "page-as-file": PAGE}.get(self.fault or "", self.payload)


@dataclass(frozen=True)
class Request:
    """One request."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)


class HubServer:
    """Two origins: the hub (`url`) and the store that it sends downloads to. Use as a context manager."""

    def __init__(self) -> None:
        self.hub = _Server(self, _Hub)
        self.store = _Server(self, _Store)
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.halfway = threading.Event()
        """set when a hanging answer has sent its half"""
        self.closing = threading.Event()
        self.held, self.released = threading.Semaphore(0), threading.Event()
        """released once per held request; set to answer them all"""

    @property
    def url(self) -> str:
        """The address for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.hub.server_port}"

    def add(
        self, repo: str, revision: str, file: str, payload: bytes, fault: Fault | None = None, repo_type: str = "model"
    ) -> Served:
        """Serve a file of a model or dataset repository at a commit."""
        folder = "" if repo_type == "model" else f"/{repo_type}s"
        self.files[f"{folder}/{repo}/resolve/{revision}/{file}"] = served = Served(payload, fault)
        return served

    def add_url(self, path: str, payload: bytes, fault: Fault | None = None) -> str:
        """Serve a file outside any repository. Return its address."""
        self.files[f"/plain/{path}"] = Served(payload, fault)
        return f"http://127.0.0.1:{self.store.server_port}/plain/{quote(path)}"

    def count(self, method: str = "", part: str = "") -> int:
        """Return how many requests of `method` have `part` in their path."""
        return len(self.find_requests(method, part))

    def find_requests(self, method: str = "", part: str = "") -> list[Request]:
        return [r for r in self.requests if r.method.startswith(method) and part in r.path]

    def __enter__(self) -> Self:
        for server in (self.hub, self.store):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.closing.set()
        self.released.set()
        for server in (self.hub, self.store):
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: HubServer, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.owner = owner

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        owner = self.server.owner
        path = unquote(self.path.partition("?")[0])
        owner.requests.append(Request(self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        served = self._find(path.replace(NEW_NAME, ""))
        if served and served.fault == "no-answer":
            owner.closing.wait()
        if served and served.fault == "held":
            owner.held.release()
            owner.released.wait()
        if served and served.fault in ("moved", "moved-away") and NEW_NAME not in path:
            self._head(301, {"Location": quote(self._renamed(path)), "Content-Length": "0"})
        elif (refusal := self._refusal(served, path, body)) is not None:
            status, code = refusal
            wait = {"Retry-After": "3600"} if status == 429 else {}
            self._head(status, {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"} | wait)
        elif served and served.fault == "page":
            self._head(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(PAGE))})
            self.wfile.write(PAGE if body else b"")
        elif served:
            self._serve(served, path, body)

    def _refusal(self, served: Served | None, path: str, body: bool) -> tuple[int, str] | None:
        """Return the status and the error code if the file is refused, else None."""
        if served is None or served.fault == "moved-away":
            return self._absent(path)
        if served.fault == "no-head" and not body:
            return 405, "MethodNotAllowed"
        return REFUSALS.get(served.fault or "")

    def _renamed(self, path: str) -> str:
        """Return the new address of a file that has moved."""
        raise NotImplementedError

    def _find(self, path: str) -> Served | None:
        raise NotImplementedError

    def _absent(self, path: str) -> tuple[int, str]:
        """Return the status and the error code for an unknown file."""
        return REFUSALS["missing"]

    def _serve(self, served: Served, path: str, body: bool) -> None:
        raise NotImplementedError

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print no log."""


class _Hub(_Handler):
    """Serves metadata and the address of the bytes."""

    def _find(self, path: str) -> Served | None:
        return self.server.owner.files.get(path) if "/resolve/" in path else None

    def _renamed(self, path: str) -> str:
        return RESOLVE.sub(lambda found: found[0].replace(found["repo"], NEW_NAME + found["repo"]), path, count=1)

    def _absent(self, path: str) -> tuple[int, str]:
        """A hub says which part is unknown. For an unknown repository it answers 401 to a client without a token."""
        asked = RESOLVE.match(path)
        known = [found for file in self.server.owner.files if (found := RESOLVE.match(file))]
        same = [found for found in known if asked and found.group(1, "repo") == asked.group(1, "repo")]
        if not asked or not same:
            return (404 if "Authorization" in self.headers else 401), "RepoNotFound"
        if not any(found["revision"] == asked["revision"] for found in same):
            return 404, "RevisionNotFound"
        return 404, "EntryNotFound"

    def _serve(self, served: Served, path: str, body: bool) -> None:
        # the correct address and hash, even if the bytes will be wrong
        store = self.server.owner.store.server_port
        headers = {
            "X-Repo-Commit": path.partition("/resolve/")[2].partition("/")[0],
            "ETag": '"pointer"',
            "X-Linked-ETag": f'"{hashlib.sha256(served.payload).hexdigest()}"',
            "X-Linked-Size": str(len(served.payload)),
            "Location": f"http://127.0.0.1:{store}/lfs{quote(path)}",
            "Content-Length": "0",
        }
        self._head(302, headers)


class _Store(_Handler):
    """Serves bytes, with ranges."""

    def _find(self, path: str) -> Served | None:
        return self.server.owner.files.get(path.removeprefix("/lfs"))

    def _renamed(self, path: str) -> str:
        return path.replace("/plain/", f"/plain/{NEW_NAME}")

    def _serve(self, served: Served, path: str, body: bool) -> None:
        data = served.bytes_sent
        asked = RANGE.fullmatch(self.headers.get("Range", "")) if served.fault != "no-range" else None
        start, end = (int(asked[1]), int(asked[2] or len(data) - 1)) if asked else (0, len(data) - 1)
        if start and start >= len(data):
            self._head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            return
        headers = {"Content-Length": str(end + 1 - start), "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        if served.fault == "endless":
            headers = {"Connection": "close"}
        self._head(206 if asked else 200, headers)
        if body:
            self._send(served, data[start : end + 1])

    def _send(self, served: Served, data: bytes) -> None:
        owner, half = self.server.owner, len(data) // 2
        if served.fault in ("cut", "hang") and not served.spent:
            served.spent = True
            self.wfile.write(data[:half])
            self.wfile.flush()
            owner.halfway.set()
            if served.fault == "hang":
                owner.closing.wait()
            self.close_connection = True
            return
        if served.fault == "broken":
            rest = len(served.payload) // 2 - (len(served.payload) - len(data))
            data, self.close_connection = data[: max(rest, 0)], True
        for at in range(0, len(data), CHUNK):
            self.wfile.write(data[at : at + CHUNK])
            if served.fault == "slow":
                time.sleep(0.01)
        while served.fault == "endless" and not owner.closing.is_set():
            self.wfile.write(data)
