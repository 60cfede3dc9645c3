"""URLs whose bytes are pinned, by SHA-256 or by git blob id -> blobs in the store.

Bytes are hashed as they are written; a blob gets its name only after size and digest were checked.
Proxies and certificates come from the usual environment, passwords from ~/.netrc, never from a URL.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from airgap import limits
from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import Sink, Warn
from airgap.store import Digests, Store
from bundler.fetch.progress import Meter

if TYPE_CHECKING:
    import httpx2

# Tries of one file before its source counts as down; with the pauses below about 8 seconds.
MAX_TRIES = 5
FIRST_PAUSE_SECONDS = 0.5
# A server may ask for a longer pause (Retry-After); more than this and a person should decide.
MAX_PAUSE_SECONDS = 30.0
# Seconds without one byte until a connection counts as dead.
STALL_SECONDS = 60.0
# Connections at once: enough to hide latency, polite to a public index.
MAX_CONNECTIONS = 4
# Answers that a later try may turn into success (RFC 9110; 408, 429 and server errors).
_RETRY = frozenset({408, 425, 429, 500, 502, 503, 504})

Sleep = Callable[[float], None]


class Access(Protocol):
    """What a source wants to see before it delivers. Called from several threads."""

    def headers(self, url: str) -> Mapping[str, str]:
        """Headers of a request for `url`."""

    def refused(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether another try may succeed after that answer: a token was renewed."""


@dataclass(frozen=True)
class Item:
    """One file to fetch. `size` is in bytes, None when its source does not tell it.

    Where the source gives no SHA-256, `git_blob` pins the bytes: their id in git, with a size.
    """

    url: str
    sha256: str | None
    size: int | None
    label: str
    access: Access | None = None
    git_blob: str | None = None

    def __post_init__(self) -> None:
        if self.sha256 is None and (self.git_blob is None or self.size is None):
            raise ValueError("an item needs a SHA-256, or a git blob id and a size")


class _Again(Exception):
    """This try failed in a way that another may not. `pause` in seconds, when the server said."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.pause = pause


@dataclass(frozen=True)
class _Fetcher:
    """What all threads share. `stop` is set when one of them failed: the others give up.

    `done`: what came of each item, whose SHA-256 may only be known now.
    """

    client: httpx2.Client
    store: Store
    meter: Meter
    sleep: Sleep
    done: dict[Item, Digests] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)


def fetch(
    items: Sequence[Item], store: Store, sink: Sink, *, sleep: Sleep = time.sleep
) -> list[Digests]:
    """Bring every item into the store; what is there already is not asked for again.

    Returns digest and size of each, in order. Raises SourceError (`source.unreachable`,
    `source.http`, `source.cut`), IntegrityError (`source.digest`, `source.size`), DiskError.
    """
    missing = [i for i in dict.fromkeys(items) if _stored(store, i) is None]
    done: dict[Item, Digests] = {}
    if missing:
        meter = Meter("fetch", sum(i.size or 0 for i in missing), len(missing), sink)
        with _client() as client:
            _fetch_all(missing, _Fetcher(client, store, meter, sleep, done))
        store.sync_names()
        meter.end()
    return [done.get(i) or _need(store, i) for i in items]


def _stored(store: Store, item: Item) -> Digests | None:
    """The blob, if the store has it; a blob has its name only after its SHA-256 was checked."""
    if item.sha256 is None:
        return None
    if item.size is not None:
        return Digests(item.sha256, item.size) if store.has(item.sha256, item.size) else None
    blob = store.blob_path(item.sha256)
    return Digests(item.sha256, blob.stat().st_size) if blob.is_file() else None


def _need(store: Store, item: Item) -> Digests:
    digests = _stored(store, item)
    if digests is None:
        raise _wrong(item, "source.size", "the bytes of this digest have another size")
    return digests


def _client() -> httpx2.Client:
    import httpx2

    return httpx2.Client(
        auth=_passwords(),
        follow_redirects=True,
        headers={"Accept-Encoding": "identity", "User-Agent": "sealift"},
        timeout=STALL_SECONDS,
    )


def _passwords() -> httpx2.Auth | None:
    """User names and passwords by host, from the file that curl and pip read too."""
    import netrc

    import httpx2

    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if not path.is_file():
        return None
    try:
        return httpx2.NetRCAuth(str(path))
    except (netrc.NetrcParseError, OSError) as e:
        raise UsageError(
            "source.netrc", f"{path} cannot be read", why=str(e), do="correct or remove that file"
        ) from e


def _fetch_all(items: Sequence[Item], fetcher: _Fetcher) -> None:
    pool = ThreadPoolExecutor(min(MAX_CONNECTIONS, len(items)))
    try:
        for future in [pool.submit(_fetch_one, i, fetcher) for i in items]:
            future.result()
    finally:
        fetcher.stop.set()
        pool.shutdown(cancel_futures=True)


def _fetch_one(item: Item, fetcher: _Fetcher) -> None:
    for left in reversed(range(MAX_TRIES)):
        try:
            _try(item, fetcher)
        except _Again as e:
            if left == 0 or fetcher.stop.is_set():
                raise _gave_up(item, e) from e
            pause = e.pause or FIRST_PAUSE_SECONDS * 2 ** (MAX_TRIES - 1 - left)
            fetcher.meter.tell(Warn("source.retry", f"{item.label}: {e.why}; {left} tries left"))
            fetcher.sleep(min(pause, MAX_PAUSE_SECONDS))
        else:
            fetcher.meter.file_done()
            return


def _try(item: Item, fetcher: _Fetcher) -> None:
    """One try: into the store, or nothing of it remains."""
    import httpx2

    try:
        headers = dict(item.access.headers(item.url)) if item.access else {}
        with fetcher.client.stream("GET", item.url, headers=headers) as response:
            _check_status(item, response)
            _receive(item, response, fetcher)
    except httpx2.TransportError as e:
        raise _Again(_cause(e)) from e
    except (httpx2.InvalidURL, httpx2.HTTPError) as e:
        raise _unreachable(item, _cause(e)) from e


def _check_status(item: Item, response: httpx2.Response) -> None:
    code = response.status_code
    if item.access is not None and code != 200 and item.access.refused(code, response.headers):
        raise _Again("the token was renewed", 0.01)
    if code in _RETRY:
        raise _Again(f"the server answered {code}", _retry_after(response))
    if code != 200:
        do = "lock again: the file may have moved"
        if code in (401, 403):
            do = "put the user name and password for that host into ~/.netrc"
        raise SourceError(
            "source.http",
            f"{item.label} was not delivered",
            why=f"{_host(item)} answered {code} {response.reason_phrase}",
            do=do,
        )


def _receive(item: Item, response: httpx2.Response, fetcher: _Fetcher) -> None:
    limit = limits.MAX_FILE_BYTES if item.size is None else item.size
    received = 0
    git = hashlib.sha1(f"blob {item.size}\0".encode(), usedforsecurity=False)
    wanted = item.git_blob
    try:
        with fetcher.store.incoming() as writer:
            for chunk in response.iter_raw(limits.MIB):
                received += len(chunk)
                if received > limit:
                    raise _wrong(item, "source.size", f"it is longer than {limit} bytes")
                if fetcher.stop.is_set():
                    raise _Again("another file failed first")
                writer.write(chunk)
                if wanted is not None:
                    git.update(chunk)
                fetcher.meter.add(len(chunk))
            if item.size is not None and received < item.size:
                raise _Again(f"the connection ended after {received} of {item.size} bytes")
            if wanted is not None and git.hexdigest() != wanted:
                why = f"its git blob id is {git.hexdigest()}, it must be {wanted}"
                raise _wrong(item, "source.digest", why)
            fetcher.done[item] = _commit(item, writer.commit)
    except _Again:
        fetcher.meter.add(-received)
        raise


def _commit(item: Item, commit: Callable[..., Digests]) -> Digests:
    try:
        return commit(item.sha256, item.size, durable_name=False)
    except IntegrityError as e:
        raise _wrong(item, "source.digest", e.why) from e


def _wrong(item: Item, id: str, why: str) -> IntegrityError:
    return IntegrityError(
        id,
        f"{item.label} from {_host(item)} is not what was locked",
        why=why,
        do="do not use it; find out why that source serves other bytes, or lock again",
    )


def _gave_up(item: Item, last: _Again) -> SourceError:
    return _unreachable(item, f"{last.why}, after {MAX_TRIES} tries")


def _unreachable(item: Item, why: str) -> SourceError:
    return SourceError(
        "source.unreachable",
        f"{item.label} could not be fetched from {_host(item)}",
        why=why,
        do="check network, proxy and that host, then run the same command again: it goes on "
        "with what is missing",
    )


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the server asks to wait; None when it says nothing or names a date."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


def _cause(e: Exception) -> str:
    return f"{type(e).__name__}: {e}" if str(e) else type(e).__name__


def _host(item: Item) -> str:
    return urlsplit(item.url).hostname or "its source"
