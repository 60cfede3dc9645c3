"""What the contestants fetch, and the processes that serve it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy

from airgap import fsio, limits
from tests.bench.fetch.server import COUNTERS, REPOSITORY


@dataclass(frozen=True)
class Hub:
    """A server of the bench that runs. `folder`: what it serves. `size`: bytes of all files."""

    endpoint: str
    folder: Path

    @property
    def names(self) -> list[str]:
        """The files, in order."""
        return sorted(p.name for p in self.folder.iterdir())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(p.stat().st_size for p in self.folder.iterdir())

    def url(self, name: str) -> str:
        """Where anybody may fetch a file."""
        return f"{self.endpoint}/{REPOSITORY}/resolve/main/{name}"

    def sent(self) -> int:
        """Bytes of files that left so far."""
        with urllib.request.urlopen(self.endpoint + COUNTERS, timeout=10) as answer:
            return int(json.load(answer)["sent"])


def noise(folder: Path, sizes: Mapping[str, int]) -> Path:
    """Files of noise, the same in each run. Returns `folder`, made anew."""
    fsio.remove_tree(folder)
    fsio.make_dirs(folder)
    for number, (name, size) in enumerate(sizes.items()):
        generator = numpy.random.default_rng(number)
        with open(folder / name, "wb") as f:
            for start in range(0, size, limits.COPY_CHUNK_BYTES):
                f.write(generator.bytes(min(limits.COPY_CHUNK_BYTES, size - start)))
    return folder


@contextlib.contextmanager
def serving(folder: Path, *shape: str) -> Iterator[Hub]:
    """The folder served by a process of its own; `shape` as `server.py` takes it."""
    argv = [sys.executable, "-m", "tests.bench.fetch.server", str(folder), *shape]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield Hub(running.stdout.readline().strip(), folder)
        finally:
            running.kill()
