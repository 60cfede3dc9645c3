"""One running total for a step that several threads work on."""

from __future__ import annotations

import threading
import time

from airgap.events import Event, Progress, ProgressEnd, Sink

# Seconds between two events of one label: smooth for people, harmless for pipes.
INTERVAL_SECONDS = 0.1
# A file of at least this size is told of by itself too, once a second.
LONG_FILE_BYTES = 256 * 1024 * 1024
_FILE_INTERVAL_SECONDS = 1.0


class Meter:
    """Counts bytes and files of the step `label` and tells the sink, one call at a time.

    `total` is in bytes. The sink is never called from two threads at once.
    """

    def __init__(self, label: str, total: int, files: int, sink: Sink) -> None:
        self._label = label
        self._total = total
        self._files = files
        self._sink = sink
        self._lock = threading.Lock()
        self._done = 0
        self._files_done = 0
        self._start = time.monotonic()
        self._told: dict[str, float] = {}

    def add(self, count: int) -> None:
        """`count` more bytes; negative when an attempt begins again."""
        with self._lock:
            self._done += count
            if self._due(self._label, INTERVAL_SECONDS):
                self._tell()

    def expect(self, count: int) -> None:
        """The size of a file became known: `count` more bytes belong to the total."""
        with self._lock:
            self._total += count

    def file(self, label: str, done: int, total: int) -> None:
        """How far one long file is."""
        with self._lock:
            if total >= LONG_FILE_BYTES and self._due(label, _FILE_INTERVAL_SECONDS):
                self._sink(Progress(label, done, total))

    def file_done(self, label: str = "") -> None:
        """One more file is complete."""
        with self._lock:
            self._files_done += 1
            if self._told.pop(label, None) is not None:
                self._sink(ProgressEnd(label, 0, 0.0))
            if self._files_done == self._files or self._due(self._label, INTERVAL_SECONDS):
                self._tell()

    def tell(self, event: Event) -> None:
        """Pass another event on, in turn."""
        with self._lock:
            self._sink(event)

    def end(self) -> None:
        """The step is over."""
        with self._lock:
            seconds = time.monotonic() - self._start
            for label in [n for n in self._told if n != self._label]:
                self._sink(ProgressEnd(label, 0, 0.0))
            self._told.clear()
            self._tell()
            self._sink(ProgressEnd(self._label, self._done, seconds))

    def _due(self, label: str, interval: float) -> bool:
        now = time.monotonic()
        if now - self._told.get(label, -interval) < interval:
            return False
        self._told[label] = now
        return True

    def _tell(self) -> None:
        self._sink(Progress(self._label, self._done, self._total, self._files_done, self._files))
