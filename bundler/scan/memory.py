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
import shutil
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from airgap import fsio, limits
from airgap.errors import IntegrityError
from airgap.store import hash_file

T = TypeVar("T")
# Longer findings are not worth a file: they are looked for again.
_MAX_BYTES = 4 * limits.MIB


@dataclass(frozen=True)
class Task(Generic[T]):
    """Looking at one file by itself. `key` (scanner, SHA-256, what else the answer depends on)
    names what `work` finds in that file's bytes (`proven`). `keep` makes JSON of it, or None where
    it shall not be remembered; `back` is the way back, and raises where that is none."""

    key: tuple[str, str, str]
    work: Callable[[], T]
    keep: Callable[[T], Any]
    back: Callable[[Any], T]


def proven(file: Path, sha256: str, found: T) -> T:
    """`found`, when the file that it was found in has those bytes: what is said of a name that
    officers approve is never said of other bytes. Raises IntegrityError `store.damaged`."""
    digest = hash_file(file).sha256
    if digest != sha256:
        raise IntegrityError(
            "store.damaged",
            f"blob {sha256} has other bytes",
            why=f"their SHA-256 is {digest}",
            do="run `sealift store verify`, which moves it away, then the same command again",
        )
    return found


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
        """Remember it, or forget what was kept where it is not to be. Atomic, not durable: what a
        power cut or a full disk took is found again."""
        data, place = task.keep(found), self._place(task.key)
        key = list(task.key)
        text = json.dumps({"key": key, "found": data, "sum": _sum(key, data)})
        if data is None or len(text) > _MAX_BYTES:
            with contextlib.suppress(OSError):
                place.unlink()
            return
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
    import packaging
    import zstandard

    helpers = zlib.ZLIB_RUNTIME_VERSION, zstandard.__version__, packaging.__version__
    total = hashlib.sha256(" ".join((sys.version, *helpers)).encode())
    for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(limits.__file__)):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:32]
