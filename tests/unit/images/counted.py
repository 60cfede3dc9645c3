"""Between the client and a registry: counts what is sent of each blob, and breaks when told to."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.unit.images.faulty import Server

_PIECE = 64 * 1024
_HOP = ("connection", "transfer-encoding", "content-length", "server", "date")


@dataclass
class Asked:
    """One request for a blob, and how many bytes of it were sent in answer."""

    sha256: str
    range: str
    status: int
    sent: int = 0


@dataclass
class Counted:
    """`stop_after`: so many bytes of blobs are sent, then `stop` decides: `hold` sends nothing more
    until `release`, `cut` ends these connections and all that are made later."""

    upstream: str
    stop: str = ""
    stop_after: int = 0
    port: int = 0
    sent: int = 0
    busy: int = 0
    blobs: list[Asked] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def release(self) -> None:
        """All is well from now on; what was begun has ended, and counting begins anew."""
        self.stop = ""
        self.released.set()
        wait_for(lambda: self.busy == 0)
        self.blobs.clear()
        self.sent = 0

    def of(self, sha256: str) -> list[Asked]:
        return [a for a in self.blobs if a.sha256 == sha256]

    def may_send(self, count: int) -> bool:
        """Whether so many bytes more go out: False when the connection ends instead."""
        with self.lock:
            if not self.stop or self.sent + count <= self.stop_after:
                self.sent += count
                return True
        if self.stop == "hold":
            self.released.wait(60)
        return False


def wait_for(done: Callable[[], bool]) -> None:
    """Until `done()` is true; a minute is for a machine that others use too."""
    for _ in range(12_000):
        if done():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come to that")


@contextlib.contextmanager
def counting(upstream: str) -> Iterator[Counted]:
    """`upstream`: host and port of the registry, which speaks plain HTTP."""
    counted = Counted(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with counted.lock:
                counted.busy += 1
            try:
                with contextlib.suppress(OSError):
                    _pass_on(counted, self)
            finally:
                with counted.lock:
                    counted.busy -= 1

        def log_message(self, *args: object) -> None:
            return None

    server = Server(("127.0.0.1", 0), Handler)
    counted.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        counted.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _pass_on(counted: Counted, handler: BaseHTTPRequestHandler) -> None:
    registry = http.client.HTTPConnection(counted.upstream, timeout=60)
    try:
        headers = {k: v for k, v in handler.headers.items() if k.lower() != "connection"}
        registry.request("GET", handler.path, headers=headers)
        _answer(counted, handler, registry.getresponse())
    finally:
        registry.close()


def _answer(
    counted: Counted, handler: BaseHTTPRequestHandler, response: http.client.HTTPResponse
) -> None:
    handler.send_response(response.status)
    for name, value in response.getheaders():
        if name.lower() not in _HOP:
            handler.send_header(name, value)
    found = "/blobs/sha256:" in handler.path and response.status in (200, 206)
    if not found:
        body = response.read()
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return
    handler.send_header("Content-Length", response.headers["Content-Length"])
    handler.end_headers()
    asked = Asked(handler.path[-64:], handler.headers.get("Range", ""), response.status)
    with counted.lock:
        counted.blobs.append(asked)
    while piece := response.read(_PIECE):
        if not counted.may_send(len(piece)):
            _hang_up(handler)
            return
        handler.wfile.write(piece)
        asked.sent += len(piece)


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
