"""Relays HTTP request by request, so that one connection may outlive the server behind it.

Each request asks anew where to go. A request that no server has begun to answer is sent to another
one if there is another by then (docs/decisions/0040-switch-without-a-failed-request.md); once the
first byte of an answer came, nothing is ever repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from airgap import limits
from airgap.host.gateway import http1
from airgap.host.gateway.http1 import BadMessage, Ended, Fields, Request, Response

_AGAIN_SECONDS = 0.1
_LINGER_SECONDS = 2.0
_NOT_NOW = 503
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
_REASONS |= {413: "Content Too Large", 431: "Request Header Fields Too Large"}
_REASONS |= {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Backend:
    """A server on 127.0.0.1 that is to answer: `target` and `fields` are what it is sent, `key`
    tells one server from the next. `other` is asked when this one cannot answer."""

    port: int
    key: str
    target: str
    fields: Fields
    other: Backend | None = None


class Refused(Exception):
    """A request that is not sent on; the client gets `status` and one sentence."""

    def __init__(self, status: int, why: str, *, retry_after: int | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.retry_after = retry_after


class _NotBegun(Exception):
    """The server ended before the first byte of an answer."""


# What an exchange that is over may have ended with; whoever waited for it was told.
_EXPECTED = (Ended, Refused, BadMessage, asyncio.TimeoutError)


class _Client(asyncio.StreamReader):
    """A reader that also tells when the client is gone, while nothing is read from it."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)  # type: ignore[arg-type]
        self.gone.set()


class Relay:
    """`admit` refuses a request by its head alone; `route` says where it goes. Both may be called
    at any time and must not block for long. `shown`: the answer's fields that go to the client,
    all when None."""

    def __init__(
        self,
        admit: Callable[[Request], None],
        route: Callable[[Request], Backend],
        shown: frozenset[str] | None = None,
    ) -> None:
        self._admit = admit
        self._route = route
        self._shown = shown
        self._connections = 0

    async def listen(
        self, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> asyncio.Server:
        """Begin to listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        seconds = float(limits.CLIENT_SLOW_SECONDS) if tls else None
        return await loop.create_server(
            self._protocol, host, port, ssl=tls, backlog=512, ssl_handshake_timeout=seconds
        )

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(_Client(limits.MAX_HEAD_BYTES), self._connected)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _Client)  # noqa: S101 - made above
        self._connections += 1
        try:
            if self._connections <= limits.MAX_CONNECTIONS:
                while await self._one(reader, writer):
                    pass
        except (OSError, Ended, asyncio.TimeoutError):
            writer.transport.abort()
        finally:
            self._connections -= 1
            await close(writer)

    async def _one(self, reader: _Client, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is to end."""
        read = http1.read_request(reader)
        try:
            request = await asyncio.wait_for(read, limits.CLIENT_IDLE_SECONDS)
            self._admit(request)
            if (request.length.size or 0) > limits.MAX_BODY_BYTES:
                raise BadMessage(413, f"a request has at most {limits.MAX_BODY_BYTES} bytes")
            return await self._until_gone(
                _Exchange(self._route, request, reader, writer, self._shown)
            )
        except BadMessage as e:
            await _refuse(writer, Refused(e.status, e.why))
        except Refused as e:
            await _refuse(writer, e)
        await _linger(reader)
        return False

    async def _until_gone(self, exchange: _Exchange) -> bool:
        """A client that leaves takes its request along: the server stops computing for nobody."""
        work = asyncio.ensure_future(exchange.run())
        gone = asyncio.ensure_future(exchange.reader.gone.wait())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Ended
            return work.result()
        finally:
            for task in (work, gone):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, *_EXPECTED):
                    await task


class _Exchange:
    """One request on its way to a server and back."""

    def __init__(
        self,
        route: Callable[[Request], Backend],
        request: Request,
        reader: _Client,
        writer: asyncio.StreamWriter,
        shown: frozenset[str] | None,
    ) -> None:
        self.reader = reader
        self._shown = shown
        self._route = route
        self._request = request
        self._writer = writer
        self._rest = self._bounded(http1.read_body(reader, request.length))
        self._held = b""
        self._whole = False

    async def run(self) -> bool:
        """Returns whether the connection may carry another request."""
        await self._hold()
        tried: list[str] = []
        for _ in range(limits.RELAY_TRIES):
            backend: Backend | None = self._route(self._request)
            if backend is not None and backend.key in tried:
                backend = backend.other
            if backend is None or backend.key in tried:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            try:
                return await self._ask(backend)
            except _NotBegun as e:
                if not self._whole:
                    raise Refused(502, "the engine ended while it was asked") from e
                tried.append(backend.key)
        raise Refused(503, "the engine is not running", retry_after=5)

    async def _hold(self) -> None:
        """Read the body, or the beginning of a long one, before any server is bothered."""
        if (self._request.get("expect") or "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(self._held) < limits.HELD_BODY_BYTES:
            try:
                self._held += await self._rest.__anext__()
            except StopAsyncIteration:
                self._whole = True
                return

    async def _bounded(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The body, at most so many bytes, each piece within its time."""
        size = 0
        while True:
            try:
                piece = await asyncio.wait_for(body.__anext__(), limits.CLIENT_SLOW_SECONDS)
            except StopAsyncIteration:
                return
            size += len(piece)
            if size > limits.MAX_BODY_BYTES:
                raise BadMessage(413, f"a request has at most {limits.MAX_BODY_BYTES} bytes")
            yield piece

    async def _ask(self, backend: Backend) -> bool:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", backend.port, limit=limits.MAX_HEAD_BYTES
            )
        except OSError as e:
            raise _NotBegun from e
        try:
            response = await self._begin(backend, reader, writer)
            if response.status == _NOT_NOW and backend.other is not None and self._whole:
                raise _NotBegun  # it loads its model, for example: the other one need not
            return await self._answer(response, reader)
        finally:
            # Nothing is left to be said to it: an answer under way is not wanted any longer.
            writer.transport.abort()

    async def _begin(
        self, backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Response:
        """Send the request; the head of the answer. Raises _NotBegun."""
        r = self._request
        chunked = not self._whole and r.length.size is None
        size = len(self._held) if self._whole else r.length.size
        length = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))
        fields = [("Host", f"127.0.0.1:{backend.port}"), ("Connection", "close"), *backend.fields]
        if self._held or r.method not in ("GET", "HEAD"):
            fields.append(length)
        try:
            writer.write(http1.head_bytes(f"{r.method} {backend.target} HTTP/1.1", fields))
            writer.write(http1.chunk_bytes(self._held) if chunked else self._held)
            await writer.drain()
            if not self._whole:
                async for piece in self._rest:
                    writer.write(http1.chunk_bytes(piece) if chunked else piece)
                    await writer.drain()
                writer.write(http1.chunk_bytes(b"") if chunked else b"")
        except OSError as e:
            raise _NotBegun from e
        try:
            return await http1.read_response(reader, r.method)
        except (OSError, Ended) as e:
            raise _NotBegun from e
        except BadMessage as e:
            raise Refused(502, "the engine's answer is not HTTP") from e

    async def _answer(self, response: Response, reader: asyncio.StreamReader) -> bool:
        """Send the answer on as it comes. Broken off by the server, it is broken off here."""
        r, length = self._request, response.length
        chunked = length.size is None and r.minor == 1
        keeps = r.keeps_alive and (chunked or length.size is not None)
        fields = [f for f in response.fields if f[0] not in http1.HOP_BY_HOP]
        if self._shown is not None:
            fields = [f for f in fields if f[0] in self._shown]
        if chunked:
            fields.append(("transfer-encoding", "chunked"))
        elif length.size is not None and response.status not in (204, 304):
            fields.append(("content-length", str(length.size)))
        fields.append(("connection", "keep-alive" if keeps else "close"))
        first = f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Status')}"
        self._writer.write(http1.head_bytes(first, fields))
        try:
            async for piece in http1.read_body(reader, length):
                self._writer.write(http1.chunk_bytes(piece) if chunked else piece)
                await self._writer.drain()
        except BadMessage as e:
            raise ConnectionAbortedError from e
        if chunked:
            self._writer.write(http1.chunk_bytes(b""))
        await self._writer.drain()
        return keeps


async def _refuse(writer: asyncio.StreamWriter, e: Refused) -> None:
    """In the shape of the OpenAI API's errors."""
    body = json.dumps({"error": {"message": e.why, "type": "sealift", "code": e.status}}).encode()
    fields = [("content-type", "application/json"), ("content-length", str(len(body)))]
    if e.retry_after is not None:
        fields.append(("retry-after", str(e.retry_after)))
    if e.status == 401:
        fields.append(("www-authenticate", "Bearer"))
    fields.append(("connection", "close"))
    first = f"HTTP/1.1 {e.status} {_REASONS.get(e.status, 'Status')}"
    writer.write(http1.head_bytes(first, fields) + body)
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _linger(reader: asyncio.StreamReader) -> None:
    """Read what the client still sends: closing on unread bytes resets the connection, and the
    client would lose the answer (RFC 9112 section 9.6)."""

    async def discard() -> None:
        left = limits.HELD_BODY_BYTES
        while left > 0 and (data := await reader.read(http1.CHUNK_BYTES)):
            left -= len(data)

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(discard(), _LINGER_SECONDS)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection that may be broken already."""
    writer.close()
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), _LINGER_SECONDS)
