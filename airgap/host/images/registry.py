"""A registry of one image for the time of one pull: its manifest by digest and its blobs, straight
from the store, read-only, on loopback. No other way into a container engine writes as little
(docs/decisions/0031-image-runtime.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airgap.format.artifacts import Image
from airgap.store import Store, open_regular

_PATH = re.compile(r"/v2/airgap/(manifests|blobs)/sha256:([0-9a-f]{64})")
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")
_TLS_HANDSHAKE = 0x16
# Docker's containerd store falls back to plain HTTP only when it gets an HTTP answer to its hello.
_NO_TLS = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_IDLE_SECONDS = 60


@dataclass(frozen=True)
class _Found:
    media_type: str
    sha256: str
    size: int


@contextlib.contextmanager
def serving(store: Store, image: Image) -> Iterator[str]:
    """Serve `image` while the body runs; yields the reference to pull, which names its digest."""
    http = _Server(("127.0.0.1", 0), _Handler)
    http.store, http.found = store, _contents(image)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield f"127.0.0.1:{http.server_address[1]}/airgap@sha256:{image.digest}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _contents(image: Image) -> dict[tuple[str, str], _Found]:
    """What may be asked for: the manifest under its digest alone, configuration and layers."""
    found = {}
    for f in image.files:
        path = str(f.path)
        if path == "manifest.json":
            found["manifests", f.sha256] = _Found(image.media_type, f.sha256, f.size)
        elif path == "config.json" or f.path.parts[0] == "layers":
            found["blobs", f.sha256] = _Found("application/octet-stream", f.sha256, f.size)
    return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    store: Store
    found: dict[tuple[str, str], _Found]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is its own affair; what it lacked it says itself."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "airgap"
    sys_version = ""
    timeout = _IDLE_SECONDS
    server: _Server

    def handle(self) -> None:
        """A TLS hello is answered in plain HTTP."""
        first = self.connection.recv(1, socket.MSG_PEEK)
        if first and first[0] == _TLS_HANDSHAKE:
            self.connection.recv(65536)
            self.connection.sendall(_NO_TLS)
            return
        super().handle()

    def do_GET(self) -> None:
        """A manifest or a blob."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Whether it is there."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if self.path in ("/v2", "/v2/"):
            self._head(200, 2, "application/json")
            self.wfile.write(b"{}" if body else b"")
            return
        asked = _PATH.fullmatch(self.path)
        found = self.server.found.get((asked[1], asked[2])) if asked else None
        if found is None or not self.server.store.has(found.sha256, found.size):
            self._head(404, 0, "application/json")
            return
        start, end = self._range(found.size)
        if start >= end:
            self._head(416, 0, found.media_type, f"bytes */{found.size}")
            return
        part = end - start < found.size
        text = f"bytes {start}-{end - 1}/{found.size}" if part else None
        digest = f"sha256:{found.sha256}"
        self._head(206 if part else 200, end - start, found.media_type, text, digest)
        if body:
            self._send(found.sha256, start, end)

    def _range(self, size: int) -> tuple[int, int]:
        """First byte and the one after the last; of several ranges, or another unit, everything."""
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        if found is None:
            return 0, size
        last = int(found[2]) if found[2] else size - 1
        return int(found[1]), min(last, size - 1) + 1

    def _head(
        self, code: int, length: int, kind: str, part: str | None = None, digest: str | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        if part is not None:
            self.send_header("Content-Range", part)
        if digest is not None:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()

    def _send(self, sha256: str, start: int, end: int) -> None:
        self.wfile.flush()
        with (
            open_regular(self.server.store.blob_path(sha256)) as fd,
            os.fdopen(os.dup(fd), "rb") as file,
        ):
            self.connection.sendfile(file, start, end - start)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the pull reports for itself."""
