"""HTTP to 127.0.0.1 and nowhere else, bounded in bytes and in time."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airgap import limits
from airgap.errors import ServingError

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """Status and body of an answer."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """Nothing answered: refused, reset, or silent for too long. The text says which."""


def request(
    port: int,
    path: str,
    *,
    body: bytes | None = None,
    seconds: float,
    fields: Mapping[str, str] | None = None,
) -> Answer:
    """GET `path`, or POST `body` as JSON, with further header `fields`. `seconds` bound the whole
    exchange.

    Raises NoAnswer, and ServingError `serving.bad-answer` when the body is over the limit.
    """
    deadline = time.monotonic() + seconds
    connection = http.client.HTTPConnection(HOST, port, timeout=seconds)
    try:
        headers = {"Content-Type": "application/json", "Connection": "close", **(fields or {})}
        connection.request("GET" if body is None else "POST", path, body, headers)
        sock = connection.sock
        response = connection.getresponse()
        return Answer(response.status, _read(response, sock, deadline, path))
    except (OSError, http.client.HTTPException) as e:
        raise NoAnswer(str(e) or type(e).__name__) from e
    finally:
        connection.close()


def _read(
    response: http.client.HTTPResponse, sock: socket.socket, deadline: float, path: str
) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        if not response.isclosed():
            sock.settimeout(left)
        part = response.read1(65536)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > limits.MAX_ANSWER_BYTES:
            raise bad_answer(path, f"it has more than {limits.MAX_ANSWER_BYTES} bytes")


def decode(path: str, answer: Answer) -> Any:
    """The JSON of an answer with status 200. An engine's JSON may hold floats: plain json, bounded
    by the size above. Raises ServingError `serving.bad-answer`."""
    if answer.status != 200:
        shown = answer.body[:300].decode("utf-8", "replace")
        raise bad_answer(path, f"its status is {answer.status}: {shown!r}")
    try:
        return json.loads(answer.body.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise bad_answer(path, f"it is not JSON: {e}") from e


def bad_answer(path: str, why: str) -> ServingError:
    return ServingError(
        "serving.bad-answer",
        f"the engine's answer to {path} cannot be used",
        why=why,
        do="look at the engine's log with `airgap status`; the model or the engine may be wrong",
    )
