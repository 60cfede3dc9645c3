"""The relay in front of engines: what it takes, what it refuses, what it sends again."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from airgap.host.gateway import routes
from airgap.host.gateway.http1 import Request
from airgap.host.gateway.relay import Backend, Relay
from tests.unit.host.test_serving_faults import server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answering = Callable[[socket.socket], None]
GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


@contextmanager
def relay_to(*ports: int, other: int | None = None) -> Iterator[int]:
    """A relay whose first request goes to the first port, the next try to the next; `other`
    stands in for each."""
    order = list(ports)
    ready = threading.Event()
    found: list[int] = []
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    def route(request: Request) -> Backend:
        port = order.pop(0) if len(order) > 1 else order[0]
        stands_in = Backend(other, str(other), request.path, ()) if other else None
        return Backend(port, str(port), request.path, (), stands_in)

    async def serve() -> None:
        relay = Relay(lambda r: routes.admit(r.method, r.path, watch=True), route)
        listening = await relay.listen("127.0.0.1", 0)
        found.append(listening.sockets[0].getsockname()[1])
        loops.append(asyncio.get_running_loop())
        ready.set()
        await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


def exchange(port: int, data: bytes, *, end: bool = True) -> bytes:
    """Send bytes, read until the relay closes (or, without `end`, until it pauses)."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(data)
        out = b""
        s.settimeout(10 if end else 0.5)
        try:
            while piece := s.recv(65536):
                out += piece
        except TimeoutError:
            assert not end, out
        return out


def raw(answer: bytes) -> Callable[[socket.socket], None]:
    """Answers every connection with those bytes. The request was read before, in one piece."""
    return lambda s: s.sendall(answer)


SMUGGLED = {
    "both lengths": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n",
    "length list": b"Content-Length: 3, 3\r\n",
    "signed length": b"Content-Length: +3\r\n",
    "odd coding": b"Transfer-Encoding: xchunked\r\n",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n",
    "space before colon": b"Content-Length : 3\r\n",
    "folded": b"X: a\r\n b\r\n",
    "bare newline": b"X: a\nContent-Length: 3\r\n",
    "nul": b"X: a\0b\r\n",
    "no name": b": x\r\n",
    "two hosts": b"Host: y\r\n",
}


@pytest.mark.parametrize("how", SMUGGLED)
def test_request_that_two_parsers_could_read_differently_is_refused(how: str) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + SMUGGLED[how] + b"\r\nabc"
    with (
        server(raw(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")) as port,
        relay_to(port) as door,
    ):
        assert exchange(door, head).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://x/v1/models HTTP/1.1",
        b"GET /v1/models",
        b"CONNECT x:1 HTTP/1.1",
        b"GET /a b HTTP/1.1",
    ],
)
def test_odd_request_line_is_refused(line: bytes) -> None:
    with relay_to(1) as door:
        assert exchange(door, line + b"\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_endless_head_is_refused() -> None:
    with relay_to(1) as door:
        assert exchange(door, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000).startswith(
            b"HTTP/1.1 431 "
        )


ROUTES = ["/v1/models/../../props", "/props", "/slots", "/v1//models", "/%761/models", "/tokenize"]


@pytest.mark.parametrize("path", ROUTES)
def test_route_outside_the_list_is_not_there(path: str) -> None:
    with server(raw(OK)) as port, relay_to(port) as door:
        answer = exchange(door, GET.replace(b"/v1/models", path.encode()))
        assert answer.startswith(b"HTTP/1.1 404 "), answer


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/completions"), ("POST", "/v1/models"), ("DELETE", "/v1/models/x")],
)
def test_listed_route_with_another_method_is_not_there(method: str, path: str) -> None:
    with relay_to(1) as door:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        assert exchange(door, head).startswith(b"HTTP/1.1 404 ")


def closes(s: socket.socket) -> None:
    """Reads the request and ends without a byte, as an engine that is stopped just then."""


def test_request_that_an_engine_dropped_is_sent_to_the_next_one() -> None:
    with server(closes) as old, server(raw(OK)) as new, relay_to(old, new) as door:
        answer = exchange(door, GET, end=False)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"ok")


def test_request_that_the_only_engine_drops_is_answered_503() -> None:
    with server(closes) as old, relay_to(old) as door:
        answer = exchange(door, GET)
    assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 5" in answer


LOADING = b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nwait"


@pytest.mark.parametrize("first", [closes, raw(LOADING)], ids=["closes", "loads"])
def test_request_that_the_own_engine_cannot_answer_goes_to_the_other(first: Answering) -> None:
    with server(first) as own, server(raw(OK)) as other, relay_to(own, other=other) as door:
        answer = exchange(door, GET, end=False)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"ok")


def test_engine_that_answers_is_not_left_for_the_other() -> None:
    missing = b"HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\nno"
    with server(raw(missing)) as own, server(raw(OK)) as other, relay_to(own, other=other) as door:
        assert exchange(door, GET, end=False).endswith(b"no")


def test_what_the_last_engine_says_is_the_answer() -> None:
    with server(closes) as own, server(raw(LOADING)) as other, relay_to(own, other=other) as door:
        assert exchange(door, GET, end=False).endswith(b"wait")
    with server(closes) as own, server(closes) as other, relay_to(own, other=other) as door:
        assert b"retry-after: 5" in exchange(door, GET)


def test_answer_that_has_begun_is_never_asked_for_again() -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    with server(raw(cut)) as old, server(raw(OK)) as new, relay_to(old, new) as door:
        try:
            answer = exchange(door, GET)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or answer.endswith(b"half")


def test_one_connection_carries_many_requests_and_answers_of_every_length() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
    closing = b"HTTP/1.1 200 OK\r\n\r\nuntil the end"
    with (
        server(raw(chunked)) as a,
        server(raw(closing)) as b,
        server(raw(OK)) as c,
        relay_to(a, b, c) as door,
    ):
        out = exchange(door, GET * 3, end=False)
    assert out.count(b"HTTP/1.1 200 OK") == 3
    assert b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n" in out
    assert b"d\r\nuntil the end\r\n0\r\n\r\n" in out
    assert out.endswith(b"content-length: 2\r\nconnection: keep-alive\r\n\r\nok")


def test_old_client_gets_its_answer_until_the_end() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with server(raw(chunked)) as port, relay_to(port) as door:
        out = exchange(door, b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert out.endswith(b"connection: close\r\n\r\nabc")


def test_engine_that_answers_nonsense_is_a_502() -> None:
    with server(raw(b"SSH-2.0-x\r\n\r\n")) as port, relay_to(port) as door:
        assert exchange(door, GET).startswith(b"HTTP/1.1 502 ")


def test_engine_is_told_when_the_client_leaves() -> None:
    told = threading.Event()

    def slow(s: socket.socket) -> None:
        s.settimeout(10)
        if s.recv(1) == b"":
            told.set()

    with server(slow) as port, relay_to(port) as door:
        s = socket.create_connection(("127.0.0.1", door))
        s.sendall(GET)
        threading.Event().wait(0.3)
        s.close()
        assert told.wait(10)
