"""Looking at files while others still come: what a scanner will say of one file alone, begun early.

A blob's name is its SHA-256, so what was found in it holds whenever it is asked for. The scanner
asks under the same key; what was not begun, or failed, is then done as if nothing had been.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError, Future
from typing import TypeVar, cast

from airgap.parallel import workers

T = TypeVar("T")
_Task = tuple["Future[object]", Callable[[], object]]


class Ahead:
    """Threads of its own, that end with the process and are never waited for at its end."""

    def __init__(self) -> None:
        self._futures: dict[Hashable, Future[object]] = {}
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0

    def begin(self, key: Hashable, work: Callable[[], object]) -> None:
        """Have `work` done soon; `key` names what it finds. From any thread; once for each key."""
        with self._lock:
            if key in self._futures:
                return
            future = self._futures[key] = Future()
            self._tasks.put((future, work))
            if self._threads < workers():
                self._threads += 1
                threading.Thread(target=self._run, name="ahead", daemon=True).start()

    def result(self, key: Hashable, work: Callable[[], T]) -> T:
        """What `work` returns: found already, waited for, or done now by the caller."""
        with self._lock:
            future = self._futures.get(key)
        if future is None or future.cancel():
            return work()
        try:
            return cast(T, future.result())
        except CancelledError:
            return work()
        except Exception:  # noqa: BLE001 - the scanner shall meet it by itself
            return work()

    def close(self) -> None:
        """Begin nothing more."""
        with self._lock:
            for future in self._futures.values():
                future.cancel()
            for _ in range(self._threads):
                self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, work = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as e:  # noqa: BLE001 - raised again where it is asked for
                future.set_exception(e)


@contextlib.contextmanager
def ahead() -> Iterator[Ahead]:
    """One for the time of a build."""
    made = Ahead()
    try:
        yield made
    finally:
        made.close()
