"""Engines that answer wrongly, slowly, endlessly or not at all; a front without an engine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from airgap import limits
from airgap.errors import ServingError
from airgap.format.types import Check, Serve
from airgap.host import loopback, smoke

Handler = Callable[[socket.socket], None]


@contextmanager
def server(handle: Handler) -> Iterator[int]:
    """A loopback server that gives each connection, request read, to `handle`."""
    listening = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            connection, _ = listening.accept()
            with connection:
                if not stop.is_set():
                    connection.recv(65536)
                    try:
                        handle(connection)
                    except OSError:
                        stop.wait(0)

    thread = threading.Thread(target=serve)
    thread.start()
    port = int(listening.getsockname()[1])
    try:
        yield port
    finally:
        stop.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()
        listening.close()


def reply(body: bytes, status: str = "200 OK") -> Handler:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lambda s: s.sendall(head.encode() + body)


def endless(s: socket.socket) -> None:
    s.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(2 * limits.MAX_ANSWER_BYTES // 65536 + 2):
        s.sendall(bytes(65536))


def dripping(s: socket.socket) -> None:
    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\nConnection: close\r\n\r\n")
    for _ in range(10000):
        s.sendall(b"x")
        threading.Event().wait(0.02)


def test_endless_answer_is_cut_off() -> None:
    with server(endless) as port, pytest.raises(ServingError) as e:
        loopback.request(port, "/v1/models", seconds=30)
    assert e.value.id == "serving.bad-answer"


def test_dripping_answer_ends_at_its_deadline() -> None:
    with server(dripping) as port, pytest.raises(loopback.NoAnswer):
        loopback.request(port, "/v1/models", seconds=0.5)


def test_answer_cut_in_the_middle_is_no_answer() -> None:
    def cut(s: socket.socket) -> None:
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with server(cut) as port, pytest.raises((loopback.NoAnswer, ServingError)):
        loopback.decode("/", loopback.request(port, "/v1/models", seconds=5))


def test_nobody_listens_is_no_answer() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        with pytest.raises(loopback.NoAnswer):
            loopback.request(s.getsockname()[1], "/health", seconds=5)


SERVE = Serve(engine="llama.cpp", name="tiny")


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[" * 100_000, b"\xff\xfe", b"[]", b'{"data": 3}', b'{"data":[{}]}'],
)
def test_models_answer_that_is_not_what_the_api_says_is_refused(body: bytes) -> None:
    with server(reply(body)) as port, pytest.raises(ServingError) as e:
        smoke.check_models(SERVE, port)
    assert e.value.id == "serving.bad-answer"


def test_error_status_is_refused_with_its_body() -> None:
    with server(reply(b"no such model", "500 Oops")) as port, pytest.raises(ServingError) as e:
        smoke.check_models(SERVE, port)
    assert "500" in e.value.why and "no such model" in e.value.why


def test_engine_with_another_model_is_refused() -> None:
    body = b'{"data":[{"id":"other"}]}'
    with server(reply(body)) as port, pytest.raises(ServingError) as e:
        smoke.check_models(SERVE, port)
    assert (e.value.id, e.value.exit_code) == ("serving.model-missing", 9)
    assert "other" in e.value.why


def ask(body: bytes, expect: str = "4") -> tuple[bool, str]:
    check = Check(prompt="2+2?", expect=expect)
    with server(reply(body)) as port:
        result, answer = smoke._ask_one(SERVE, check, port)
    return result.passed, answer


def test_answer_is_searched_for_what_is_expected() -> None:
    body = b'{"choices":[{"message":{"content":"It is 4."}}]}'
    assert ask(body) == (True, "It is 4.")
    assert ask(body, "^4$") == (False, "It is 4.")


@pytest.mark.parametrize("content", [b"null", b"4", b'["4"]'])
def test_content_that_is_not_text_is_refused(content: bytes) -> None:
    with pytest.raises(ServingError) as e:
        ask(b'{"choices":[{"message":{"content":' + content + b"}}]}")
    assert e.value.id == "serving.bad-answer"


def test_expectation_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(ServingError) as e:
        ask(b'{"choices":[{"message":{"content":"4"}}]}', "(")
    assert e.value.id == "serving.check-invalid"
