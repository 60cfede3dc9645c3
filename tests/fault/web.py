"""A web server on loopback that serves files by ranges and misbehaves as each path is told to.

Real sockets and real HTTP/1.1; a fault is a small object that answers one request in its own way.
`sent` counts the bytes of bodies that left, so that a test can say what was transferred; `at_once`
is the most requests that were answered at one time.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PIECE = 64 * 1024


@dataclass
class File:
    """What a path serves. `faults` answer the first requests, one each; then all is well.

    `every`: answers every request for which it does not return False. `rate`: bytes a second of
    each connection, 0 for as many as fit.
    """

    data: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    faults: list[Fault] = field(default_factory=list)
    every: Fault | None = None
    rate: float = 0.0


@dataclass
class Asked:
    path: str
    headers: dict[str, str]


class Request:
    """One request that a fault may answer."""

    def __init__(self, handler: BaseHTTPRequestHandler, file: File, web: Web) -> None:
        self.handler, self.file, self.web = handler, file, web
        found = _RANGE.fullmatch(handler.headers.get("Range", ""))
        same = handler.headers.get("If-Range", file.etag) == file.etag
        self.partial = bool(found) and file.ranges and same
        size = len(file.data)
        self.start, self.end = 0, size
        if found and self.partial:
            self.start = int(found[1])
            self.end = min(int(found[2]) + 1, size) if found[2] else size

    def head(self, code: int | None = None, **headers: str) -> None:
        """Status line and headers of an honest answer, but for what `headers` replaces."""
        known = {"Content-Length": str(self.end - self.start)}
        if self.file.ranges:
            known["Accept-Ranges"] = "bytes"
        if self.partial:
            size = len(self.file.data)
            known["Content-Range"] = f"bytes {self.start}-{self.end - 1}/{size}"
        if self.file.etag is not None:
            known["ETag"] = self.file.etag
        known.update({name.replace("_", "-"): value for name, value in headers.items()})
        self.handler.send_response(code or (206 if self.partial else 200))
        for name, value in known.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def body(self, start: int, end: int, data: bytes | None = None) -> None:
        """Bytes of the file, counted."""
        view = memoryview(self.file.data if data is None else data)
        for at in range(start, end, _PIECE):
            piece = view[at : min(at + _PIECE, end)]
            self.handler.wfile.write(piece)
            self.web.count(len(piece))
            if self.file.rate:
                time.sleep(len(piece) / self.file.rate)

    def drop(self) -> None:
        """Close the connection without a word."""
        self.handler.close_connection = True
        with contextlib.suppress(OSError):
            self.handler.connection.shutdown(socket.SHUT_RDWR)


Fault = Callable[[Request], "bool | None"]


@dataclass
class Web:
    files: dict[str, File] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"
    sent: int = 0
    busy: int = 0
    at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str, name: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{name}:{self.port}{path}"

    def count(self, size: int) -> None:
        with self._lock:
            self.sent += size

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        try:
            self._answer(handler)
        finally:
            with self._lock:
                self.busy -= 1

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.asked.append(Asked(handler.path, dict(handler.headers)))
            self.busy += 1
            self.at_once = max(self.at_once, self.busy)
            file = self.files.get(handler.path)
            fault = file.faults.pop(0) if file and file.faults else file.every if file else None
        if file is None:
            handler.send_error(404)
            return
        request = Request(handler, file, self)
        if fault is None or fault(request) is False:
            request.head()
            request.body(request.start, request.end)


def cut(after: int) -> Fault:
    """End the connection after `after` bytes of the body."""

    def fault(r: Request) -> None:
        r.head()
        r.body(r.start, min(r.start + after, r.end))
        r.handler.wfile.flush()
        r.drop()

    return fault


def status(code: int, **headers: str) -> Fault:
    def fault(r: Request) -> None:
        r.handler.send_response(code)
        for name, value in headers.items():
            r.handler.send_header(name.replace("_", "-"), value)
        r.handler.send_header("Content-Length", "0")
        r.handler.end_headers()

    return fault


def stall(after: int, seconds: float) -> Fault:
    """Say nothing more after `after` bytes."""

    def fault(r: Request) -> None:
        r.head()
        r.body(r.start, min(r.start + after, r.end))
        r.handler.wfile.flush()
        time.sleep(seconds)
        r.drop()

    return fault


def drip(seconds: float, *, head: bool = False) -> Fault:
    """A byte every 20 ms for that long: of the body, or of the head."""

    def fault(r: Request) -> None:
        until = time.monotonic() + seconds
        if head:
            r.handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        else:
            r.head()
        at = r.start
        with contextlib.suppress(OSError):
            while time.monotonic() < until and (head or at < r.end):
                r.handler.wfile.write(b"x" if head else r.file.data[at : at + 1])
                r.handler.wfile.flush()
                at += 1
                time.sleep(0.02)
        r.drop()

    return fault


def flip(at: int) -> Fault:
    """One bit of the byte at `at` is wrong."""

    def fault(r: Request) -> None:
        bad = bytearray(r.file.data)
        bad[at] ^= 1
        r.head()
        r.body(r.start, r.end, bytes(bad))

    return fault


def claim(**headers: str) -> Fault:
    """The right bytes under these headers."""

    def fault(r: Request) -> None:
        r.head(**headers)
        with contextlib.suppress(OSError):
            r.body(r.start, r.end)
        r.drop()

    return fault


def becomes(data: bytes, etag: str) -> Fault:
    """From this request on the path serves other bytes under another ETag."""

    def fault(r: Request) -> None:
        r.file.data, r.file.etag = data, etag
        again = Request(r.handler, r.file, r.web)
        again.head()
        again.body(again.start, again.end)

    return fault


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    web = Web(scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                web.answer(self)

        def log_message(self, *args: object) -> None:
            return None

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            return None

    http = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    web.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
