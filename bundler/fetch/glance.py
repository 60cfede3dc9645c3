"""What web servers say of locked files today: whether they are there, and how long. Nothing of them
is fetched but one byte, where a server does not say it without.

Redirects, passwords and certificates are as for a fetch (bundler.fetch.http).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap import limits
from airgap.errors import IntegrityError, SourceError
from bundler.fetch import http
from bundler.fetch.http import Again, Refused, Source, Web
from bundler.fetch.item import Item
from bundler.fetch.options import Options

if TYPE_CHECKING:
    import httpx2

MAX_TRIES = 4
FIRST_PAUSE_SECONDS = 0.5
# A server may ask for a longer pause; for a look nobody waits longer.
MAX_PAUSE_SECONDS = 30.0
# Seconds without an answer: a look is a small thing.
_STALL_SECONDS = 30.0
_AT_ONCE = 8
# Not there: for good (410), or for all that is known (404).
_GONE = (404, 410)
_RANGE = re.compile(r"bytes (?:[0-9]+-[0-9]+|\*)/([0-9]{1,19})")
_BYTE = {"Range": "bytes=0-0"}


@dataclass(frozen=True)
class Glance:
    """What was seen. `size` in bytes, None where the server does not tell one."""

    gone: bool
    size: int | None = None


Seen = Glance | SourceError | IntegrityError


def glance(
    items: Sequence[Item],
    connections: int = Options.connections,
    sleep: Callable[[float], object] = time.sleep,
) -> list[Seen]:
    """What the source of each item says, or the error that kept it from saying anything. At most
    `connections` are asked at once."""
    if not items:
        return []
    heads = Web(_STALL_SECONDS, limits.MIB, "HEAD")
    bodies = Web(_STALL_SECONDS, limits.MIB)
    look = _Look(heads, bodies, sleep)
    try:
        with ThreadPoolExecutor(min(_AT_ONCE, connections)) as pool:
            return list(pool.map(look.at, items))
    finally:
        heads.close()
        bodies.close()


class _Look:
    """Asks for one file after the other. Safe for several threads."""

    def __init__(self, heads: Web, bodies: Web, sleep: Callable[[float], object]) -> None:
        self._heads, self._bodies, self._sleep = heads, bodies, sleep

    def at(self, item: Item) -> Seen:
        """HEAD, and where that does not simply confirm what is locked, the one byte that decides:
        servers refuse HEAD, or answer it wrongly, and nobody notices."""
        try:
            if item.size is not None and self._confirmed(item):
                return Glance(False, item.size)
            return self._patiently(item, lambda: self._byte(item))
        except (SourceError, IntegrityError) as e:
            return e

    def _confirmed(self, item: Item) -> bool:
        try:
            with self._heads.get(Source(item), {}) as response:
                return response.status_code == 200 and _length(response) == item.size
        except (SourceError, Again):
            # Whatever it was, the byte will meet it again if it stands.
            return False

    def _byte(self, item: Item) -> Glance:
        try:
            with self._bodies.get(Source(item), _BYTE) as response:
                return Glance(False, _size(response))
        except Refused as e:
            if e.code in _GONE:
                return Glance(True)
            raise

    def _patiently(self, item: Item, ask: Callable[[], Glance]) -> Glance:
        for tries in range(1, MAX_TRIES + 1):
            try:
                return ask()
            except Again as e:
                pause = FIRST_PAUSE_SECONDS * 2 ** (tries - 1) if e.pause is None else e.pause
                if tries == MAX_TRIES or pause > MAX_PAUSE_SECONDS:
                    raise http.unreachable(item, f"{e.why}, after {tries} tries") from e
                self._sleep(pause)
        raise AssertionError("the last try returns or raises")


def _size(response: httpx2.Response) -> int | None:
    """Of the whole file, whether the server heeded the range, had none of it, or sends all."""
    if response.status_code == 200:
        return _length(response)
    found = _RANGE.fullmatch(response.headers.get("content-range", "").strip())
    return int(found[1]) if found else None


def _length(response: httpx2.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
