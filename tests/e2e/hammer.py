"""Clients that never stop asking, and remember every answer that was not right.

    python -m tests.e2e.hammer PORT KEY PAUSE

asks until its standard input ends and prints what it saw: for the network of a container.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

QUESTION = {"role": "user", "content": "What is 2+2? Answer with a number."}


@dataclass
class Hammer:
    """What `hammering` saw: how many answers of each kind were right, and all that was wrong."""

    port: int
    path: str = "/v1/chat/completions"
    model: str = "smol"
    key: str | None = None
    tls: ssl.SSLContext | None = None
    # Seconds between two questions of one client, where the engine needs the machine to start.
    pause: float = 0.0
    right: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def connect(self) -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=120, context=self.tls
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, connection: http.client.HTTPConnection, *, stream: bool = False) -> None:
        """One request and its whole answer; raises when anything about it is wrong."""
        body = {"model": self.model, "messages": [QUESTION], "max_tokens": 8, "temperature": 0}
        fields = {"Content-Type": "application/json"}
        if self.key is not None:
            fields["Authorization"] = f"Bearer {self.key}"
        connection.request("POST", self.path, json.dumps(body | {"stream": stream}), fields)
        response = connection.getresponse()
        data = response.read()
        assert response.status == 200, (response.status, data[:300])
        if stream:
            assert b"data: [DONE]" in data, data[-300:]
        else:
            assert json.loads(data)["choices"][0]["message"]["content"]

    def keep_alive(self) -> None:
        """Every request on one connection."""
        connection = self.connect()
        connection.connect()
        sock = connection.sock
        while not self.stop.is_set():
            self._count("keep-alive", lambda: self.ask(connection))
            if connection.sock is not sock:
                self.wrong.append("keep-alive: the connection was closed")
                sock = connection.sock

    def fresh(self) -> None:
        """Every request on its own connection."""
        while not self.stop.is_set():
            connection = self.connect()
            self._count("fresh", lambda c=connection: self.ask(c))  # type: ignore[misc]
            connection.close()

    def stream(self) -> None:
        """Streamed answers."""
        while not self.stop.is_set():
            connection = self.connect()
            self._count("stream", lambda c=connection: self.ask(c, stream=True))  # type: ignore[misc]
            connection.close()

    def _count(self, kind: str, ask: object) -> None:
        try:
            ask()  # type: ignore[operator]
            self.right[kind] = self.right.get(kind, 0) + 1
            self.stop.wait(self.pause)
        except (OSError, AssertionError, ValueError, http.client.HTTPException, LookupError) as e:
            self.wrong.append(f"{kind}: {e!r}")
            self.stop.wait(0.05)


@contextmanager
def hammering(
    hammer: Hammer, kinds: tuple[str, ...] = ("keep_alive", "fresh", "stream")
) -> Iterator[Hammer]:
    """Ask from one thread a kind until the block ends."""
    threads = [threading.Thread(target=getattr(hammer, k)) for k in kinds]
    for t in threads:
        t.start()
    try:
        yield hammer
    finally:
        hammer.stop.set()
        for t in threads:
            t.join()


def main(port: int, key: str, pause: float) -> None:
    """As a program: its address may be another network's, so the certificate is not compared."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with hammering(Hammer(port, key=key, tls=tls, pause=pause)) as hammer:
        sys.stdin.read()
    print(json.dumps({"right": hammer.right, "wrong": hammer.wrong}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
