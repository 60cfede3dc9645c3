"""Small files: one answer each, held in memory until the digest is right, made durable together.

A flush to the disk takes milliseconds however little it writes, so many files share one.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from airgap import fsio, limits
from airgap.store import Store
from bundler.digests import keep_git
from bundler.fetch import http
from bundler.fetch.hashing import Found, Hashes
from bundler.fetch.item import Item
from bundler.fetch.job import Job, check, git_size, wrong

# What a kill may cost: files and bytes that were fetched and have no name yet, and their age.
_MAX_BATCH_FILES = 256
_MAX_BATCH_BYTES = 16 * limits.MIB
_MAX_BATCH_SECONDS = 3.0
# So few are flushed one by one: the whole file system's flush may have others' work in it.
_FEW = 8
_BLOB_MODE = 0o444


class Batch:
    """Checked files on their way to their names."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._lock = threading.Lock()
        self._waiting: list[tuple[Path, Item, Found, int]] = []
        self._bytes = 0
        self._oldest = 0.0

    def add(self, job: Job, item: Item, found: Found, data: bytes) -> None:
        """Write it under a temporary name; flush when there are many."""
        temp = fsio.temp_name(self._folder)
        with fsio.disk_errors(f"writing {temp}"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temp, flags, _BLOB_MODE)
            try:
                fsio.write_all(fd, memoryview(data))
            finally:
                os.close(fd)
        with self._lock:
            self._oldest = self._oldest if self._waiting else time.monotonic()
            self._waiting.append((temp, item, found, len(data)))
            self._bytes += len(data)
            full = (
                len(self._waiting) >= _MAX_BATCH_FILES
                or self._bytes >= _MAX_BATCH_BYTES
                or time.monotonic() - self._oldest > _MAX_BATCH_SECONDS
            )
        if full:
            self.flush(job)

    def flush(self, job: Job) -> None:
        """Make all durable and give them their names."""
        with self._lock:
            ready, self._waiting, self._bytes = self._waiting, [], 0
        if not ready:
            return
        with fsio.disk_errors(f"writing {self._store.root}"):
            if len(ready) <= _FEW or not _sync_file_system(self._folder):
                for temp, *_ in ready:
                    _sync(temp)
            for temp, _, found, _ in ready:
                os.rename(temp, self._store.blob_path(found.sha256))
        keep_git(self._store, {i.key: f.sha256 for _, i, f, _ in ready if i.sha256 is None})
        for _, item, found, size in ready:
            job.complete(item, found, size)


def fetch_small(job: Job, source: http.Source, batch: Batch) -> None:
    """One try. Raises Again, SourceError, IntegrityError, DiskError."""
    item = source.item
    size = item.size or 0
    hashes = Hashes(git_size(item))
    parts: list[bytes] = []
    received = 0
    try:
        with job.web.get(source, {}) as response:
            if response.status_code != 200:
                raise http.Again(f"the server answered {response.status_code} to a plain request")
            for chunk in job.web.chunks(response):
                received += len(chunk)
                job.check_stop()
                if received > size:
                    raise wrong(item, "source.size", f"it is longer than {size} bytes")
                job.throttle.take(len(chunk))
                hashes.update(chunk)
                parts.append(chunk)
                job.meter.add(len(chunk))
        if received < size:
            raise http.Again(f"the connection ended after {received} of {size} bytes")
    except http.Again as e:
        e.begun = received > 0
        job.meter.add(-received)
        raise
    found = hashes.found()
    check(item, found)
    batch.add(job, item, found, b"".join(parts))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_file_system(folder: Path) -> bool:
    """syncfs(2), which Python has no name for; False where the C library has none either."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return False
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if call(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(fd)
    return True
