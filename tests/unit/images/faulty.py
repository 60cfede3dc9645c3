"""A registry of ours with faults, a token service, and another host that holds its blobs."""

from __future__ import annotations

import base64
import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from airgap.format import oci
from tests.unit.images.maker import Made, encode

Fault = Callable[[BaseHTTPRequestHandler, bytes], bool]


@dataclass
class Faulty:
    """`faults`: path suffix -> faults in turn; each answers and returns True, or lets it pass.

    `token_uses`: how many requests one token is good for; 0 asks for no token. `user`: what basic
    credentials the token service (or, with `basic`, the registry) wants. `seen`: (path, headers).
    `referrers`: what the referrers API answers, by digest; for others there is no such API.
    """

    made: Made = field(default_factory=Made)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    token_uses: int = 0
    user: str = ""
    basic: bool = False
    refresh: str = ""
    realm: str = ""
    referrers: dict[str, bytes] = field(default_factory=dict)
    port: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def asked(self, part: str) -> list[dict[str, str]]:
        """Headers of the requests whose path holds `part`."""
        return [headers for path, headers in self.seen if part in path]

    def expected_basic(self) -> str:
        return "Basic " + base64.b64encode(self.user.encode()).decode()


def status(code: int, **headers: str) -> Fault:
    def fault(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
        answer(handler, code, b"", {k.replace("_", "-"): v for k, v in headers.items()})
        return True

    return fault


def cut(after: int) -> Fault:
    """Say the whole length, send `after` bytes, hang up."""

    def fault(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:after])
        handler.wfile.flush()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    return fault


def other_bytes(change: Callable[[bytes], bytes]) -> Fault:
    def fault(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        answer(handler, 200, change(data), {})
        return True

    return fault


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def ok(_handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
    return False


def answer(
    handler: BaseHTTPRequestHandler, code: int, data: bytes, headers: dict[str, str]
) -> None:
    """One whole answer."""
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up: the tests make them do so."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(registry: Faulty) -> Iterator[Faulty]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with registry.lock:
                registry.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            _handle(registry, self, self.headers.get("Authorization", ""), b"")

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            registry.seen.append((self.path, dict(self.headers)))
            _handle(registry, self, "", body)

        def log_message(self, *args: object) -> None:
            return None

    http = Server(("127.0.0.1", 0), Handler)
    registry.port = http.server_address[1]
    registry.realm = registry.realm or f"http://{registry.host}/token"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _handle(registry: Faulty, handler: BaseHTTPRequestHandler, sent: str, body: bytes) -> None:
    path = urlsplit(handler.path).path
    if path == "/token":
        _token(registry, handler, sent, body)
        return
    if not _allowed(registry, sent):
        challenge = f'Bearer realm="{registry.realm}",service="tests"'
        challenge = 'Basic realm="tests"' if registry.basic else challenge
        answer(handler, 401, b"", {"WWW-Authenticate": challenge})
        return
    _, _, name = path.rpartition("/")
    found = registry.made.manifests.get(name)
    if "/manifests/" in path and found is not None:
        kind, data = found
    elif "/blobs/" in path and name.removeprefix("sha256:") in registry.made.blobs:
        kind = "application/octet-stream"
        data = registry.made.blobs[name.removeprefix("sha256:")]
    elif "/referrers/" in path and name.removeprefix("sha256:") in registry.referrers:
        kind, data = oci.OCI_INDEX, registry.referrers[name.removeprefix("sha256:")]
    else:
        answer(handler, 200 if path == "/v2/" else 404, b"{}", {})
        return
    for suffix, faults in registry.faults.items():
        if path.endswith(suffix) and faults and faults.pop(0)(handler, data):
            return
    _ranged(handler, kind, data)


def _ranged(handler: BaseHTTPRequestHandler, kind: str, data: bytes) -> None:
    wanted = handler.headers.get("Range", "")
    if not wanted.startswith("bytes="):
        answer(handler, 200, data, {"Content-Type": kind, "Accept-Ranges": "bytes"})
        return
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
    headers = {"Content-Type": kind, "Content-Range": f"bytes {start}-{end}/{len(data)}"}
    answer(handler, 206, data[start : end + 1], headers)


def _allowed(registry: Faulty, sent: str) -> bool:
    if registry.basic:
        return sent == registry.expected_basic()
    if not registry.token_uses:
        return True
    with registry.lock:
        left = registry.tokens.get(sent.removeprefix("Bearer "), 0)
        registry.tokens[sent.removeprefix("Bearer ")] = left - 1
        return left > 0


def _token(registry: Faulty, handler: BaseHTTPRequestHandler, sent: str, body: bytes) -> None:
    form = parse_qs(body.decode())
    if registry.refresh and form.get("refresh_token") != [registry.refresh]:
        answer(handler, 401, b"", {})
        return
    if registry.user and sent != registry.expected_basic():
        answer(handler, 401, b"", {})
        return
    with registry.lock:
        token = f"token-{len(registry.tokens)}"
        registry.tokens[token] = registry.token_uses
    answer(handler, 200, encode({"token": token, "expires_in": 300}), {})
