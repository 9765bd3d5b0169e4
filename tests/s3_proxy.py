"""A proxy in front of an S3 server, which counts requests and makes some of them fail."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import unquote

__all__ = ["Fault", "Request", "S3Proxy", "answer", "cut"]

ERROR = "<?xml version='1.0'?><Error><Code>{0}</Code><Message>{0}</Message></Error>"


@dataclass(frozen=True)
class Request:
    """A request of the client: its method, its path with the query, unquoted, and its body."""

    method: str
    path: str
    body: bytes = field(repr=False)

    @property
    def is_list(self) -> bool:
        """Whether it lists keys."""
        return self.method == "GET" and "list-type=2" in self.path


Fault = Callable[["Handler", Request], None]


def answer(status: int, code: str) -> Fault:
    """Return a fault that answers with an error of S3. As from S3, an answer to HEAD has no body."""

    def send(handler: Handler, request: Request) -> None:
        handler.reply(status, {"x-amz-request-id": "1"}, ERROR.format(code).encode())

    return send


def cut(handler: Handler, request: Request) -> None:
    """Send half of the body to the server, then close both connections."""
    handler.server.proxy.send_half(handler, request)
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


class S3Proxy:
    """A proxy in front of an S3 server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.lock = Lock()
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        """returns what to do instead of forwarding a request"""
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.proxy = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def reset(self) -> None:
        """Forget all requests and faults."""
        self.requests, self.fault = [], lambda request: None

    def fail_first(self, count: int, fault: Fault, selects: Callable[[Request], bool]) -> None:
        """Apply the fault to the first `count` requests that are selected."""
        left = [fault] * count

        def choose(request: Request) -> Fault | None:
            with self.lock:
                return left.pop() if left and selects(request) else None

        self.fault = choose

    def send_half(self, handler: Handler, request: Request) -> None:
        """Send the headers and half of the body to the server, and hang up."""
        with socket.create_connection(("127.0.0.1", self.port)) as upstream:
            head = f"{request.method} {handler.path} HTTP/1.1\n{handler.headers}".replace("\n", "\r\n")
            upstream.sendall(head.encode() + request.body[: len(request.body) // 2])

    def close(self) -> None:
        """Stop the proxy."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Server(ThreadingHTTPServer):
    """The listening socket of a proxy."""

    daemon_threads = True
    proxy: S3Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing on connections that end early: a client was killed, or the server has stopped."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """Forwards requests of one connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def forward(self) -> None:
        """Forward a request, or make it fail."""
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, unquote(self.path), body)
        proxy.requests.append(request)
        if (fault := proxy.fault(request)) is not None:
            fault(self, request)
            return
        upstream = HTTPConnection("127.0.0.1", proxy.port)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        upstream.request(self.command, self.path, body, headers)
        found = upstream.getresponse()
        content = found.read()
        upstream.close()
        skipped = ("content-length", "connection", "transfer-encoding", "date", "server")
        kept = {name: value for name, value in found.getheaders() if name.lower() not in skipped}
        length = found.getheader("Content-Length") if self.command == "HEAD" else None
        self.reply(found.status, kept, content, length)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815  # names of http.server

    def reply(self, status: int, headers: dict[str, str], body: bytes, length: str | None = None) -> None:
        """Answer the client."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
