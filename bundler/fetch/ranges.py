"""Which bytes of a file are there and who fetches which: pure bookkeeping, no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from airgap import limits

# A range smaller than this is not worth a connection of its own, in bytes.
MIN_PIECE_BYTES = 2 * limits.MIB
# Small enough that the digest follows closely and a lost connection costs little, in bytes.
MAX_PIECE_BYTES = 32 * limits.MIB
# Pieces of a file for each connection: the last ones come in at nearly the same time.
_PIECES_EACH = 4
# A piece that takes less than this is not worth another connection, in seconds.
_WORTH_SECONDS = 1.0


class Ranges:
    """A set of half-open byte ranges, joined where they touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Put [start, end) in; it may overlap what is there."""
        if start >= end:
            return
        first = bisect_right(self._starts, start)
        if first and self._ends[first - 1] >= start:
            first -= 1
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, *self._ends[first:last])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def end_of(self, position: int) -> int:
        """Where the range that holds `position` ends; `position` itself when none does."""
        at = bisect_right(self._starts, position) - 1
        return max(position, self._ends[at]) if at >= 0 else position

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """What [0, size) lacks, in order."""
        out, at = [], 0
        for start, end in self:
            if start > at:
                out.append((at, min(start, size)))
            at = max(at, end)
        if at < size:
            out.append((at, size))
        return [g for g in out if g[0] < g[1]]

    @property
    def total(self) -> int:
        """Bytes in the set."""
        return sum(self._ends) - sum(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))


@dataclass(eq=False)
class Piece:
    """A range that one connection fetches: bytes up to `at` have come. `end` may come nearer when
    another connection takes the rest; None until the source has said how long the file is. It was
    begun at byte `first`, at the time `begun` of a monotonic clock."""

    at: int
    end: int | None
    first: int = 0
    begun: float = 0.0

    def seconds_left(self, now: float) -> float:
        """How long the rest takes at the pace so far, as if a megabyte had come at least."""
        return self.left * (now - self.begun) / max(self.at - self.first, limits.MIB)

    @property
    def left(self) -> int:
        """Bytes that are still to come; a lot, when nobody knows."""
        return limits.MAX_FILE_BYTES if self.end is None else self.end - self.at


def piece_bytes(size: int, connections: int) -> int:
    """How much of a file of `size` bytes one request asks for."""
    share = -(-size // (connections * _PIECES_EACH))
    return max(MIN_PIECE_BYTES, min(share, MAX_PIECE_BYTES))


def cut_off(pieces: list[Piece], now: float) -> Piece | None:
    """Half of what the longest piece has still to fetch, taken from it; None when that is little.

    So the last connection that works never works alone. What its server has sent of that half
    already is thrown away, so a piece that will soon be there is left alone.
    """
    slow = [p for p in pieces if p.end is not None and p.seconds_left(now) > _WORTH_SECONDS]
    longest = max(slow, key=lambda p: p.left, default=None)
    if longest is None or longest.end is None or longest.left < 2 * MIN_PIECE_BYTES:
        return None
    middle = longest.at + longest.left // 2
    out = Piece(middle, longest.end)
    longest.end = middle
    return out
