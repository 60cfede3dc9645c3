"""SHA-256, BLAKE3 and git blob id in one pass, following a file that several connections write."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import deque
from dataclasses import dataclass

from airgap import limits

# Chunks in memory that wait to be hashed, in bytes; what comes beyond is read back later.
_MAX_WAITING_BYTES = 16 * limits.MIB


@dataclass(frozen=True)
class Found:
    """The digests of what was read."""

    sha256: str
    blake3: str
    git_blob: str | None


class Hashes:
    """All digests that are wanted of one stream. `git_size`: also as a git blob of that size."""

    def __init__(self, git_size: int | None = None) -> None:
        import blake3

        self._sha256 = hashlib.sha256()
        self._blake3 = blake3.blake3()
        self._git = None
        if git_size is not None:
            self._git = hashlib.sha1(f"blob {git_size}\0".encode(), usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """More of the stream."""
        self._sha256.update(data)
        self._blake3.update(data)
        if self._git is not None:
            self._git.update(data)

    def found(self) -> Found:
        """The digests of all of it."""
        git = None if self._git is None else self._git.hexdigest()
        return Found(self._sha256.hexdigest(), self._blake3.hexdigest(), git)


class Follower:
    """Hashes a file from its start, as far as it is there, on a thread of its own.

    A chunk that comes in order is taken from memory; what ran ahead is read back, in all
    likelihood from the page cache.
    """

    def __init__(self, fd: int, git_size: int | None) -> None:
        self._fd = fd
        self._hashes = Hashes(git_size)
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._at = 0
        self._ready = 0
        self._end: int | None = None
        self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def wrote(self, offset: int, data: bytes) -> None:
        """These bytes are in the file; keep them at hand where they come next."""
        with self._changed:
            next_one = self._at + self._waiting
            if offset == next_one and self._waiting + len(data) <= _MAX_WAITING_BYTES:
                self._chunks.append(data)
                self._waiting += len(data)
                self._changed.notify()

    def reach(self, end: int) -> None:
        """Everything before `end` is in the file."""
        with self._changed:
            if end > self._ready:
                self._ready = end
                self._changed.notify()

    def finish(self, size: int) -> Found:
        """Wait until all `size` bytes are hashed. Raises what reading raised."""
        with self._changed:
            self._ready = self._end = size
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._hashes.found()

    def stop(self) -> None:
        """Give up."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        buffer = bytearray(limits.COPY_CHUNK_BYTES)
        try:
            while True:
                chunk = self._next(buffer)
                if chunk is None:
                    return
                self._hashes.update(chunk)
        except BaseException as e:  # noqa: BLE001 - raised again by `finish`
            self._error = e

    def _next(self, buffer: bytearray) -> bytes | memoryview | None:
        """The next bytes to hash; None at the end."""
        with self._changed:
            while not (self._stopped or self._chunks or self._at < self._ready):
                if self._at == self._end:
                    return None
                self._changed.wait()
            if self._stopped:
                return None
            if self._chunks:
                data = self._chunks.popleft()
                self._waiting -= len(data)
                self._at += len(data)
                return data
            start = self._at
            length = min(self._ready - start, len(buffer))
            self._at += length
        return self._read(start, memoryview(buffer)[:length])

    def _read(self, start: int, view: memoryview) -> memoryview:
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], start + done)
            if count == 0:
                raise OSError(errno.EIO, "the file ends before its time")
            done += count
        return view


def read_again(fd: int, size: int, git_size: int | None) -> Found:
    """The digests of what the file holds, whatever passed through memory."""
    follower = Follower(fd, git_size)
    return follower.finish(size)
