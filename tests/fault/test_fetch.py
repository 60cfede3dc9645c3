"""The downloader against a server with faults: right bytes or a refusal, never wrong bytes."""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from airgap.errors import DiskError, SealiftError
from airgap.events import Event, Progress, Warn, silent
from airgap.store import Store
from bundler.digests import blake3_of
from bundler.fetch import budget, large, partial
from bundler.fetch.download import Item, Options, fetch
from bundler.fetch.ranges import Piece, Ranges
from tests.fault.web import (
    Fault,
    File,
    Request,
    Web,
    becomes,
    claim,
    cut,
    drip,
    flip,
    serving,
    stall,
    status,
)

MB = 1_000_000
DATA = random.Random(1).randbytes(12 * MB)
SHA256 = hashlib.sha256(DATA).hexdigest()
SMALL = DATA[:5000]
BIG = random.Random(2).randbytes(200 * MB)
QUICK = Options(stall_seconds=0.5, window_seconds=0.5, least_rate=100_000)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    return Store(tmp_path / "store")


def no_sleep(_seconds: float) -> None:
    return None


def item(web: Web, data: bytes = DATA, path: str = "/f", **more: object) -> Item:
    sha256 = hashlib.sha256(data).hexdigest()
    return Item(web.url(path), sha256, len(data), "f", **more)  # type: ignore[arg-type]


def blobs(store: Store) -> list[str]:
    return sorted(os.listdir(store.blobs)) if store.blobs.is_dir() else []


def refused(store: Store, wanted: Item, options: Options = QUICK) -> SealiftError:
    with pytest.raises(SealiftError) as caught:
        fetch([wanted], store, silent, options=options, sleep=no_sleep)
    assert blobs(store) == []
    assert not list(store.root.rglob(".tmp-*"))
    return caught.value


def test_a_large_file_comes_on_several_connections_with_both_digests(
    web: Web, store: Store
) -> None:
    web.files["/f"] = File(DATA)
    assert fetch([item(web)], store, silent)[0].sha256 == SHA256
    assert store.blob_path(SHA256).read_bytes() == DATA
    assert (store.root / "blake3" / SHA256).read_text() == blake3(DATA).hexdigest()
    assert len({a.headers.get("Range") for a in web.asked}) > 3
    assert web.sent == len(DATA)
    assert [p.name for p in (store.root / "partial").iterdir()] == ["lock"]


RECOVERABLE = {
    "cut": [cut(10), cut(700_000), cut(1_500_000)],
    "cut before the first byte": [cut(0), cut(0)],
    "server error": [status(500), status(502)],
    "busy": [status(429, Retry_After="1"), status(503, Retry_After="0")],
    "stall": [stall(3000, 2.0)],
    "slow body": [drip(2.0)],
    "slow head": [drip(2.0, head=True)],
    "length too short": [claim(Content_Length="1000", Content_Range="bytes 0-999/1000")],
}


@pytest.mark.parametrize("name", RECOVERABLE)
@pytest.mark.parametrize("data", [DATA, SMALL], ids=["large", "small"])
def test_a_fault_that_passes_costs_a_retry(web: Web, store: Store, name: str, data: bytes) -> None:
    web.files["/f"] = File(data, faults=list(RECOVERABLE[name]))
    seen: list[Event] = []
    fetch([item(web, data)], store, seen.append, options=QUICK, sleep=no_sleep)
    sha256 = hashlib.sha256(data).hexdigest()
    assert store.blob_path(sha256).read_bytes() == data
    assert blake3_of(store, sha256) == blake3(data).hexdigest()
    assert "source.retry" in {e.id for e in seen if isinstance(e, Warn)}


FOR_GOOD: dict[str, tuple[Fault, str, int]] = {
    "not found": (status(404), "source.http", 6),
    "forbidden": (status(403), "source.http", 6),
    "down": (status(503), "source.unreachable", 6),
    "wait a day": (status(429, Retry_After="86400"), "source.unreachable", 6),
    "gzip": (claim(Content_Encoding="gzip"), "source.encoding", 6),
    "stalls": (stall(0, 1.5), "source.unreachable", 6),
    "drips": (drip(2.0), "source.unreachable", 6),
    "drips its head": (drip(1.5, head=True), "source.unreachable", 6),
    "redirect loop": (status(302, Location="/f"), "source.redirect", 6),
    "redirect to a file": (status(302, Location="file:///etc/passwd"), "source.redirect", 6),
    "redirect to nothing": (status(302), "source.redirect", 6),
    "flipped bit": (flip(4000), "source.digest", 3),
}


@pytest.mark.parametrize("name", FOR_GOOD)
@pytest.mark.parametrize("data", [DATA, SMALL], ids=["large", "small"])
def test_a_fault_that_stays_is_refused(web: Web, store: Store, name: str, data: bytes) -> None:
    fault, id, code = FOR_GOOD[name]
    web.files["/f"] = File(data, every=fault)
    error = refused(store, item(web, data))
    assert (error.id, error.exit_code) == (id, code)


@pytest.mark.parametrize("data", [DATA, SMALL], ids=["large", "small"])
def test_a_file_that_is_longer_than_locked_is_refused(web: Web, store: Store, data: bytes) -> None:
    web.files["/f"] = File(data + b"more")
    error = refused(store, item(web, data))
    assert (error.id, error.exit_code) == ("source.size", 3)


def test_a_source_without_ranges_is_read_in_one_go_and_begun_again(web: Web, store: Store) -> None:
    web.files["/f"] = File(DATA, ranges=False, faults=[cut(3 * MB), cut(5 * MB)])
    fetch([item(web)], store, silent, sleep=no_sleep)
    assert store.blob_path(SHA256).read_bytes() == DATA
    assert web.sent == len(DATA) + 8 * MB


def test_an_unknown_size_is_learnt(web: Web, store: Store) -> None:
    web.files["/f"] = File(DATA, faults=[cut(3 * MB)])
    wanted = Item(web.url("/f"), SHA256, None, "f")
    assert fetch([wanted], store, silent, sleep=no_sleep)[0].size == len(DATA)
    ranges = [a.headers.get("Range") for a in web.asked]
    assert ranges[0] is None
    assert any(r is not None and not r.startswith("bytes=0-") for r in ranges)


def test_a_file_that_changes_in_between_begins_again(web: Web, store: Store) -> None:
    old = bytes(len(DATA))
    web.files["/f"] = File(old, etag='"old"', faults=[cut(MB), becomes(DATA, '"new"')])
    seen: list[Event] = []
    fetch([item(web)], store, seen.append, sleep=no_sleep)
    assert store.blob_path(SHA256).read_bytes() == DATA
    assert "source.restart" in {e.id for e in seen if isinstance(e, Warn)}


def test_a_file_that_changes_to_something_else_is_refused(web: Web, store: Store) -> None:
    other = bytes(len(DATA))
    web.files["/f"] = File(DATA, faults=[cut(MB), becomes(other, '"new"')])
    assert refused(store, item(web)).id == "source.digest"


def test_a_file_that_never_stays_the_same_is_refused(web: Web, store: Store) -> None:
    turns = iter(range(1, 10_000))

    def change(r: Request) -> bool:
        number = next(turns)
        r.file.etag, r.file.data = f'"{number}"', bytes([number % 256]) * len(DATA)
        return False

    web.files["/f"] = File(DATA, every=change)
    error = refused(store, item(web))
    assert error.id in ("source.changed", "source.unreachable", "source.digest")


class Token:
    """An access whose token is good until it is refused; notes which addresses saw it."""

    def __init__(self) -> None:
        self.number = 0
        self.asked: list[str] = []

    def headers(self, url: str) -> Mapping[str, str]:
        self.asked.append(url)
        return {"Authorization": f"Bearer {self.number}"}

    def refused(self, status: int, headers: Mapping[str, str]) -> bool:
        self.number += 1
        return self.number < 5


def needs(token: str) -> Fault:
    def fault(r: Request) -> bool:
        if r.handler.headers.get("Authorization") == f"Bearer {token}":
            return False
        status(401)(r)
        return True

    return fault


def test_a_token_that_expires_on_the_way_is_renewed(web: Web, store: Store) -> None:
    access = Token()
    web.files["/f"] = File(DATA, every=needs("1"))
    fetch([item(web, access=access)], store, silent, options=Options(connections=1))
    assert access.number == 1
    assert store.blob_path(SHA256).read_bytes() == DATA


def test_a_token_that_is_never_good_enough_is_refused(web: Web, store: Store) -> None:
    web.files["/f"] = File(DATA, every=needs("no"))
    assert refused(store, item(web, access=Token())).id == "source.http"


@pytest.mark.parametrize("where", ["other port", "other host"])
def test_a_token_never_follows_a_redirect_to_another_origin(
    web: Web, store: Store, where: str
) -> None:
    with serving() as cdn:
        name = "localhost" if where == "other host" else "127.0.0.1"
        cdn.files["/blob"] = File(DATA)
        web.files["/f"] = File(b"", every=status(302, Location=cdn.url("/blob", name)))
        access = Token()
        fetch([item(web, access=access)], store, silent)
        assert cdn.asked
        assert all("Authorization" not in a.headers for a in cdn.asked)
        assert set(access.asked) == {web.url("/f")}
        assert web.asked[0].headers["Authorization"] == "Bearer 0"


def test_an_address_that_expired_is_asked_for_again(web: Web, store: Store) -> None:
    numbers = iter(range(1000))

    def sign(r: Request) -> bool:
        number = next(numbers)
        web.files[f"/signed/{number}"] = File(DATA, every=spent)
        return bool(status(302, Location=f"/signed/{number}")(r)) or True

    def spent(r: Request) -> bool:
        """Good for two requests."""
        times = [a.path for a in web.asked].count(r.handler.path)
        if times <= 2:
            return False
        status(403)(r)
        return True

    web.files["/f"] = File(b"", every=sign)
    fetch([item(web)], store, silent, options=Options(connections=1))
    assert store.blob_path(SHA256).read_bytes() == DATA
    assert next(numbers) >= 2


def test_retry_after_as_a_date_is_waited_for(web: Web, store: Store) -> None:
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=90)
    date = email.utils.format_datetime(soon, usegmt=True)
    web.files["/f"] = File(SMALL, faults=[status(429, Retry_After=date)])
    pauses: list[float] = []
    fetch([item(web, SMALL)], store, silent, sleep=pauses.append)
    assert 80 < pauses[0] < 91


def test_the_bandwidth_limit_holds(web: Web, store: Store) -> None:
    data = DATA[: 2 * MB]
    web.files["/f"] = File(data)
    started = time.monotonic()
    fetch([item(web, data)], store, silent, options=Options(limit_rate=MB))
    assert time.monotonic() - started > 1.7


def test_what_a_late_connection_writes_is_not_taken_for_the_file(
    web: Web, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file changes; a connection that had old bytes in hand writes them when the new ones have
    been hashed. The name would say one thing and the blob be another."""
    other = bytes(len(DATA))
    in_hand, all_came = threading.Event(), threading.Event()
    late = 0

    def answers(r: Request) -> bool | None:
        if len(web.asked) == 1:
            return False
        assert in_hand.wait(10)
        return becomes(DATA, '"new"')(r)

    write, check_end = partial.Partial.write, large.Large._check_end

    def writes_late(self: partial.Partial, offset: int, data: bytes) -> None:
        nonlocal late
        if not any(data[:100]):
            in_hand.set()
            late += all_came.wait(10)
        write(self, offset, data)

    def says_so(self: large.Large, piece: Piece) -> None:
        check_end(self, piece)
        all_came.set()

    monkeypatch.setattr(partial.Partial, "write", writes_late)
    monkeypatch.setattr(large.Large, "_check_end", says_so)
    web.files["/f"] = File(other, etag='"old"', every=answers)
    fetch([item(web)], store, silent, options=Options(connections=2), sleep=no_sleep)
    assert late == 1
    assert hashlib.sha256(store.blob_path(SHA256).read_bytes()).hexdigest() == SHA256


def test_no_room_is_told_before_the_first_byte(
    web: Web, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["/f"] = File(DATA)
    monkeypatch.setattr(budget, "RESERVE_BYTES", 1 << 60)
    error = refused(store, item(web))
    assert isinstance(error, DiskError)
    assert (error.id, error.exit_code) == ("disk.full", 8)
    assert web.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_leaves_a_state_that_goes_on(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=True)
    try:
        monkeypatch.setattr(budget, "check_room", lambda *_: None)
        monkeypatch.setattr("bundler.fetch.download.check_room", lambda *_: None)
        web.files["/f"] = File(DATA)
        store = Store(place)
        with pytest.raises(DiskError) as caught:
            fetch([item(web)], store, silent, sleep=no_sleep)
        assert caught.value.id == "disk.full"
        assert blobs(store) == []
        subprocess.run(["mount", "-o", "remount,size=40m", str(place)], check=True)
        before = web.sent
        fetch([item(web)], store, silent)
        assert store.blob_path(SHA256).read_bytes() == DATA
        assert web.sent - before < len(DATA) - 3 * MB
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_private_certificate_needs_its_ca(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    out = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make.split(), *name, *out], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    with serving(tls) as web:
        web.files["/f"] = File(DATA)
        wanted = Item(web.url("/f", "localhost"), SHA256, len(DATA), "f")
        assert refused(store, wanted).id == "source.certificate"
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        fetch([wanted], store, silent)
        assert store.blob_path(SHA256).read_bytes() == DATA


def test_what_an_earlier_run_left_wrong_is_fetched_again(web: Web, store: Store) -> None:
    """Bits that rotted in a half-fetched file cost a second fetch, not a refusal."""
    web.files["/f"] = File(DATA, every=cut(5 * MB), ranges=False)
    refused(store, item(web))
    part = store.root / "partial" / f"{SHA256}.part"
    rotten = bytearray(part.read_bytes())
    rotten[1000] ^= 1
    part.write_bytes(rotten)
    web.files["/f"] = File(DATA)
    seen: list[Event] = []
    fetch([item(web)], store, seen.append)
    assert store.blob_path(SHA256).read_bytes() == DATA
    assert "source.restart" in {e.id for e in seen if isinstance(e, Warn)}


def test_progress_ends_at_the_total_after_faults(web: Web, store: Store) -> None:
    web.files["/f"] = File(DATA, faults=[cut(700_000), cut(10)])
    seen: list[Event] = []
    fetch([item(web)], store, seen.append, sleep=no_sleep)
    last = [e for e in seen if isinstance(e, Progress)][-1]
    assert (last.done, last.total, last.files_done) == (len(DATA), len(DATA), 1)


def test_a_journal_counts_after_a_reboot_only_where_the_disk_had_it() -> None:
    head = b'H {"boot": "a", "size": 100, "validator": null}\n'
    text = head + b"R 0 10\n"
    text += b"S %d\n" % len(text) + b"R 10 20\nR 30 4"
    assert partial.parse(text, "a")[1] == [(0, 10), (10, 20)]
    assert partial.parse(text, "b")[1] == [(0, 10)]
    assert partial.parse(b"garbage\n" + text, "a") == (None, [])


def test_ranges_join_and_gaps_are_what_is_missing() -> None:
    rng, known, ranges = random.Random(3), set[int](), Ranges()
    for _ in range(200):
        start = rng.randrange(300)
        end = start + rng.randrange(12)
        ranges.add(start, end)
        known.update(range(start, end))
        assert {n for a, b in ranges for n in range(a, b)} == known
        missing = {n for a, b in ranges.gaps(300) for n in range(a, b)}
        assert missing == set(range(300)) - known
        assert ranges.total == len(known)


FETCH = """
import re, sys
from pathlib import Path
from airgap.events import Progress
from airgap.store import Store
from bundler.fetch.download import Item, fetch
url, sha, size, store = sys.argv[1:]
def tell(event):
    if isinstance(event, Progress):
        print(event.done, flush=True)
fetch([Item(url, sha, int(size), "f")], Store(Path(store)), tell)
# ru_maxrss would count what the parent held before exec(2).
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def start(web: Web, store: Store, data: bytes = DATA) -> subprocess.Popen[bytes]:
    digest = hashlib.sha256(data).hexdigest()
    argv = [web.url("/f"), digest, str(len(data)), str(store.root)]
    line = [sys.executable, "-c", FETCH, *argv]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def kill_after(child: subprocess.Popen[bytes], web: Web, count: int, how: int) -> None:
    """Send the signal once `count` more bytes have left; not when the child ended before."""
    goal = web.sent + count
    while child.poll() is None and web.sent < goal:
        time.sleep(0.005)
    if child.poll() is None:
        child.send_signal(how)
    child.communicate(timeout=20)


def test_killed_at_random_moments_until_done(web: Web, store: Store) -> None:
    rng = random.Random(5)
    web.files["/f"] = File(DATA, rate=2 * MB)
    kills = 0
    for _ in range(12):
        child = start(web, store)
        kill_after(child, web, rng.randrange(MB, 6 * MB), signal.SIGKILL)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        assert blobs(store) == []
        kills += 1
    assert kills >= 2
    assert store.blob_path(SHA256).read_bytes() == DATA
    # A kill costs what each of 8 connections had not noted yet and what lay in its socket.
    assert web.sent < len(DATA) + kills * 8 * 512 * 1024
    print(f"{kills} kills, {web.sent / len(DATA):.2f} of the file was sent")


def test_after_a_kill_at_seventy_percent_little_is_sent_again(web: Web, store: Store) -> None:
    """70 % by what the program says, as a person sees it; what the second run costs is counted at
    the server."""
    web.files["/f"] = File(BIG, rate=20 * MB)
    child = start(web, store, BIG)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= len(BIG) * 7 // 10:
            break
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=20)
    first = web.sent
    assert blobs(store) == []
    web.files["/f"].rate, before = 0.0, web.sent
    child = start(web, store, BIG)
    child.communicate(timeout=60)
    assert child.returncode == 0
    again = web.sent - before
    print(f"{first / len(BIG):.3f} of the file had left, {again / len(BIG):.3f} of it left again")
    assert again <= len(BIG) * 31 // 100
    assert len(blobs(store)) == 1


def test_a_large_file_takes_no_more_memory_than_a_small_one(web: Web, store: Store) -> None:
    """Digests follow in bounded buffers; what ran ahead is read back from the disk's cache."""
    web.files["/f"] = File(BIG)
    child = start(web, store, BIG)
    said, _ = child.communicate(timeout=60)
    peak = int(said.split()[-1]) * 1024
    print(f"{peak / MB:.0f} MB at most for {len(BIG) / MB:.0f} MB")
    assert child.returncode == 0
    assert peak < 150 * MB


def test_ctrl_c_leaves_a_state_that_goes_on(web: Web, store: Store) -> None:
    web.files["/f"] = File(DATA, rate=MB)
    child = start(web, store)
    kill_after(child, web, 5 * MB, signal.SIGINT)
    assert child.returncode == -signal.SIGINT
    assert blobs(store) == []
    kept = (store.root / "partial" / f"{SHA256}.journal").read_bytes()
    assert sum(b - a for a, b in partial.parse(kept, partial._boot())[1]) > MB
    fetch([item(web)], store, silent)
    assert store.blob_path(SHA256).read_bytes() == DATA


def test_two_fetches_into_one_store_do_not_meet(web: Web, store: Store) -> None:
    refused_once = threading.Event()

    def wait(_r: Request) -> bool:
        assert refused_once.wait(20)
        return False

    web.files["/f"] = File(DATA, every=wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, [item(web)], store, silent)
        try:
            while not web.asked:
                time.sleep(0.01)
            error = refused(store, item(web))
        finally:
            refused_once.set()
        assert (error.id, error.exit_code) == ("host.busy", 7)
        assert [d.sha256 for d in first.result()] == [SHA256]
    assert store.blob_path(SHA256).read_bytes() == DATA
    assert web.sent == len(DATA)
