"""What a whole build takes beside the slowest of its stages: fetch and scan overlap."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from airgap import fsio
from tests.bench.fetch import image
from tests.bench.fetch.contestants import Contestant, Home
from tests.bench.fetch.table import goal, rounds, table
from tests.unit.images.maker import push

# A line that is no faster than most: on loopback alone both stages would want all processors.
_RATE = ("--limit-rate", "150M")
_SIZE = 1 << 30
_GOAL = 1.15


def build(work: Path, count: int) -> None:
    """An image of 1 GiB over a line of 150 MB/s: fetch, scan, and both as one build."""
    with image.registry(work) as host:
        push(image.made(), f"http://{host}", "bench/image")
        desk = _Desk(work, "http://127.0.0.1:1", image.source(host))
        group = [desk.fetch_slowly(), desk.scan(), desk.build()]
        rows = rounds(group, count, lambda: 0)
    print(table("image of 1 GiB at 150 MB/s", rows, _SIZE, "sealift scan"))
    slowest = max(group[:2], key=lambda c: rows[c.name].median).name
    found = rows["sealift build"].median / rows[slowest].median
    print(goal(f"sealift build <= {_GOAL} x {slowest}", f"{found:.2f}", met=found <= _GOAL))


class _Desk(Home):
    def fetch_slowly(self) -> Contestant:
        """The stage that the line bounds, with the lock that it needs."""
        argv = ("sh", "-c", f"{self._line('lock')} && {self._line('fetch', *_RATE)}")
        return Contestant("sealift lock; fetch", self.folder, argv, self.env, self.empty)

    def scan(self) -> Contestant:
        """The stage that the processors bound; all is in the store."""
        argv = ("sh", "-c", self._line("scan"))
        return Contestant("sealift scan", self.folder, argv, self.env, self._fetched)

    def build(self) -> Contestant:
        """Lock, fetch, scan and review."""
        argv = ("sh", "-c", self._line("build", *_RATE))
        return Contestant("sealift build", self.folder, argv, self.env, self._trusted)

    def _line(self, command: str, *options: str) -> str:
        return shlex.join([*self.argv(command), *options])

    def _fetched(self) -> None:
        self.locked()
        subprocess.run(self.argv("fetch"), env=self.env, check=True, stdout=subprocess.DEVNULL)

    def _trusted(self) -> None:
        self.empty()
        phrase = self.folder.parent / "passphrase"
        fsio.write(phrase, b"of the bench\n")
        argv = [*self.argv("trust")[:-1], "init", "--solo", "--passphrase-file", str(phrase)]
        subprocess.run(argv, env=self.env, check=True, stdout=subprocess.DEVNULL)
