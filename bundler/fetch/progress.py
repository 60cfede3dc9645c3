"""One running total for a step that several threads work on."""

from __future__ import annotations

import threading
import time

from airgap.events import Event, Progress, ProgressEnd, Sink


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

    def add(self, count: int) -> None:
        """`count` more bytes; negative when an attempt begins again."""
        with self._lock:
            self._done += count
            self._tell()

    def file_done(self) -> None:
        """One more file is complete."""
        with self._lock:
            self._files_done += 1
            self._tell()

    def tell(self, event: Event) -> None:
        """Pass another event on, in turn."""
        with self._lock:
            self._sink(event)

    def end(self) -> None:
        """The step is over."""
        with self._lock:
            seconds = time.monotonic() - self._start
            self._sink(ProgressEnd(self._label, self._done, seconds))

    def _tell(self) -> None:
        self._sink(Progress(self._label, self._done, self._total, self._files_done, self._files))
