"""What the gate found in a file before: same bytes, same scanner, same finding, so not read again.

A new version of a bundle mostly changes a prompt or a number, and reading 4 GB of wheels again for
it takes longer than all the rest. Only sound files are remembered: what was refused is looked at
again. See docs/decisions/0062-remembered-findings.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from airgap import fsio, limits

T = TypeVar("T")
# Longer findings are not worth a file: they are looked for again.
_MAX_BYTES = 4 * limits.MIB


@dataclass(frozen=True)
class Task(Generic[T]):
    """Looking at one file by itself. `key` (scanner, SHA-256, what else the answer depends on)
    names what `work` finds. `keep` makes JSON of it, or None where it shall not be remembered;
    `back` is the way back, and raises where that is none."""

    key: tuple[str, str, str]
    work: Callable[[], T]
    keep: Callable[[T], Any]
    back: Callable[[Any], T]


class Memory:
    """Files below `folder`, one for each answer, to be deleted at will. From any thread."""

    def __init__(self, folder: Path) -> None:
        self._top = folder
        self._folder = folder / scanners()
        self._ready = False

    def find(self, task: Task[T]) -> tuple[T] | None:
        """What was found before; None where nothing that can be believed is there."""
        try:
            with open(self._place(task.key), "rb") as f:
                said = json.loads(f.read(_MAX_BYTES + 1))
            if said["key"] != list(task.key) or said["sum"] != _sum(said["key"], said["found"]):
                return None
            return (task.back(said["found"]),)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # it is looked at again

    def keep(self, task: Task[T], found: T) -> None:
        """Remember it. Atomic, not durable: what a power cut or a full disk took is found again."""
        data = task.keep(found)
        if data is None:
            return
        key = list(task.key)
        text = json.dumps({"key": key, "found": data, "sum": _sum(key, data)})
        if len(text) > _MAX_BYTES:
            return
        place = self._place(task.key)
        temp = fsio.temp_name(place.parent)
        # No verdict hangs on it: the findings themselves are written by the gate, or it fails.
        with contextlib.suppress(OSError):
            self._prepare()
            temp.write_text(text, "ascii")
            os.replace(temp, place)

    def _place(self, key: tuple[str, str, str]) -> Path:
        return self._folder / hashlib.sha256("\n".join(key).encode()).hexdigest()

    def _prepare(self) -> None:
        """What other scanners found is of no use any more."""
        if self._ready:
            return
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        for folder in self._top.iterdir():
            if folder != self._folder:
                shutil.rmtree(folder, ignore_errors=True)
        self._ready = True


def _sum(key: list[str], found: Any) -> str:
    """Against a bit that the disk flipped, not against people."""
    return hashlib.sha256(json.dumps([key, found], sort_keys=True).encode("ascii")).hexdigest()


@cache
def scanners() -> str:
    """Names the code that looks: a change of it, or of what unpacks for it, forgets everything."""
    import zstandard

    unpackers = platform.python_version(), zlib.ZLIB_RUNTIME_VERSION, zstandard.__version__
    total = hashlib.sha256(" ".join(unpackers).encode())
    for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(limits.__file__)):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:32]
