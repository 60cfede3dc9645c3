"""Fetching by hash against a server that misbehaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import Event, Progress, Warn, silent
from airgap.store import Store
from bundler.fetch.download import MAX_TRIES, Item, fetch
from tests.unit.fetch.server import Server, body, closed_port, cut, in_turn, serving, status

DATA = bytes(range(256)) * 9000  # 2.3 MB: more than one chunk
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    return Store(tmp_path / "store")


def item(server: Server, path: str = "/f", size: int | None = len(DATA)) -> Item:
    return Item(server.url(path), SHA256, size, "f.whl")


def no_sleep(_seconds: float) -> None:
    return None


def assert_empty(store: Store) -> None:
    """Nothing of a failed fetch remains, neither under a name nor as a temporary."""
    left = [p for p in store.root.rglob("*") if p.is_file()]
    assert [p for p in left if p != store.root / "partial" / "lock"] == []


def assert_no_blob(store: Store) -> None:
    """Nothing has a name; what came is kept for the next run."""
    assert not store.blobs.is_dir() or list(store.blobs.iterdir()) == []
    assert [p.suffix for p in (store.root / "partial").iterdir() if p.suffix == ".part"]


def test_what_is_fetched_lies_in_the_store_and_is_not_asked_for_again(
    server: Server, store: Store
) -> None:
    server.pages["/f"] = body(DATA)
    assert fetch([item(server)], store, silent)[0].sha256 == SHA256
    assert store.blob_path(SHA256).read_bytes() == DATA
    fetch([item(server)], store, silent)
    fetch([item(server, size=None)], store, silent)
    assert server.asked == ["/f"]


def test_many_files_come_and_the_progress_ends_at_the_total(server: Server, store: Store) -> None:
    blobs = [bytes([n]) * 5000 for n in range(20)]
    items = []
    for n, data in enumerate(blobs):
        server.pages[f"/{n}"] = body(data)
        items.append(Item(server.url(f"/{n}"), hashlib.sha256(data).hexdigest(), 5000, str(n)))
    seen: list[Event] = []
    fetch(items, store, seen.append)
    last = [e for e in seen if isinstance(e, Progress)][-1]
    assert (last.done, last.total, last.files_done) == (100_000, 100_000, 20)
    assert all(store.has(i.sha256, 5000) for i in items)


GROWING = ((0.375, 0.625), (0.75, 1.25))
AS_ASKED = ((1.0, 1.05), (1.0, 1.05))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (status(500), GROWING),
        (status(503, Retry_After="1"), AS_ASKED),
        (status(429), GROWING),
    ],
)
def test_a_server_that_recovers_is_asked_again(
    server: Server, store: Store, fault: object, expected: tuple[tuple[float, float], ...]
) -> None:
    server.pages["/f"] = in_turn(fault, fault, body(DATA))  # type: ignore[arg-type]
    pauses: list[float] = []
    seen: list[Event] = []
    fetch([item(server)], store, seen.append, sleep=pauses.append)
    assert len(server.asked) == 3
    assert len(pauses) == 2
    assert all(a <= pause <= b for pause, (a, b) in zip(pauses, expected, strict=True)), pauses
    assert [e.id for e in seen if isinstance(e, Warn)] == ["source.retry"] * 2


def test_a_connection_that_broke_once_is_made_again_at_once(server: Server, store: Store) -> None:
    """But one that breaks each time is given longer and longer, and then given up."""
    small = DATA[:200_000]
    server.pages["/f"] = cut(small, 100_000)
    wanted = Item(server.url("/f"), hashlib.sha256(small).hexdigest(), len(small), "f")
    pauses: list[float] = []
    with pytest.raises(SourceError, match=r"source\.unreachable"):
        fetch([wanted], store, silent, sleep=pauses.append)
    assert len(pauses) == MAX_TRIES - 1
    assert pauses[0] <= 0.05
    assert all(pause >= 0.75 * 0.5 * 2**n for n, pause in enumerate(pauses[1:], 1)), pauses


@pytest.mark.parametrize("length", [True, False])
def test_a_cut_body_is_fetched_again_and_counted_once(
    server: Server, store: Store, length: bool
) -> None:
    server.pages["/f"] = in_turn(cut(DATA, 100_000, length=length), body(DATA))
    seen: list[Event] = []
    fetch([item(server)], store, seen.append, sleep=no_sleep)
    assert [e.done for e in seen if isinstance(e, Progress)][-1] == len(DATA)
    assert store.has(SHA256, len(DATA))


def test_a_body_cut_every_time_is_refused(server: Server, store: Store) -> None:
    server.pages["/f"] = cut(DATA, 100_000)
    with pytest.raises(SourceError) as caught:
        fetch([item(server)], store, silent, sleep=no_sleep)
    assert caught.value.id == "source.unreachable"
    assert caught.value.exit_code == 6
    assert len(server.asked) == MAX_TRIES
    assert_no_blob(store)


def test_a_server_that_stays_down_is_refused(server: Server, store: Store) -> None:
    server.pages["/f"] = status(500)
    with pytest.raises(SourceError, match=r"source\.unreachable") as caught:
        fetch([item(server)], store, silent, sleep=no_sleep)
    assert "500" in caught.value.why
    assert_empty(store)


def test_a_missing_file_is_refused_at_once(server: Server, store: Store) -> None:
    with pytest.raises(SourceError) as caught:
        fetch([item(server)], store, silent, sleep=no_sleep)
    assert caught.value.id == "source.http"
    assert "404" in caught.value.why
    assert len(server.asked) == 1
    assert_empty(store)


def test_a_password_prompt_names_netrc(server: Server, store: Store) -> None:
    server.pages["/f"] = status(401)
    with pytest.raises(SourceError) as caught:
        fetch([item(server)], store, silent)
    assert "netrc" in caught.value.do


def test_a_flipped_bit_is_refused(server: Server, store: Store) -> None:
    bad = bytearray(DATA)
    bad[1_000_000] ^= 1
    server.pages["/f"] = body(bytes(bad))
    with pytest.raises(IntegrityError) as caught:
        fetch([item(server)], store, silent, sleep=no_sleep)
    assert caught.value.id == "source.digest"
    assert caught.value.exit_code == 3
    assert_empty(store)


def test_a_body_without_end_is_refused_at_its_size(server: Server, store: Store) -> None:
    server.pages["/f"] = body(DATA + b"x" * 5_000_000)
    with pytest.raises(IntegrityError, match=r"source\.size"):
        fetch([item(server)], store, silent)
    assert_empty(store)


def test_an_unreachable_port_is_refused(store: Store) -> None:
    gone = Item(f"http://127.0.0.1:{closed_port()}/f", SHA256, len(DATA), "f.whl")
    with pytest.raises(SourceError) as caught:
        fetch([gone], store, silent, sleep=no_sleep)
    assert caught.value.id == "source.unreachable"
    assert "ConnectError" in caught.value.why


def test_one_failure_leaves_what_is_complete_and_a_second_run_goes_on(
    server: Server, store: Store
) -> None:
    server.pages["/f"] = body(DATA)
    bad = Item(server.url("/gone"), "0" * 64, 5, "gone.whl")
    with pytest.raises(SourceError, match=r"source\.http"):
        fetch([item(server), bad], store, silent)
    fetch([item(server)], store, silent)
    assert server.asked.count("/f") <= 3
    assert store.blob_path(SHA256).read_bytes() == DATA


def test_a_redirect_is_followed_and_its_bytes_still_checked(server: Server, store: Store) -> None:
    server.pages["/f"] = status(302, Location="/g")
    server.pages["/g"] = body(DATA)
    fetch([item(server)], store, silent)
    assert server.asked == ["/f", "/g"]


def test_passwords_come_from_netrc(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.pages["/f"] = body(DATA)
    fetch([item(server)], store, silent)
    assert server.headers[0]["Authorization"].startswith("Basic ")


def test_a_broken_netrc_is_refused(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("nonsense at top level\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with pytest.raises(UsageError, match=r"source\.netrc"):
        fetch([item(server)], store, silent)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("/a%20b.whl", "/a%20b.whl"),
        ("/torch-2.13.0+cpu.whl", "/torch-2.13.0+cpu.whl"),
        ("/f?Policy=a%2Fb&Expires=1~x", "/f?Policy=a%2Fb&Expires=1~x"),
        ("/.gitattributes", "/.gitattributes"),
        ("/a/../f", "/f"),
        ("/a b", "/a%20b"),
        ("/\u00fc", "/%C3%BC"),
        ("/f#sha256=0", "/f"),
    ],
)
def test_an_address_is_asked_for_as_it_is_meant(
    server: Server, store: Store, written: str, asked: str
) -> None:
    server.pages[asked] = body(DATA)
    fetch([item(server, written)], store, silent)
    assert server.asked == [asked]


def test_the_proxy_of_the_environment_is_used(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    monkeypatch.setenv("NO_PROXY", "")
    url = "http://wheels.example/f"
    server.pages[url] = body(DATA)  # a proxy is asked for the whole URL
    fetch([Item(url, SHA256, len(DATA), "f.whl")], store, silent)
    assert server.asked == [url]
