"""Below the HTTP client: large reads, a deadline for an answer's head, and a way to stop waiting.

The client reads 64 KiB at a time and waits for each read alone. Here a read takes up to a megabyte
(a third of the work for the same bytes), also where TLS brings 16 KiB in each record (RFC 8446
section 5.1), a head must be complete in time however slowly it drips, and every socket can be shut
down from another thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    import httpx2


class Sockets:
    """The sockets of one client. `read_bytes`: what one read takes at most."""

    def __init__(self, read_bytes: int) -> None:
        self.read_bytes = read_bytes
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._shut = False

    def watch(self, client: httpx2.Client) -> None:
        """Stand between the client's connection pools and the network, proxies included."""
        transports = [client._transport, *client._mounts.values()]
        for transport in transports:
            pool: Any = getattr(transport, "_pool", None)
            if pool is not None:
                pool._network_backend = _Backend(pool._network_backend, self)

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """All that this thread reads inside must have come within that time."""
        self._mine.until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._mine.until = None

    def timeout(self, asked: float | None) -> float | None:
        """Seconds that a read of this thread may wait."""
        until: float | None = getattr(self._mine, "until", None)
        if until is None:
            return asked
        left = max(0.001, until - time.monotonic())
        return left if asked is None else min(asked, left)

    def add(self, stream: Stream) -> None:
        """Remember it, for `shut_down`."""
        with self._lock:
            self._open.add(stream)
            shut = self._shut
        if shut:
            stream.shut_down()

    def shut_down(self) -> None:
        """End every wait, now and from now on."""
        with self._lock:
            self._shut = True
            streams = list(self._open)
        for stream in streams:
            stream.shut_down()


class _Backend:
    """Opens connections (httpcore2.NetworkBackend) and wraps them."""

    def __init__(self, inner: Any, sockets: Sockets) -> None:
        self._inner = inner
        self._sockets = sockets

    def connect_tcp(self, *args: Any, **kwargs: Any) -> Stream:
        return Stream(self._inner.connect_tcp(*args, **kwargs), self._sockets)

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> Stream:
        return Stream(self._inner.connect_unix_socket(*args, **kwargs), self._sockets)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


def _more(records: ssl.SSLSocket, most: int) -> Iterator[bytes]:
    """What came already of further TLS records. An end or an error is left to the next read, which
    waits and meets it again."""
    records.settimeout(0)
    while most > 0:
        try:
            data = records.recv(most)
        except OSError:
            return
        if not data:
            return
        most -= len(data)
        yield data


class Stream:
    """One connection (httpcore2.NetworkStream). `records`: its socket, where that does the TLS."""

    def __init__(
        self,
        inner: Any,
        sockets: Sockets,
        records: ssl.SSLSocket | None = None,
        *,
        tls: bool = False,
    ) -> None:
        self._inner = inner
        self._sockets = sockets
        self._records = records
        self._tls = tls
        sockets.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """For the client, which reads heads and what it alone can."""
        return self.take(max_bytes, timeout)

    def take(self, most: int, timeout: float | None) -> bytes:
        """At most so many bytes; none at the end. `timeout` in seconds, for the first of them."""
        most = min(most, self._sockets.read_bytes)
        wait = self._sockets.timeout(timeout)
        data: bytes = self._inner.read(most, timeout=wait)
        if data and self._records is not None:
            return b"".join([data, *_more(self._records, most - len(data))])
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout=timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, *args: Any, **kwargs: Any) -> Stream:
        secured = self._inner.start_tls(*args, **kwargs)
        # Inside the TLS of a proxy the socket is the proxy's: its bytes are still encrypted.
        records = None if self._tls else secured.get_extra_info("socket")
        return Stream(secured, self._sockets, records, tls=True)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def shut_down(self) -> None:
        """Wake whoever reads: closing alone would not."""
        found = self._inner.get_extra_info("socket")
        if found is not None:
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)
