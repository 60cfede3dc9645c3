"""HTTP/1.1 as two relays need it: strict heads, exact bodies, nothing guessed (RFC 9112).

What two parsers could read differently is refused, so that no request hides inside another: both
kinds of length at once, two lengths, folded or odd header lines, a transfer coding but chunked.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from airgap import limits

CHUNK_BYTES = 64 * limits.KIB
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") (/[!-~]*) HTTP/1\.([01])")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*)?)?)")
_LENGTH = re.compile(r"[0-9]{1,16}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t -~\x80-\xff]*)?\r\n")
# Fields that belong to one connection and never travel on (RFC 9110 section 7.6.1).
HOP_BY_HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "proxy-authorization", "proxy-authenticate", "expect", "content-length"),
    )
)
Fields = tuple[tuple[str, str], ...]


class BadMessage(Exception):
    """The peer broke the protocol. `status` is what a client is told."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Ended(Exception):
    """The peer closed before the first byte of a message."""


@dataclass(frozen=True)
class Length:
    """How a body is delimited: `size` bytes, or None for chunks; `until_close` for old servers."""

    size: int | None = 0
    until_close: bool = False


@dataclass(frozen=True)
class Request:
    """The head of a request. Field names are in lower case."""

    method: str
    target: str
    minor: int
    fields: Fields
    length: Length

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def get(self, name: str) -> str | None:
        """The only value of that field; a field given twice counts as absent."""
        found = [v for n, v in self.fields if n == name]
        return found[0] if len(found) == 1 else None

    @property
    def keeps_alive(self) -> bool:
        words = _words(self.fields, "connection")
        return "close" not in words and (self.minor == 1 or "keep-alive" in words)


@dataclass(frozen=True)
class Response:
    """The head of a response."""

    status: int
    fields: Fields
    length: Length


def _words(fields: Fields, name: str) -> list[str]:
    return [w.strip().lower() for n, v in fields if n == name for w in v.split(",")]


async def read_request(reader: asyncio.StreamReader) -> Request:
    """The next request's head. Raises Ended, BadMessage."""
    line, fields = await _read_head(reader)
    found = _REQUEST.fullmatch(line)
    if found is None:
        raise BadMessage(400, "the request line is not well-formed")
    request = Request(
        found[1].decode(), found[2].decode(), int(found[3]), fields, _length(fields, Length(0))
    )
    if request.minor == 1 and request.get("host") is None:
        raise BadMessage(400, "it needs exactly one Host field")
    return request


async def read_response(reader: asyncio.StreamReader, method: str) -> Response:
    """The final response's head; interim ones (1xx) are left out. Raises Ended, BadMessage."""
    while True:
        line, fields = await _read_head(reader)
        found = _STATUS.fullmatch(line)
        if found is None:
            raise BadMessage(502, "the status line is not well-formed")
        status = int(found[1])
        if status == 101:
            raise BadMessage(502, "the server changes the protocol")
        if status >= 200:
            break
    if method == "HEAD" or status in (204, 304):
        return Response(status, fields, Length(0))
    return Response(status, fields, _length(fields, Length(None, until_close=True)))


async def _read_head(reader: asyncio.StreamReader) -> tuple[bytes, Fields]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as e:
        if not e.partial.strip():
            raise Ended from e
        raise BadMessage(400, "the head was cut off") from e
    except asyncio.LimitOverrunError as e:
        raise BadMessage(431, "the head is too long") from e
    line, *rest = head[:-4].split(b"\r\n")
    return line, tuple(_field(f) for f in rest)


def _field(line: bytes) -> tuple[str, str]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise BadMessage(400, "a header field is not well-formed")
    return found[1].decode().lower(), found[2].decode("latin-1").rstrip(" \t")


def _length(fields: Fields, otherwise: Length) -> Length:
    codings = [v for n, v in fields if n == "transfer-encoding"]
    sizes = [v for n, v in fields if n == "content-length"]
    if codings:
        if sizes or len(codings) != 1 or codings[0].lower() != "chunked":
            raise BadMessage(400, "its length is given in two ways, or in one not known")
        return Length(None)
    if not sizes:
        return otherwise
    if len(sizes) != 1 or _LENGTH.fullmatch(sizes[0]) is None:
        raise BadMessage(400, "its Content-Length is not one number")
    return Length(int(sizes[0]))


async def read_body(reader: asyncio.StreamReader, length: Length) -> AsyncIterator[bytes]:
    """The body piece by piece as it comes. Raises BadMessage when it is cut off."""
    if length.until_close:
        while data := await reader.read(CHUNK_BYTES):
            yield data
        return
    if length.size is not None:
        async for data in _exactly(reader, length.size):
            yield data
        return
    while size := await _chunk_size(reader):
        async for data in _exactly(reader, size):
            yield data
        if await _line(reader) != b"\r\n":
            raise BadMessage(400, "a chunk is not of its size")
    for _ in range(limits.MAX_TRAILER_LINES):
        if await _line(reader) == b"\r\n":
            return
    raise BadMessage(400, "it has too many trailer lines")


async def _chunk_size(reader: asyncio.StreamReader) -> int:
    found = _CHUNK.fullmatch(await _line(reader))
    if found is None:
        raise BadMessage(400, "a chunk's size is not well-formed")
    return int(found[1], 16)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as e:
        raise BadMessage(400, "the body was cut off") from e


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        data = await reader.read(min(size, CHUNK_BYTES))
        if not data:
            raise BadMessage(400, "the body was cut off")
        size -= len(data)
        yield data


def head_bytes(first: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """A head as it goes over the wire."""
    lines = [first, *(f"{n}: {v}" for n, v in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunk_bytes(data: bytes) -> bytes:
    """One chunk; of no data, the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)
