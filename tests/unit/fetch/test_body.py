"""Bodies are read past the HTTP client, and the client does not notice."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest

from airgap.events import silent
from airgap.store import Store
from bundler.fetch.download import Item, Options, fetch
from tests.fault.web import File, Request, Web, serving

DATA = random.Random(5).randbytes(12_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
ONE = Options(connections=1)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def get(web: Web, store: Store, size: int | None = len(DATA)) -> None:
    fetch([Item(web.url("/f"), SHA256, size, "f")], store, silent, options=ONE)
    assert store.blob_path(SHA256).read_bytes() == DATA


def test_all_pieces_of_a_file_come_on_one_connection(web: Web, store: Store) -> None:
    """Each answer is seen to its end, so that its connection serves the next request."""
    clients = []

    def watched(r: Request) -> bool:
        clients.append(r.handler.client_address)
        return False

    web.files["/f"] = File(DATA, every=watched)
    get(web, store)
    assert len(clients) > 2
    assert len(set(clients)) == 1


def test_the_client_sees_heads_and_little_else(
    web: Web, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a new version of the client looks different inside, and all is copied again."""
    seen = 0
    receive = h11.Connection.receive_data

    def counting(self: h11.Connection, data: bytes) -> None:
        nonlocal seen
        seen += len(data)
        receive(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", counting)
    web.files["/f"] = File(DATA)
    get(web, store)
    # A megabyte may come with each head, at most.
    assert 0 < seen < len(DATA) * 3 / 4


def test_a_body_of_unknown_length_is_left_to_the_client(web: Web, store: Store) -> None:
    def chunked(r: Request) -> None:
        r.handler.send_response(200)
        r.handler.send_header("Transfer-Encoding", "chunked")
        r.handler.end_headers()
        for at in range(0, len(DATA), 100_000):
            piece = DATA[at : at + 100_000]
            r.handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        r.handler.wfile.write(b"0\r\n\r\n")

    web.files["/f"] = File(DATA, every=chunked, ranges=False)
    get(web, store, size=None)
