"""URLs whose bytes are pinned, by SHA-256 or by git blob id -> blobs in the store.

Several connections work at once, over files and over ranges of large files. Bytes are hashed as
they are written; a blob gets its name only after size and digest were checked. What a killed run
left in `partial/` is taken up where it ended. `fetch` is the only way in.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from airgap import fsio, limits
from airgap.events import Sink, Warn
from airgap.store import Digests, Store
from bundler.digests import git_names
from bundler.fetch import http
from bundler.fetch.budget import Throttle, check_room
from bundler.fetch.crowd import Crowd
from bundler.fetch.item import Access, Item
from bundler.fetch.job import MAX_TRIES, Job, Stopped, persist, wrong
from bundler.fetch.large import Large
from bundler.fetch.options import Options
from bundler.fetch.partial import FOLDER, kept
from bundler.fetch.progress import Meter
from bundler.fetch.ranges import Piece
from bundler.fetch.small import Batch, fetch_small

__all__ = ["MAX_TRIES", "Access", "Arrived", "Item", "Options", "fetch"]

# Bytes that one read of a connection takes at most.
_READ_BYTES = limits.MIB
_LEAST_READ_BYTES = 16 * limits.KIB
# What a power cut may cost of one large file: bytes and seconds since the disk took the last ones.
_SYNC_BYTES = 128 * limits.MIB
_SYNC_SECONDS = 20.0
# How long a connection that was told to stop is waited for, in seconds.
_STOP_SECONDS = 3.0

Arrived = Callable[[Item, Digests], None]


def nobody(_item: Item, _digests: Digests) -> None:
    """For those who do not wait for single files."""


def fetch(
    items: Sequence[Item],
    store: Store,
    sink: Sink,
    *,
    options: Options | None = None,
    sleep: Callable[[float], object] | None = None,
    arrived: Arrived = nobody,
) -> list[Digests]:
    """Bring every item into the store; what is there already is not asked for again.

    Returns digest and size of each, in order. `arrived` is called for each that is fetched, as
    soon as the store has it, by the connection that brought it: it must be quick. Raises
    SourceError (`source.unreachable`, `source.http`, `source.redirect`, `source.encoding`,
    `source.certificate`, `source.changed`), IntegrityError (`source.digest`, `source.size`),
    DiskError (`disk.full`: what came is kept), HostError `host.busy`. After a failure or a kill the
    same call goes on with what is missing.
    """
    names = git_names(store) if any(i.sha256 is None for i in items) else {}
    found = {i.key: _stored(store, i, names) for i in items}
    missing = list({i.key: i for i in items if found[i.key] is None}.values())
    if missing:
        folder = store.root / FOLDER
        with fsio.exclusive(folder / "lock", "fetching"):
            fsio.sweep(folder)
            sizes = [i.size - min(i.size, kept(folder, i.key)) for i in missing if i.size]
            check_room(store.root, sum(sizes))
            fsio.make_dirs(store.blobs)
            found.update(_Crew(missing, store, sink, options or Options(), sleep, arrived).run())
            store.sync_names()
    return [_sized(i, found[i.key]) for i in items]


def _stored(store: Store, item: Item, names: Mapping[str, str]) -> Digests | None:
    """The blob, if the store has it; a blob has its name only after its SHA-256 was checked."""
    sha256 = item.sha256 or names.get(item.key)
    if sha256 is None:
        return None
    if item.size is not None:
        return Digests(sha256, item.size) if store.has(sha256, item.size) else None
    blob = store.blob_path(sha256)
    return Digests(sha256, blob.stat().st_size) if blob.is_file() else None


def _sized(item: Item, digests: Digests | None) -> Digests:
    if digests is None or item.size not in (None, digests.size):
        raise wrong(item, "source.size", "the bytes of this digest have another size")
    return digests


class _Crew:
    """The connections of one fetch: a thread each, that takes what is to be done next."""

    def __init__(
        self,
        items: Sequence[Item],
        store: Store,
        sink: Sink,
        options: Options,
        sleep: Callable[[float], object] | None,
        arrived: Arrived,
    ) -> None:
        stop = threading.Event()
        meter = Meter("fetch", sum(i.size or 0 for i in items), len(items), sink)
        throttle = Throttle(options.limit_rate, stop.wait)
        read = _READ_BYTES
        if options.limit_rate is not None:
            read = max(_LEAST_READ_BYTES, min(read, options.limit_rate // 8))
        web = http.Web(options.stall_seconds, read)
        pause = sleep or stop.wait
        self._job = Job(web, store, meter, options, throttle, pause, stop, arrived)
        self._batch = Batch(self._job.folder, store)
        self._error: BaseException | None = None
        self._active: list[Large] = []
        self._crowd = Crowd(options.connections)
        self._small: deque[http.Source] = deque()
        self._large: deque[http.Source] = deque()
        for item in items:
            small = item.size is not None and item.size <= options.small_bytes
            (self._small if small else self._large).append(http.Source(item))
        self._count = min(options.connections, len(items) if not self._large else 10**6)

    def run(self) -> dict[str, Digests]:
        """All of it. Raises the first error of a connection; what came stays for another run."""
        job = self._job
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._count)]
        threads.append(threading.Thread(target=self._sync_often, daemon=True))
        try:
            for thread in threads:
                thread.start()
            for thread in threads[:-1]:
                thread.join()
        except KeyboardInterrupt:
            self._interrupted()
            raise
        finally:
            job.stop.set()
            self._wind_up(threads)
        if self._error is not None:
            raise self._error
        self._batch.flush(job)
        job.meter.end()
        return job.done

    def _interrupted(self) -> None:
        text = "what came so far is kept; the same command goes on from there"
        self._job.meter.tell(Warn("fetch.interrupted", text))

    def _wind_up(self, threads: Sequence[threading.Thread]) -> None:
        """Have everybody stop, and leave the disk as another run wants to find it."""
        job = self._job
        with job.changed:
            job.changed.notify_all()
        if any(t.is_alive() for t in threads[:-1]):
            job.web.abort()
        until = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        for large in self._active:
            large.close()
        if self._error is not None:
            self._batch.flush(job)
        job.web.close()

    def _work(self) -> None:
        """What each connection does until nothing is left."""
        try:
            while (work := self._next()) is not None:
                work()
        except Stopped:
            return
        except BaseException as e:  # noqa: BLE001 - raised again by `run`
            with self._job.changed:
                if self._error is None and not self._job.stop.is_set():
                    self._error = e
                self._job.stop.set()
                self._job.changed.notify_all()
            self._job.web.abort()

    def _next(self) -> Callable[[], None] | None:
        """What to do next; waits while others may still leave something to do."""
        job = self._job
        with job.changed:
            while not job.stop.is_set():
                work = self._choose()
                if work is not None:
                    return work
                if not self._active and not self._large and not self._small:
                    return None
                job.changed.wait(1.0)
        return None

    def _choose(self) -> Callable[[], None] | None:
        """Large files first, a few at a time: their digests take longest. Under the lock."""
        if self._large and len(self._active) < self._job.options.large_at_once:
            self._active.append(Large(self._large.popleft(), self._job))
        by_users = sorted(self._active, key=lambda one: one.users)
        for large in by_users:
            piece = large.take()
            if piece is not None:
                return self._piece_work(large, piece)
        if self._small and self._crowd.join():
            source = self._small.popleft()
            return lambda: self._fetch_small(source)
        for large in by_users:
            piece = large.take(steal=True)
            if piece is not None:
                return self._piece_work(large, piece)
        return None

    def _piece_work(self, large: Large, piece: Piece) -> Callable[[], None]:
        return lambda: self._fetch_piece(large, piece)

    def _fetch_small(self, source: http.Source) -> None:
        job, begun, worked = self._job, time.monotonic(), time.thread_time()
        persist(job, source.item, lambda: fetch_small(job, source, self._batch))
        with job.changed:
            room = self._crowd.leave(time.monotonic() - begun, time.thread_time() - worked)
            # The next file is ours; those who wait are for more than that, or for the end.
            if room > 1 or not self._small:
                job.changed.notify_all()

    def _fetch_piece(self, large: Large, piece: Piece) -> None:
        job = self._job
        persist(job, large.item, lambda: large.fetch(piece))
        if not large.leave(piece):
            return
        large.complete()
        with job.changed:
            if large.finished:
                self._active.remove(large)
            job.changed.notify_all()

    def _sync_often(self) -> None:
        """Have the disk take what came, again and again: it works while the network does."""
        last = time.monotonic()
        try:
            while not self._job.stop.wait(0.2):
                late = time.monotonic() - last > _SYNC_SECONDS
                with self._job.changed:
                    active = list(self._active)
                for large in active:
                    large.sync(1 if late else _SYNC_BYTES)
                last = time.monotonic() if late else last
        except BaseException as e:  # noqa: BLE001 - raised again by `run`
            with self._job.changed:
                self._error = self._error or e
                self._job.stop.set()
