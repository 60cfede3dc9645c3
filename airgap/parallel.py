"""Runs one function over many files on as many threads as help; the first failure stops the rest
that have not begun, and every failure that did happen is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from airgap import limits

T = TypeVar("T")


def workers() -> int:
    """Threads for hashing and copying: one a core that this process may use, bounded."""
    return max(1, min(len(os.sched_getaffinity(0)), limits.MAX_COPY_WORKERS))


def each(items: Sequence[T], work: Callable[[T], None], *, keep_going: bool = False) -> None:
    """Call `work` for every item. Raises the first error in the order of `items`.

    `keep_going`: run the others although one failed (`work` must note its errors itself).
    """
    # Its import takes as long as all else that a command needs which hashes nothing.
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    with ThreadPoolExecutor(workers()) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            if not keep_going:
                wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not keep_going:
                for future in futures:
                    future.cancel()
    for future in futures:
        if not future.cancelled():
            future.result()
