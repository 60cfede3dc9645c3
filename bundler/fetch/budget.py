"""What a fetch may use: room on the disk, and a share of the line."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from airgap import fsio, limits
from airgap.errors import DiskError

# Left free beside the files themselves, for journals, documents and the file system, in bytes.
RESERVE_BYTES = 64 * limits.MIB
# What a rate limit left unused is made up for within that many seconds: a late thread's share.
_SAVED_SECONDS = 0.25


def check_room(folder: Path, needed: int) -> None:
    """Raise DiskError `disk.full`, before the first byte, when `needed` bytes do not fit."""
    fsio.make_dirs(folder)
    with fsio.disk_errors(f"looking at {folder}"):
        found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if needed + RESERVE_BYTES > free:
        raise DiskError(
            "disk.full",
            f"{folder} has no room for what is to be fetched",
            why=f"{needed:,} bytes are missing and {free:,} are free; "
            f"{RESERVE_BYTES:,} stay free for the rest",
            do="free space there (`sealift store gc` shows what nothing needs), or name another "
            "place by --home; nothing was fetched",
        )


class Throttle:
    """Lets `rate` bytes a second through, for all threads together; None: as many as come."""

    def __init__(
        self,
        rate: int | None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, count: int) -> float:
        """Wait for the turn of `count` bytes; returns the seconds that took."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            # A pause is not saved up: a line that others use too would feel the burst.
            self._free_at = max(self._free_at, now - _SAVED_SECONDS) + count / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)
        return max(wait, 0.0)


class Pace:
    """Notices a connection that gives just enough to stay alive."""

    def __init__(self, least: float, window: float, clock: Callable[[], float]) -> None:
        self._least, self._window, self._clock = least, window, clock
        self._since, self._count = clock(), 0

    def too_slow(self, count: int, excused: float) -> bool:
        """`count` more bytes came, `excused` seconds of the wait were our own: whether the last
        window brought less than `least` bytes a second."""
        self._since += excused
        self._count += count
        elapsed = self._clock() - self._since
        if elapsed < self._window:
            return False
        slow = self._count < self._least * elapsed
        self._since, self._count = self._clock(), 0
        return slow
