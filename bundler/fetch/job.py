"""What all connections of one fetch share, and how long each of them tries."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from airgap.errors import IntegrityError
from airgap.events import Warn
from airgap.store import Digests, Store
from bundler.digests import SMALL_BYTES, keep_blake3
from bundler.fetch import http
from bundler.fetch.budget import Throttle
from bundler.fetch.hashing import Found
from bundler.fetch.item import Item
from bundler.fetch.options import Options
from bundler.fetch.partial import FOLDER
from bundler.fetch.progress import Meter

# Tries of one file, without a byte of progress, before its source counts as down: about 8 seconds.
MAX_TRIES = 5
# The same for a source that did deliver in this run: about 6 minutes, for a link that drops.
MAX_TRIES_PROVEN = 14
FIRST_PAUSE_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 45.0
# A server may ask for a longer pause (Retry-After); more than this and a person should decide.
MAX_PAUSE_SECONDS = 600.0
# After a connection that did bring something: at once, but not all in the same moment.
_RESUME_SECONDS = 0.05


class Stopped(Exception):
    """Another connection failed, or somebody pressed Ctrl-C: this one gives up quietly."""


@dataclass
class Job:
    """`changed` guards everything that the connections decide together. `done`: by item key."""

    web: http.Web
    store: Store
    meter: Meter
    options: Options
    throttle: Throttle
    sleep: Callable[[float], object]
    stop: threading.Event
    arrived: Callable[[Item, Digests], None]
    changed: threading.Condition = field(default_factory=threading.Condition)
    done: dict[str, Digests] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """Where half-fetched files lie."""
        return self.store.root / FOLDER

    def complete(self, item: Item, found: Found, size: int) -> None:
        """The blob has its name; remember its BLAKE3 and say so."""
        if size > SMALL_BYTES:
            keep_blake3(self.store, found.sha256, found.blake3)
        digests = Digests(found.sha256, size)
        with self.changed:
            self.done[item.key] = digests
        self.meter.file_done(item.label)
        self.arrived(item, digests)

    def check_stop(self) -> None:
        """Raise Stopped once the fetch is to end."""
        if self.stop.is_set():
            raise Stopped


def persist(job: Job, item: Item, attempt: Callable[[], None]) -> None:
    """Try until it works or there is no hope. `attempt` raises Again to be called once more.

    An attempt that made progress begins the count anew.
    """
    tries = 0
    while True:
        try:
            attempt()
        except http.Again as e:
            job.check_stop()
            tries = 1 if e.progress else tries + 1
            pause = _pause(job, item, e, tries)
            text = f"{item.label}: {e.why}; again in {pause:.1f} s"
            job.meter.tell(Warn("source.retry", text))
            job.sleep(pause)
            job.check_stop()
        else:
            with job.changed:
                job.proven.add(http.host(item))
            return


def _pause(job: Job, item: Item, e: http.Again, tries: int) -> float:
    """Seconds until the next try. Raises SourceError when there shall be none."""
    with job.changed:
        most = MAX_TRIES_PROVEN if http.host(item) in job.proven else MAX_TRIES
    if tries >= most:
        raise http.unreachable(item, f"{e.why}, after {tries} tries") from e
    if e.pause is not None:
        if e.pause > MAX_PAUSE_SECONDS:
            raise http.unreachable(item, f"{e.why} and asks to wait {e.pause:.0f} s") from e
        return e.pause + random.uniform(0, _RESUME_SECONDS)  # noqa: S311 - no secret
    if e.progress or (e.begun and tries == 1):
        return random.uniform(0, _RESUME_SECONDS)  # noqa: S311
    pause: float = min(FIRST_PAUSE_SECONDS * 2 ** (tries - 1), MAX_BACKOFF_SECONDS)
    return pause * random.uniform(0.75, 1.25)  # noqa: S311


def check(item: Item, found: Found) -> None:
    """Raise IntegrityError `source.digest` unless the bytes are those that were pinned."""
    if item.sha256 is not None and found.sha256 != item.sha256:
        why = f"its SHA-256 is {found.sha256}, it must be {item.sha256}"
        raise wrong(item, "source.digest", why)
    if item.git_blob is not None and found.git_blob != item.git_blob:
        why = f"its git blob id is {found.git_blob}, it must be {item.git_blob}"
        raise wrong(item, "source.digest", why)


def git_size(item: Item) -> int | None:
    """The size that the git blob id to check is computed with; None when there is none to check."""
    return item.size if item.git_blob is not None else None


def wrong(item: Item, id: str, why: str) -> IntegrityError:
    """The error for bytes that are not the pinned ones."""
    return IntegrityError(
        id,
        f"{item.label} from {http.host(item)} is not what was locked",
        why=why,
        do="do not use it; find out why that source serves other bytes, or lock again",
    )
