"""Reading below the HTTP client, over real TLS on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.events import silent
from airgap.store import Store
from bundler.fetch.download import Item, fetch
from bundler.fetch.sockets import Sockets, Stream
from tests.fault.web import File, serving

DATA = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of a server `localhost`, whose certificate the environment trusts."""
    cert, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    out = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make.split(), *name, *out], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def test_one_read_takes_all_records_that_came(tls: ssl.SSLContext) -> None:
    """And the connection's end after them is met by the next read."""
    import httpcore2
    import httpx2

    data = DATA[: 5 * 16_384 + 7]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with tls.wrap_socket(listener.accept()[0], server_side=True) as peer:
                peer.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        client = httpx2.Client(verify=httpx2.create_ssl_context())
        Sockets(1_000_000).watch(client)
        pool = client._transport._pool  # type: ignore[attr-defined]
        backend: httpcore2.NetworkBackend = pool._network_backend
        plain = backend.connect_tcp("127.0.0.1", listener.getsockname()[1], timeout=5)
        stream = plain.start_tls(httpx2.create_ssl_context(), "localhost", timeout=5)
        thread.join()
        assert isinstance(stream, Stream)
        assert stream.take(1_000_000, 5) == data
        assert stream.take(1_000_000, 5) == b""
        stream.close()
        client.close()


def test_no_more_is_read_at_once_than_was_said(tls: ssl.SSLContext, tmp_path: Path) -> None:
    """A limited rate asks for small reads: records are not joined past them."""
    import httpx2

    with serving(tls) as web, httpx2.Client(verify=httpx2.create_ssl_context()) as client:
        web.files["/f"] = File(DATA)
        Sockets(40_000).watch(client)
        with client.stream("GET", web.url("/f", "localhost")) as response:
            sizes = [len(chunk) for chunk in response.iter_raw()]
    assert sum(sizes) == len(DATA)
    assert max(sizes) <= 40_000


def test_through_a_proxy_that_is_reached_by_tls_too(
    tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS within TLS: what the outer one brings is not the file yet."""
    with serving(tls) as web, connecting(tls) as proxy:
        web.files["/f"] = File(DATA)
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        sha256 = hashlib.sha256(DATA).hexdigest()
        store = Store(tmp_path / "store")
        fetch([Item(web.url("/f", "localhost"), sha256, len(DATA), "f")], store, silent)
        assert store.blob_path(sha256).read_bytes() == DATA
        assert proxy.asked >= 1


class Proxy:
    """Joins a client to whom it asks for by CONNECT (RFC 9110 section 9.3.6)."""

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        self.port: int = listener.getsockname()[1]
        self.asked = 0
        self._listener, self._tls = listener, tls

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._tls.wrap_socket(self._listener.accept()[0], server_side=True)
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: ssl.SSLSocket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        host, _, port = head.split(b" ")[1].partition(b":")
        self.asked += 1
        target = socket.create_connection((host.decode(), int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=pump, args=(client, target), daemon=True).start()
        pump(target, client)


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def connecting(tls: ssl.SSLContext) -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener, tls)
        threading.Thread(target=proxy.run, daemon=True).start()
        yield proxy
