"""Rounds, and what is printed of them."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airgap import fsio
from tests.bench.fetch.contestants import Contestant
from tests.bench.measure import run

EXPLAINED = """
sent: bytes of files that the server sent; written: what write calls moved to files, pipes and
sockets; disk: what the disk has to take (write_bytes); each for one byte of payload. Seconds are
medians of whole processes that ran in turn, starts included; every one began with an empty folder
and a disk that had nothing left to write."""


@dataclass
class Row:
    """All rounds of one contestant; bytes are of the last."""

    seconds: list[float] = field(default_factory=list)
    sent: int = 0
    written: int = 0
    stored: int = 0

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)


Rows = dict[str, Row]


def rounds(
    group: Sequence[Contestant], count: int, sent: Callable[[], int], aside: Path | None = None
) -> Rows:
    """Each contestant once a round, every other round backwards. `sent` counts for ever. What they
    made goes to `aside` where that is given: ext4 looks at every inode that was deleted in the last
    minute before it makes a new one, so that thousands of small files would pay for those before.
    """
    rows: Rows = {c.name: Row() for c in group}
    for number in range(count):
        for one in group if number % 2 == 0 else reversed(group):
            one.prepare()
            before = sent()
            cost = run(one.argv, one.env)
            row = rows[one.name]
            row.seconds.append(cost.seconds)
            row.sent, row.written, row.stored = sent() - before, cost.written, cost.stored
            if aside is None:
                fsio.remove_tree(one.folder)
            else:
                fsio.make_dirs(aside)
                os.rename(one.folder, aside / f"{one.folder.name}-{number}")
            say(f"round {number + 1}   {one.name:<22} {cost.seconds:6.2f} s")
    return rows


def table(title: str, rows: Rows, size: int, peer: str) -> str:
    """One line for each contestant; the time of `peer` is 1.00."""
    lines = [f"{title:<34} {'seconds':>8} {'to peer':>8} {'sent':>6} {'written':>8} {'disk':>6}"]
    for name, row in rows.items():
        ratio = row.median / rows[peer].median
        moved = f"{row.sent / size:6.2f} {row.written / size:8.2f} {row.stored / size:6.2f}"
        lines.append(f"  {name:<32} {row.median:8.2f} {ratio:8.2f} {moved}")
    return "\n".join(lines)


def most(rows: Rows, mine: str, peer: str, ratio: float) -> str:
    """A goal: my time is at most `ratio` of the peer's."""
    found = rows[mine].median / rows[peer].median
    return goal(f"{mine} <= {ratio:.2f} x {peer}", f"{found:.2f}", met=found <= ratio)


def faster(rows: Rows, mine: str, peer: str, times: float) -> str:
    """A goal: I am at least `times` as fast as the peer."""
    found = rows[peer].median / rows[mine].median
    return goal(f"{mine} >= {times:.2f} x as fast as {peer}", f"{found:.2f}", met=found >= times)


def goal(what: str, found: str, *, met: bool) -> str:
    """One goal and whether this run met it."""
    return f"goal      {what}: {found}, {'met' if met else 'MISSED'}"


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)
