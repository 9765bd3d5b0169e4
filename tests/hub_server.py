"""A small hub on 127.0.0.1: what the real client needs to download a file, and the ways in which that goes wrong.

`/OWNER/NAME/resolve/COMMIT/FILE` answers like a hub: the file's metadata and a redirect to another origin (as for LFS
files), where the bytes are. Datasets are found under `/datasets` and models are not, as on a hub. Addresses without a
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

__all__ = ["COMMIT", "Fault", "HubServer", "Seen"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 1 << 16
RESOLVE = re.compile(r"(/datasets)?/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/")

Fault = Literal["missing", "unauthorized", "error", "cut", "hang", "slow", "wrong", "endless", "deaf"]
"""missing: 404; unauthorized: 401; error: 500; cut: the first answer breaks off halfway; hang: it stops halfway and
waits; slow: a pause between chunks; wrong: other bytes, as many; endless: no length and no end; deaf: no ranges."""

REFUSALS = {
    "missing": (404, "EntryNotFound"),
    "unauthorized": (401, "RepoNotFound"),
    "error": (500, "InternalError"),
}


@dataclass
class Served:
    """A file, and what is the matter with it."""

    payload: bytes
    fault: Fault | None = None
    spent: bool = False
    """a fault that happens once has happened"""

    @property
    def bytes_sent(self) -> bytes:
        return self.payload[::-1] if self.fault == "wrong" else self.payload


@dataclass(frozen=True)
class Seen:
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
        self.requests: list[Seen] = []
        self.halfway = threading.Event()
        """a hanging answer has sent its half"""
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.hub.server_port}"

    def add(
        self, repo: str, revision: str, file: str, payload: bytes, fault: Fault | None = None, repo_type: str = "model"
    ) -> Served:
        """A file of a model or dataset repository at a commit."""
        folder = "" if repo_type == "model" else f"/{repo_type}s"
        self.files[f"{folder}/{repo}/resolve/{revision}/{file}"] = served = Served(payload, fault)
        return served

    def add_url(self, path: str, payload: bytes, fault: Fault | None = None) -> str:
        """A file outside any repository; gives its address."""
        self.files[f"/plain/{path}"] = Served(payload, fault)
        return f"http://127.0.0.1:{self.store.server_port}/plain/{quote(path)}"

    def count(self, method: str = "", part: str = "") -> int:
        """How many requests of `method` have `part` in their path."""
        return len(self.seen(method, part))

    def seen(self, method: str = "", part: str = "") -> list[Seen]:
        return [r for r in self.requests if r.method.startswith(method) and part in r.path]

    def __enter__(self) -> Self:
        for server in (self.hub, self.store):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.closing.set()
        for server in (self.hub, self.store):
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: HubServer, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.owner = owner

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is part of the game."""


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
        owner.requests.append(Seen(self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        served = self._find(path)
        if served is None or served.fault in REFUSALS:
            status, code = REFUSALS[served.fault] if served and served.fault else self._absent(path)
            self._head(status, {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"})
            return
        self._serve(served, path, body)

    def _find(self, path: str) -> Served | None:
        raise NotImplementedError

    def _absent(self, path: str) -> tuple[int, str]:
        """Status and error code for a file that is not here."""
        return REFUSALS["missing"]

    def _serve(self, served: Served, path: str, body: bool) -> None:
        raise NotImplementedError

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


class _Hub(_Handler):
    """Metadata, and where the bytes are."""

    def _find(self, path: str) -> Served | None:
        return self.server.owner.files.get(path) if "/resolve/" in path else None

    def _absent(self, path: str) -> tuple[int, str]:
        """A hub says which part is unknown; of a repository it says 401 to a client without a token."""
        asked = RESOLVE.match(path)
        known = [found for file in self.server.owner.files if (found := RESOLVE.match(file))]
        same = [found for found in known if asked and found.group(1, "repo") == asked.group(1, "repo")]
        if not asked or not same:
            return (404 if "Authorization" in self.headers else 401), "RepoNotFound"
        if not any(found["revision"] == asked["revision"] for found in same):
            return 404, "RevisionNotFound"
        return 404, "EntryNotFound"

    def _serve(self, served: Served, path: str, body: bool) -> None:
        # the address and the hash that a sound hub states, also where the bytes will be wrong
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
    """Bytes, with ranges."""

    def _find(self, path: str) -> Served | None:
        return self.server.owner.files.get(path.removeprefix("/lfs"))

    def _serve(self, served: Served, path: str, body: bool) -> None:
        data, start = served.bytes_sent, 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and served.fault != "deaf":
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        if start and start >= len(data):
            self._head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            return
        headers = {"Content-Length": str(len(data) - start), "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if served.fault == "endless":
            headers = {"Connection": "close"}
        self._head(206 if start else 200, headers)
        if body:
            self._send(served, data[start:])

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
        for at in range(0, len(data), CHUNK):
            self.wfile.write(data[at : at + CHUNK])
            if served.fault == "slow":
                time.sleep(0.01)
        while served.fault == "endless" and not owner.closing.is_set():
            self.wfile.write(data)
