"""A Hub that is never the bottleneck: one folder as the repository `bench/model`, a process of its
own, a thread for each connection, heads made beforehand, bodies by sendfile(2). It counts the bytes
of files that it sends, and can be slowed down and made to drop connections.

    python -m tests.bench.fetch.server FOLDER [--delay SECONDS] [--rate BYTES] [--drop N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler.demo.hub_tree import Commit, Entry, read_folder

REPOSITORY = "bench/model"
# Where `sent` and `answers` are asked for, as JSON.
COUNTERS = "/counters"
_PAGE_FILES = 1000
_CHUNK_BYTES = 64 * 1024
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)
# The first answer that is dropped, so that a run with few answers has one too.
_FIRST_DROP = 5


@dataclass(frozen=True)
class Shape:
    """`delay`: seconds before each answer. `rate`: bytes a second of one connection. `drop`: one
    answer with a file in so many is cut off half way. 0: none of it."""

    delay: float = 0.0
    rate: float = 0.0
    drop: int = 0


@dataclass
class Served:
    """Answers by path: what stands before the body, and the body: bytes, or a file.
    Large files are redirected to another origin, `storage`, as the Hub does: its client stays
    with a redirect that leads to the Hub itself."""

    origin: str
    storage: str
    heads: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    files: dict[bytes, tuple[bytes, Entry]] = field(default_factory=dict)

    def add(self, commit: Commit) -> None:
        """All that a client asks of a repository with one commit."""
        info: dict[str, Any] = {
            "_id": commit.id[:24],
            "id": REPOSITORY,
            "modelId": REPOSITORY,
            "sha": commit.id,
        }
        info |= {"private": False, "gated": False, "disabled": False, "tags": [], "cardData": {}}
        info["siblings"] = [{"rfilename": path} for path in commit.files]
        for path in ("", "/revision/main", f"/revision/{commit.id}"):
            self._json(f"/api/models/{REPOSITORY}{path}", info)
        self._tree(commit)
        for entry in commit.files.values():
            self._file(commit, entry)

    def _tree(self, commit: Commit) -> None:
        listed = [e.to_json() for e in commit.files.values()]
        pages = [listed[i : i + _PAGE_FILES] for i in range(0, len(listed), _PAGE_FILES)]
        place = f"/api/models/{REPOSITORY}/tree/{commit.id}"
        for number, page in enumerate(pages):
            more = ""
            if number + 1 < len(pages):
                more = f'Link: <{self.origin}{place}?cursor={number + 1}>; rel="next"\r\n'
            self._json(f"{place}?cursor={number}" if number else place, page, more)

    def _json(self, path: str, document: Any, more: str = "") -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self.heads[path.encode()] = (head.encode(), body)

    def _file(self, commit: Commit, entry: Entry) -> None:
        etag = f'ETag: "{entry.etag}"\r\nAccept-Ranges: bytes\r\n'
        names = [f"/{REPOSITORY}/resolve/{r}/{entry.path}".encode() for r in ("main", commit.id)]
        known = f"X-Repo-Commit: {commit.id}\r\n"
        if entry.lfs is None:
            self.files |= dict.fromkeys(names, ((etag + known).encode(), entry))
            return
        head = f"HTTP/1.1 302 Found\r\n{known}X-Linked-Size: {entry.size}\r\n"
        head += f'X-Linked-ETag: "{entry.lfs}"\r\nLocation: {self.storage}/lfs/{entry.lfs}\r\n'
        self.heads |= dict.fromkeys(names, (f"{head}Content-Length: 0\r\n\r\n".encode(), b""))
        self.files[f"/lfs/{entry.lfs}".encode()] = (etag.encode(), entry)


class Server:
    """Listens until the process ends."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(2)]
        origins = [f"http://127.0.0.1:{s.getsockname()[1]}" for s in self._sockets]
        self.origin = origins[0]
        self._served = Served(origins[0], origins[1])
        self._served.add(read_folder(folder))
        self._shape = shape
        self._lock = threading.Lock()
        self._sent = 0
        self._answers = 0

    def run(self) -> None:
        """Take connections, on both ports."""
        threading.Thread(target=self._accept, args=(self._sockets[1],), daemon=True).start()
        self._accept(self._sockets[0])

    def _accept(self, listening: socket.socket) -> None:
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for head in _requests(connection):
                if not self._answer(connection, head):
                    return

    def _answer(self, connection: socket.socket, head: bytes) -> bool:
        """Answer one request: whether the connection stays open."""
        method, target, _ = head.split(b" ", 2)
        path, _, query = target.partition(b"?")
        if path.decode() == COUNTERS:
            connection.sendall(self._counters())
            return True
        if self._shape.delay:
            time.sleep(self._shape.delay)
        if path in self._served.files:
            return self._send_file(connection, method, path, head)
        named = path + b"?" + query if query.startswith(b"cursor=") else path
        found = self._served.heads.get(named)
        if found is None:
            found = (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"")
        connection.sendall(found[0] + (found[1] if method == b"GET" else b""))
        return True

    def _send_file(
        self, connection: socket.socket, method: bytes, path: bytes, head: bytes
    ) -> bool:
        about, entry = self._served.files[path]
        start, end, status = 0, entry.size, b"200 OK\r\n"
        asked = _RANGE.search(head)
        if asked is not None:
            start = int(asked[1])
            end = min(int(asked[2]) + 1, entry.size) if asked[2] else entry.size
            place = f"bytes {start}-{end - 1}/{entry.size}"
            status = f"206 Partial Content\r\nContent-Range: {place}\r\n".encode()
        length = f"Content-Length: {end - start}\r\n\r\n".encode()
        begin = b"HTTP/1.1 " + status + about + length
        if method != b"GET":
            connection.sendall(begin)
            return True
        dropped = self._is_dropped()
        end = start + (end - start) // 2 if dropped else end
        with entry.file.open("rb", buffering=0) as f:
            connection.sendall(begin, socket.MSG_MORE)
            self._send(connection, f.fileno(), start, end)
        return not dropped

    def _is_dropped(self) -> bool:
        with self._lock:
            self._answers += 1
            number = self._answers
        return self._shape.drop > 0 and number % self._shape.drop == _FIRST_DROP

    def _send(self, connection: socket.socket, fd: int, at: int, end: int) -> None:
        rate, begun, first = self._shape.rate, time.monotonic(), at
        while at < end:
            most = min(_CHUNK_BYTES, end - at) if rate else end - at
            count = os.sendfile(connection.fileno(), fd, at, most)
            at += count
            with self._lock:
                self._sent += count
            if rate:
                time.sleep(max(0.0, begun + (at - first) / rate - time.monotonic()))

    def _counters(self) -> bytes:
        with self._lock:
            body = json.dumps({"sent": self._sent, "answers": self._answers}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _requests(connection: socket.socket) -> Iterator[bytes]:
    """The heads of requests without a body, one after the other."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = connection.recv(_CHUNK_BYTES)
            if not more:
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        yield head


def main() -> None:
    """Serve; the first line that is printed is the endpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--drop", type=int, default=0)
    args = parser.parse_args()
    server = Server(args.folder, Shape(args.delay, args.rate, args.drop))
    print(server.origin, flush=True)
    server.run()


if __name__ == "__main__":
    main()
