"""Every write and flush of a virtual disk, as QEMU logged them (as dm-log-writes does), and
the disk as it is when the power fails between any two of them.

A disk keeps what was written before the last flush that it answered. Of what came later it keeps
any part: nothing, or the later half without the earlier one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.world import run

SECTOR = 512
_MAGIC = 0x6A736677736872
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD = 1, 2, 4


@dataclass(frozen=True)
class Entry:
    """`data`: where the written bytes lie in the log; `sector` is where they belong."""

    sector: int
    count: int
    flags: int
    data: int

    @property
    def flushes(self) -> bool:
        return bool(self.flags & _FLUSH)


def entries(log: Path) -> list[Entry]:
    """All that were logged before QEMU ended; the last may lack bytes and is left out."""
    size = log.stat().st_size
    out = []
    with open(log, "rb") as f:
        magic, version, _, sector = _SUPER.unpack(f.read(_SUPER.size))
        assert (magic, version, sector) == (_MAGIC, 1, SECTOR)
        place = SECTOR
        while place + SECTOR <= size:
            f.seek(place)
            first, count, flags, _ = _ENTRY.unpack(f.read(_ENTRY.size))
            if (first, count, flags) == (0, 0, 0):
                break
            has_data = 0 if flags & _DISCARD else count
            entry = Entry(first, count, flags, place + SECTOR)
            place += SECTOR * (1 + has_data)
            if place <= size:
                out.append(entry)
    return out


def segments(found: list[Entry]) -> Iterator[list[Entry]]:
    """The writes between two flushes; those of the last were never flushed."""
    since: list[Entry] = []
    for entry in found:
        assert not entry.flags & _FUA, "flushed by itself: this order knows nothing of that"
        since.append(entry)
        if entry.flushes:
            yield since
            since = []
    yield since


def losses(log: Path, disk: Path, copy: Path, points: int) -> Iterator[None]:
    """Let the power fail at about that many flushes, spread over the log: `copy` is then what the
    disk holds, `disk` is brought to the end of the log on the way."""
    parts = list(segments(entries(log)))
    every = max(1, len(parts) // points)
    for number, part in enumerate(parts):
        if number % every == 0 or number == len(parts) - 1:
            copied(disk, copy)
            # Of what was not flushed nothing is kept, or the later half without the earlier one.
            kept = part[len(part) // 2 :] if number // every % 2 else []
            apply(log, copy, kept)
            yield
        apply(log, disk, part)


def copied(disk: Path, copy: Path) -> None:
    """With its holes."""
    done = run(["cp", "--sparse=always", str(disk), str(copy)], copy.parent)
    assert done.code == 0, done.err


def apply(log: Path, disk: Path, some: list[Entry]) -> None:
    """Write them to the disk, in their order."""
    with open(log, "rb") as source, open(disk, "r+b") as target:
        for entry in some:
            if not entry.flags & _DISCARD:  # a disk may keep what was discarded
                source.seek(entry.data)
                target.seek(entry.sector * SECTOR)
                left = entry.count * SECTOR
                while left:
                    sent = os.copy_file_range(
                        source.fileno(), target.fileno(), left, source.tell(), target.tell()
                    )
                    assert sent, "the log ends within an entry"
                    source.seek(sent, os.SEEK_CUR)
                    target.seek(sent, os.SEEK_CUR)
                    left -= sent
