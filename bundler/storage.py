"""Care of the store that all builds of a home share: what nothing needs, who needs how much, what
is damaged."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from airgap import fsio
from airgap.errors import FormatError, IntegrityError, SealiftError
from airgap.events import Sink
from airgap.format.lock import Lock
from airgap.format.manifest import Manifest
from airgap.meter import Meter
from airgap.parallel import each
from airgap.store import Store, hash_file
from bundler.digests import BLAKE3, GIT, git_file, git_names
from bundler.fetch.partial import FOLDER
from bundler.officers.repository import TrustRepository
from bundler.workspace import Workspace

T = TypeVar("T")

# Where `verify` puts blobs whose bytes are not what their name says.
DAMAGED = "damaged"


@dataclass(frozen=True)
class Waste:
    """A file of the store that nothing names; its size in bytes on the disk."""

    path: Path
    size: int


@dataclass(frozen=True)
class Share:
    """What one document needs of the store, in bytes: all of it, and what nothing else needs."""

    name: str
    files: int
    size: int
    alone: int


def needed(workspace: Workspace) -> dict[str, dict[str, int]]:
    """Blobs with their sizes, by the document that names them: every lock, and every manifest that
    waits for officers or was approved. A document that cannot be read stops it: nothing is thrown
    away on a guess."""
    out: dict[str, dict[str, int]] = {}
    for path in sorted((workspace.home / "builds").glob("*/*/lock.json")):
        lock = _read(path, Lock.from_bytes)
        out[_name(workspace, path)] = {f.sha256: f.size for a in lock.artifacts for f in a.files}
    for path in _manifests(workspace):
        found = _read(path, Manifest.from_bytes)
        files = {f.sha256: f.size for a in found.artifacts for f in a.files}
        evidence = {e.sha256: e.size for e in found.evidence}
        out[_name(workspace, path)] = {**files, **evidence}
    return out


def _manifests(workspace: Workspace) -> Iterator[Path]:
    yield from sorted((workspace.home / "builds").glob("*/*/manifest.json"))
    if TrustRepository(workspace.trust).exists():
        yield from sorted((workspace.trust / "approved").glob("*/manifest.json"))


def _name(workspace: Workspace, path: Path) -> str:
    return str(path.relative_to(workspace.home))


def _read(path: Path, decode: Callable[[bytes], T]) -> T:
    with fsio.disk_errors(f"reading {path}"):
        data = path.read_bytes()
    try:
        return decode(data)
    except FormatError as e:
        raise IntegrityError(
            "store.unreadable",
            f"what {path} needs of the store cannot be read",
            why=f"{e.where}: {e.why}",
            do="make it again or remove it; until then nothing of the store is removed",
        ) from e


def waste(workspace: Workspace) -> list[Waste]:
    """Everything in the store that no document names. Call it under the home's lock."""
    store = workspace.store
    keep = {sha256 for files in needed(workspace).values() for sha256 in files}
    out = [w for w in _files(store.blobs) if w.path.name not in keep]
    out += [w for w in _files(store.root / BLAKE3) if w.path.name not in keep]
    named = keep.intersection(git_names(store).values())
    out += [w for w in _files(store.root / GIT) if not (named and w.path == git_file(store))]
    out += [w for w in _files(store.root / FOLDER) if not _resumable(w.path, keep)]
    out += _files(store.root / DAMAGED)
    out += _files(store.root / "incoming")
    return out


def _files(folder: Path) -> list[Waste]:
    if not folder.is_dir():
        return []
    with fsio.disk_errors(f"reading {folder}"), os.scandir(folder) as entries:
        found = [e for e in entries if e.is_file(follow_symlinks=False)]
        sizes = [e.stat(follow_symlinks=False).st_blocks * 512 for e in found]
    return sorted((Waste(Path(e.path), s) for e, s in zip(found, sizes, strict=True)), key=_path)


def _path(one: Waste) -> str:
    return str(one.path)


def _resumable(path: Path, keep: set[str]) -> bool:
    """Half a file that a lock still wants, and the lock file of a running fetch."""
    return path.name == "lock" or path.name.partition(".")[0] in keep


def collect(found: list[Waste]) -> int:
    """Remove it; returns the bytes."""
    for one in found:
        with fsio.disk_errors(f"removing {one.path}"):
            one.path.unlink(missing_ok=True)
    return sum(one.size for one in found)


def shares(workspace: Workspace) -> list[Share]:
    """What each document needs, most first."""
    documents = needed(workspace)
    users: dict[str, int] = {}
    for files in documents.values():
        for sha256 in files:
            users[sha256] = users.get(sha256, 0) + 1
    out = [
        Share(
            name,
            len(files),
            sum(files.values()),
            sum(size for sha256, size in files.items() if users[sha256] == 1),
        )
        for name, files in documents.items()
    ]
    return sorted(out, key=lambda s: (-s.size, s.name))


def verify(store: Store, sink: Sink) -> list[str]:
    """Read every blob on all cores; move those away whose bytes do not fit their name, and forget
    what was derived from them. Returns the names, sorted."""
    blobs = _files(store.blobs)
    meter = Meter(sink, "verify", sum(b.path.stat().st_size for b in blobs), len(blobs))
    bad: list[str] = []
    lock = threading.Lock()

    def check(blob: Waste) -> None:
        name = blob.path.name
        try:
            good = hash_file(blob.path, meter.advance).sha256 == name
        except SealiftError:
            # Unreadable is as damaged as wrong: it must not be served as that blob.
            good = False
        meter.file_done()
        if not good:
            _move_away(store, blob.path)
            with lock:
                bad.append(name)

    each(blobs, check)
    meter.end()
    return sorted(bad)


def _move_away(store: Store, blob: Path) -> None:
    folder = store.root / DAMAGED
    fsio.make_dirs(folder)
    with fsio.disk_errors(f"moving {blob}"):
        os.rename(blob, folder / blob.name)
        (store.root / BLAKE3 / blob.name).unlink(missing_ok=True)
        fsio.fsync_dir(folder)
        fsio.fsync_dir(blob.parent)
