"""Plain files in a plan: their servers say how long they are, and nothing is fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.errors import UsageError
from airgap.format.request import FileRequest
from airgap.store import Store
from bundler.fetch import glance
from bundler.plan import files
from tests.unit.fetch.server import Server, body, serving, status

DATA = b"vocabulary " * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setattr(glance, "FIRST_PAUSE_SECONDS", 0.001)
    with serving() as running:
        yield running


def ask(server: Server, path: str, sha256: str = SHA256, name: str = "files") -> FileRequest:
    return FileRequest(url=server.url(path), sha256=sha256, name=name)


def test_sizes_come_from_the_servers_and_nothing_is_fetched(server: Server, tmp_path: Path) -> None:
    server.pages = {"/a": body(DATA), "/b": body(DATA + b"!"), "/c": body(b"c"), "/d": status(503)}
    requests = [ask(server, "/a"), ask(server, "/b", "b" * 64), ask(server, "/c", "c" * 64, "one")]
    requests += [ask(server, "/d", "d" * 64, "two"), ask(server, "/e", "e" * 64, "two")]
    first, one, two = files.look(requests, Store(tmp_path / "store"))
    assert (first.files, first.bytes, first.here, first.unknown) == (2, 22_001, 0, 0)
    assert (one.bytes, one.note) == (1, "")
    assert (two.files, two.bytes, two.unknown) == (2, 0, 2)
    assert two.note.startswith("2 of unknown size; d: the server answered 503, after 4 tries")
    (gone,) = files.look(requests[-1:], Store(tmp_path / "store"))
    assert gone.note == "1 of unknown size; e: it is no longer there"
    assert not (tmp_path / "store").exists()


def test_what_the_store_has_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    store.add_bytes(DATA)
    (part,) = files.look([ask(server, "/a")], store)
    assert (part.bytes, part.here, part.unknown) == (11_000, 11_000, 0)
    assert server.asked == []


def test_an_address_that_a_lock_refuses_is_refused(tmp_path: Path) -> None:
    bad = FileRequest(url="http://example.com/x", sha256=SHA256)
    with pytest.raises(UsageError):
        files.look([bad], Store(tmp_path / "store"))
