"""Counts the bytes and files of a running step and tells the sink a few times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from airgap.events import Progress, ProgressEnd, Sink

# Seconds between two events: smooth for people, harmless for pipes.
_INTERVAL = 0.1


class Meter:
    """Thread-safe. `total` and `advance` in bytes; `clock` in seconds, monotonic."""

    def __init__(
        self,
        sink: Sink,
        label: str,
        total: int,
        files: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink, self._label, self._clock = sink, label, clock
        self._total, self._files_total = total, files
        self._done = self._files = 0
        self._lock = threading.Lock()
        self._started = self._last = clock()

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._last >= _INTERVAL:
                self._last = now
                self._emit()

    def file_done(self) -> None:
        """One more file is done."""
        with self._lock:
            self._files += 1

    def _emit(self) -> None:
        self._sink(Progress(self._label, self._done, self._total, self._files, self._files_total))

    def end(self) -> None:
        """The step is over."""
        with self._lock:
            self._emit()
            self._sink(ProgressEnd(self._label, self._done, self._clock() - self._started))
