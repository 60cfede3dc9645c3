"""One large file: its ranges come on several connections, its digests follow, its journal stays.

What the source says must fit together over all its answers: the length, and the validator (ETag or
Last-Modified). An answer with the whole file where a range was asked for means that the file
changed, or that the source knows no ranges: then everything begins again from that answer.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airgap import limits
from airgap.errors import IntegrityError, SourceError
from airgap.events import Warn
from bundler.digests import keep_git
from bundler.fetch import http
from bundler.fetch.budget import Pace
from bundler.fetch.hashing import Follower, read_again
from bundler.fetch.item import Item
from bundler.fetch.job import Job, check, git_size, wrong
from bundler.fetch.partial import Header, Partial
from bundler.fetch.ranges import Piece, cut_off, piece_bytes

if TYPE_CHECKING:
    import httpx2

# A journal line for each so many bytes or seconds of a connection: what a kill costs at most.
_NOTE_BYTES = 64 * limits.KIB
_NOTE_SECONDS = 0.25
# Times a file may change under our hands before that is an error.
MAX_RESTARTS = 4
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Large:
    """The state of one file; what connections decide together is guarded by `job.changed`."""

    def __init__(self, source: http.Source, job: Job) -> None:
        self.source = source
        self.item: Item = source.item
        self.partial = Partial(job.folder, self.item.key)
        self.users = 0
        self.finished = False
        self._job = job
        self._size = self.item.size
        self._queue: list[Piece] = []
        self._running: list[Piece] = []
        self._known = False
        self._single = False
        self._restarts = 0
        self._closed = False
        self._closing = threading.Lock()
        self._resume()
        self._high = self.partial.ranges.total
        # Bytes of an earlier run, or from before a restart: a wrong digest may be ours.
        self._doubtful = self._high > 0
        # Once only: a source that serves something else each time would keep us for ever.
        self._redone = False
        job.meter.add(self._high)
        self._follower = Follower(self.partial.fd, git_size(self.item))
        self._follower.reach(self.partial.ranges.end_of(0))
        self._plan()

    def _resume(self) -> None:
        """Keep what an earlier run left, where it is of a file of the right size."""
        header = self.partial.header
        if header is None:
            return
        if self._size is not None and header.size != self._size:
            self.partial.begin(Header(self._size, None))
        elif header.size is None:
            self.partial.begin(Header(None, None))
        elif self._size is None:
            self._set_size(header.size)

    def _set_size(self, size: int) -> None:
        if size > limits.MAX_FILE_BYTES:
            raise wrong(self.item, "source.size", f"it is longer than {limits.MAX_FILE_BYTES}")
        self._size = size
        if self.item.size is None:
            self._job.meter.expect(size)

    def _plan(self) -> None:
        """Cut what is missing into pieces, in order, so that the digest can follow."""
        if self._size is None:
            self._queue = [Piece(0, None)]
            return
        length = piece_bytes(self._size, self._job.options.connections)
        self._queue = [
            Piece(at, min(at + length, end))
            for start, end in self.partial.ranges.gaps(self._size)
            for at in range(start, end, length)
        ]
        if not self._queue:
            self._queue = [Piece(self._size, self._size)]

    def take(self, *, steal: bool = False) -> Piece | None:
        """A piece for one more connection; None when there is none. Call it under the lock.

        Until the source has answered once, one connection asks alone.
        """
        alone = self._single or not self._known
        if self.finished or (alone and self._running):
            return None
        if self._queue:
            piece: Piece | None = self._queue.pop(0)
        else:
            piece = cut_off(self._running, time.monotonic()) if steal and not alone else None
        if piece is not None:
            piece.first, piece.begun = piece.at, time.monotonic()
            self._running.append(piece)
            self.users += 1
        return piece

    def fetch(self, piece: Piece) -> None:
        """One try at a piece. Raises Again, Stopped, SourceError, IntegrityError, DiskError."""
        job = self._job
        if piece.at == piece.end or piece not in self._running:
            return
        try:
            with job.web.get(self.source, self._headers(piece)) as response:
                job.check_stop()
                current = self._accept(piece, response)
                if current is not None:
                    self._receive(current, response)
                    self._check_end(current)
        except http.Again as e:
            with job.changed:
                total = self.partial.ranges.total
                e.progress = total > self._high and not e.slow
                self._high = max(self._high, total)
            raise

    def _headers(self, piece: Piece) -> dict[str, str]:
        if piece.at == 0 and piece.end == self._size:
            return {}
        headers = {"Range": f"bytes={piece.at}-{'' if piece.end is None else piece.end - 1}"}
        header = self.partial.header
        if header is not None and header.validator is not None:
            headers["If-Range"] = header.validator
        return headers

    def _accept(self, piece: Piece, response: httpx2.Response) -> Piece | None:
        """Judge the answer's head; the piece that its body is, None when nobody wants it."""
        with self._job.changed:
            if piece not in self._running:
                return None
            if response.status_code == 206:
                return self._accept_range(piece, response)
            if response.status_code == 416:
                self._restart("the source no longer has that range")
                raise http.Again("the file is shorter than it was")
            return self._accept_whole(piece, response)

    def _accept_range(self, piece: Piece, response: httpx2.Response) -> Piece | None:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
        if found is None or int(found[1]) != piece.at:
            raise http.Again("the server answered with another range than it was asked for")
        if found[3] != "*":
            self._check_length(int(found[3]), "Content-Range")
            if self._size is None:
                self._set_size(int(found[3]))
                piece.end = self._size
        if self._changed(response):
            self._restart("the file changed at its source")
            return None
        self._begin(validator(response.headers))
        return piece

    def _accept_whole(self, piece: Piece, response: httpx2.Response) -> Piece | None:
        length = response.headers.get("content-length", "")
        if length.isdecimal():
            self._check_length(int(length), "Content-Length")
        asked_whole = piece.at == 0 and piece.end == self._size
        if not asked_whole:
            if self._single and self._running != [piece]:
                return None
            # Others may have written, and had hashed, what is not noted yet.
            if self._known or self.partial.ranges.total:
                if self._changed(response):
                    self._restart("the file changed at its source")
                else:
                    self._restart("its source sends no ranges", bounded=not self._single)
            piece.at = 0
            self._running, self._queue = [piece], []
            self._single = True
        elif self._size is None and length.isdecimal():
            self._set_size(int(length))
        piece.end = self._size
        if response.headers.get("accept-ranges", "").lower() != "bytes":
            self._single = True
        self._begin(validator(response.headers))
        return piece

    def _changed(self, response: httpx2.Response) -> bool:
        """Whether the answer is of another file than those before."""
        known = self.partial.header.validator if self.partial.header else None
        mark = validator(response.headers)
        return known is not None and mark is not None and mark != known

    def _check_length(self, told: int, where: str) -> None:
        if self._size is None or told == self._size:
            return
        why = f"{where} says {told} bytes, it must have {self._size}"
        if told < self._size:
            raise http.Again(why)
        raise wrong(self.item, "source.size", why)

    def _begin(self, mark: str | None) -> None:
        """The source has answered: from now on others may join in.

        Only the first answer begins the file: a later one would drop what connections have written
        and not noted yet, which the digest has taken from memory already.
        """
        header = self.partial.header
        if not self._known and (
            header is None or (header.validator is None and not self.partial.ranges.total)
        ):
            self.partial.begin(Header(self._size, mark))
        self._known = True
        self._job.changed.notify_all()

    def _restart(self, why: str, *, bounded: bool = True) -> None:
        """Drop everything that came; connections that still bring some of it notice. A source that
        knows no ranges begins anew after each cut: that is bounded by the tries."""
        self._restarts += 1
        if bounded and self._restarts > MAX_RESTARTS:
            raise SourceError(
                "source.changed",
                f"{self.item.label} does not stay the same at {http.host(self.item)}",
                why=f"{why}, {self._restarts} times in this run",
                do="run it again later; if it goes on, that host serves different files by turns",
            )
        self._job.meter.tell(Warn("source.restart", f"{self.item.label}: {why}; from its start"))
        self._job.meter.add(-self.partial.ranges.total)
        self._follower.stop()
        self.partial.begin(Header(self._size, None))
        self._follower = Follower(self.partial.fd, git_size(self.item))
        self._doubtful = True
        self.source.forget()
        self._running, self._known = [], False
        self._plan()
        self._job.changed.notify_all()

    def _receive(self, piece: Piece, response: httpx2.Response) -> None:
        """Write the body where it belongs, until it ends or the piece does."""
        job, follower = self._job, self._follower
        pace = Pace(job.options.least_rate, job.options.window_seconds, time.monotonic)
        noted, since = piece.at, time.monotonic()
        begun = piece.at
        try:
            for chunk in job.web.chunks(response):
                job.check_stop()
                with job.changed:
                    if piece not in self._running:
                        return
                    room = piece.left
                if len(chunk) > room:
                    chunk = chunk[:room]
                waited = job.throttle.take(len(chunk))
                self._write(piece, chunk, follower)
                if pace.too_slow(len(chunk), waited):
                    raise http.Again(
                        f"it brings less than {job.options.least_rate:.0f} bytes/s", slow=True
                    )
                now = time.monotonic()
                if piece.at - noted >= _NOTE_BYTES or now - since >= _NOTE_SECONDS:
                    self._note(piece, noted, follower)
                    noted, since = piece.at, now
                if piece.at - begun >= limits.WRITEBACK_BYTES:
                    self.partial.start_writing(begun, piece.at)
                    begun = piece.at
                if piece.left <= 0:
                    return
        finally:
            self._note(piece, noted, follower)
            if piece.at - begun >= limits.MIB:
                self.partial.start_writing(begun, piece.at)

    def _write(self, piece: Piece, chunk: bytes, follower: Follower) -> None:
        self.partial.write(piece.at, chunk)
        follower.wrote(piece.at, chunk)
        with self._job.changed:
            piece.at += len(chunk)
        self._job.meter.add(len(chunk))

    def _note(self, piece: Piece, start: int, follower: Follower) -> None:
        """Into the journal, unless the file began anew meanwhile."""
        with self._job.changed:
            if piece not in self._running:
                return
            self.partial.note(start, piece.at)
            follower.reach(self.partial.ranges.end_of(0))
        self._job.meter.file(self.item.label, self.partial.ranges.total, self._size or 0)

    def _check_end(self, piece: Piece) -> None:
        with self._job.changed:
            if piece not in self._running:
                return
            if piece.end is None:
                piece.end = piece.at
                self._set_size(piece.at)
            if piece.left > 0:
                raise http.Again(f"the connection ended {piece.left} bytes early")

    def leave(self, piece: Piece) -> bool:
        """A connection is done with a piece: whether it was the last one of the file."""
        with self._job.changed:
            self.users -= 1
            if piece in self._running:
                self._running.remove(piece)
            self._job.changed.notify_all()
            last = not (self._running or self._queue or self.users or self.finished)
            if last and not self._job.stop.is_set():
                self.finished = True
                return True
            return False

    def complete(self) -> None:
        """All bytes are there: check the digests and give the blob its name."""
        job, size = self._job, self._size or 0
        found = self._follower.finish(size)
        if self._restarts:
            # A connection from before may have written over what was hashed from memory already;
            # none is left now.
            found = read_again(self.partial.fd, size, git_size(self.item))
        try:
            check(self.item, found)
        except IntegrityError:
            with job.changed:
                if self._doubtful and not self._redone:
                    self.finished, self._redone = False, True
                    self._restart("what came in several goes does not fit together")
                    return
            self.partial.discard()
            raise
        with self._closing:
            self.partial.finish(job.store.blob_path(found.sha256))
            self._closed = True
            self.partial.close()
        if self.item.sha256 is None:
            keep_git(job.store, {self.item.key: found.sha256})
        job.complete(self.item, found, size)

    def sync(self, least: int) -> None:
        """Have the disk take what came, when that is at least `least` bytes."""
        with self._closing:
            if not self._closed and self.partial.unsynced >= least:
                self.partial.sync()

    def close(self) -> None:
        """Leave what is there for another run."""
        self._follower.stop()
        with self._closing:
            if not self._closed:
                self._closed = True
                self.partial.close()


def validator(headers: Mapping[str, str]) -> str | None:
    """What If-Range may carry: a strong ETag, else the time of the last change."""
    etag = headers.get("etag", "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("last-modified", "").strip() or None
