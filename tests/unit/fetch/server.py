"""A web server on loopback with faults: real sockets, real answers, one page of rules."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """`pages`: path -> what answers it. `asked`: every path that was asked for, in order."""

    port: int = 0
    pages: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def add_wheel(self, wheel: Path, *, digest: str | None = None) -> None:
        """Serve `wheel` and a page of the simple index (PEP 503) for it."""
        data = wheel.read_bytes()
        name = wheel.name.split("-")[0].replace("_", "-")
        sha256 = digest or hashlib.sha256(data).hexdigest()
        link = f'<a href="/files/{wheel.name}#sha256={sha256}">{wheel.name}</a>'
        page = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
        self.pages[f"/simple/{name}/"] = body(page, kind="text/html")
        self.pages[f"/files/{wheel.name}"] = body(data)


def body(data: bytes, *, kind: str = "application/octet-stream") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(data)

    return answer


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def cut(data: bytes, after: int, *, length: bool = True) -> Answer:
    """Close the connection after `after` bytes; with or without having said how many come."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:after])
        handler.wfile.flush()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other; the last one for ever."""
    left = list(answers)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return answer


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            server.headers.append(dict(self.headers))
            server.pages.get(self.path, status(404))(self)

        def do_HEAD(self) -> None:
            server.pages.get(self.path, status(404))(self)

        def log_message(self, *args: object) -> None:
            return None

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def closed_port() -> int:
    """A port of loopback on which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
