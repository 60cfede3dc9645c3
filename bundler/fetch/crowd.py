"""How many connections small files are worth.

A request for a small file is mostly our own work, and Python runs one thread at a time: where the
source answers at once, further threads only wait for each other (5,000 files on loopback took 8
connections a third longer than 2). Where each answer takes its time, all of them are needed.
"""

from __future__ import annotations

import math

# Files that are looked at together: a source may become slower or faster on the way.
_WINDOW = 16
_LEAST = 2


class Crowd:
    """Counts who fetches small files, at most `most` at one time. Guarded by the caller's lock."""

    def __init__(self, most: int) -> None:
        self._most = self._limit = most
        self._busy = 0
        self._begin()

    def _begin(self) -> None:
        self._files, self._worked, self._quickest = 0, 0.0, math.inf

    def join(self) -> bool:
        """Whether one more is worth it now; it is counted then, until `leave`."""
        if self._busy >= self._limit:
            return False
        self._busy += 1
        return True

    def leave(self, elapsed: float, worked: float) -> int:
        """A file took `elapsed` seconds, of which the thread worked `worked` on a processor.
        Returns how many may join now.

        The quickest file says how long one takes when nobody is in the way; so many threads at
        once keep one processor at work.
        """
        self._busy -= 1
        self._files += 1
        self._worked += worked
        self._quickest = min(self._quickest, elapsed)
        if self._files == _WINDOW:
            wanted = math.ceil(self._quickest * _WINDOW / max(self._worked, 1e-6))
            self._limit = min(self._most, max(_LEAST, wanted))
            self._begin()
        return self._limit - self._busy
