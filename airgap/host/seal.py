"""The environment's own list of checksums, made when it was complete: `sha256sum -c` reads it.

Wheels say in RECORD what they install, but not what an installer adds: bytecode, scripts, links.
The list covers every file; its SHA-256 stands in the records of the environment and of each
deployment that uses it, and in the ledger.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from airgap import fsio, limits
from airgap.errors import IntegrityError
from airgap.events import Sink, silent
from airgap.host.paths import DeploymentPaths
from airgap.meter import Meter
from airgap.parallel import each
from airgap.store import hash_file

_LINK = "link:"


def make(venv: Path, sums: Path, sink: Sink = silent) -> str:
    """Write the list of the environment `venv` to `sums`; returns its SHA-256."""
    found = measure(venv, sink, "seal")
    text = "".join(f"{digest}  venv/{path}\n" for path, digest in sorted(found.items()))
    fsio.write(sums, text.encode(), 0o444)
    return hashlib.sha256(text.encode()).hexdigest()


def measure(folder: Path, sink: Sink = silent, label: str = "verify") -> dict[str, str]:
    """Path below `folder` -> SHA-256 of the file, or of `link:TARGET` for a symbolic link."""
    out: dict[str, str] = {}
    files: list[tuple[str, Path]] = []
    for path in _walk(folder):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            out[name] = hashlib.sha256(f"{_LINK}{os.readlink(path)}".encode()).hexdigest()
        else:
            files.append((name, path))

    with fsio.disk_errors(f"reading {folder}"):
        meter = Meter(sink, label, sum(p.lstat().st_size for _, p in files), len(files))

    def work(one: tuple[str, Path]) -> None:
        out[one[0]] = hash_file(one[1], meter.advance).sha256
        meter.file_done()

    each(files, work)
    meter.end()
    return out


def _walk(folder: Path) -> Iterator[Path]:
    with fsio.disk_errors(f"reading {folder}"):
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    for entry in entries:
        if "\n" in entry.name:
            raise IntegrityError(
                "venv.file-name",
                f"a file name below {folder} holds a line break",
                why="no wheel has one; it cannot be listed",
                do="look at what put it there, then install the bundle again",
            )
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def read(place: DeploymentPaths) -> tuple[str, dict[str, str]] | None:
    """SHA-256 of the list and what it says, path by path; None when there is none."""
    data = fsio.read_if_there(place.sums, limits.MAX_SUMS_BYTES)
    if data is None:
        return None
    # Names may hold what else ends a line for Python.
    lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
    parts = (line.partition("  venv/") for line in lines)
    return hashlib.sha256(data).hexdigest(), {path: digest for digest, _, path in parts}
