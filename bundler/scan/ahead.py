"""Looking at files while others still come: what a scanner will say of one file alone, begun early.

A blob's name is its SHA-256, so what was found in it holds whenever it is asked for, in this build
or in a later one (bundler/scan/memory.py). The scanner asks for the same task; what was not begun,
or failed, is then done as if nothing had been.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar, cast

from airgap.parallel import workers
from bundler.scan.memory import Memory, Task

T = TypeVar("T")
_Begun = tuple["Future[object]", Task[Any]]


class Ahead:
    """Threads of its own, that end with the process and are never waited for at its end.
    `memory`: what earlier builds found; without one, or `afresh`, everything is looked at."""

    def __init__(self, memory: Memory | None = None, *, afresh: bool = False) -> None:
        self._memory = memory
        self._afresh = afresh
        self._futures: dict[tuple[str, str, str], Future[object]] = {}
        self._tasks: queue.SimpleQueue[_Begun | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self.remembered = 0

    def begin(self, task: Task[Any]) -> None:
        """Have it done soon. From any thread; once for each key."""
        with self._lock:
            if task.key in self._futures:
                return
            future = self._futures[task.key] = Future()
            self._tasks.put((future, task))
            if self._threads < workers():
                self._threads += 1
                threading.Thread(target=self._run, name="ahead", daemon=True).start()

    def result(self, task: Task[T]) -> T:
        """What its `work` returns: found already, waited for, or done now by the caller."""
        with self._lock:
            future = self._futures.get(task.key)
        if future is None or future.cancel():
            return self._do(task)
        try:
            return cast(T, future.result())
        except CancelledError:
            return self._do(task)
        except Exception:  # noqa: BLE001 - the scanner shall meet it by itself
            return self._do(task)

    def close(self) -> None:
        """Begin nothing more."""
        with self._lock:
            for future in self._futures.values():
                future.cancel()
            for _ in range(self._threads):
                self._tasks.put(None)

    def _run(self) -> None:
        while (begun := self._tasks.get()) is not None:
            future, task = begun
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._do(task))
            except BaseException as e:  # noqa: BLE001 - raised again where it is asked for
                future.set_exception(e)

    def _do(self, task: Task[T]) -> T:
        if self._memory is None:
            return task.work()
        before = None if self._afresh else self._memory.find(task)
        if before is not None:
            with self._lock:
                self.remembered += 1
            return before[0]
        found = task.work()
        self._memory.keep(task, found)
        return found


@contextlib.contextmanager
def ahead(memory: Memory | None = None, *, afresh: bool = False) -> Iterator[Ahead]:
    """One for the time of a build."""
    made = Ahead(memory, afresh=afresh)
    try:
        yield made
    finally:
        made.close()
