"""The one-pass import: every blob is read once off the medium, hashed in the buffer, written once.

A blob that the store has is not read from the medium; its own bytes are checked again instead, by
BLAKE3 where that is installed (five times faster), by SHA-256 otherwise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio
from airgap.errors import DiskError
from airgap.events import Sink, Warn, silent
from airgap.format.manifest import Blob
from airgap.meter import Meter
from airgap.parallel import each
from airgap.store import OnBytes, Store, hash_file, open_regular, read_chunks
from airgap.verify import Payload


@dataclass(frozen=True)
class Imported:
    """A payload that lies in the store, every byte checked in this run. `copied` in bytes."""

    payload: Payload
    store: Store
    copied: int


def import_blobs(
    payload: Payload, store: Store, sink: Sink = silent, *, adopt: bool = False
) -> Imported:
    """Take all blobs of the payload into the store. Kill it and call it again: it resumes.

    Raises IntegrityError (damaged medium: nothing of that blob is kept) or DiskError.
    """
    store.prepare()
    have = [b for b in payload.blobs if store.has(b.sha256, b.size)]
    damaged = _recheck(store, have, sink)
    lacking = set(payload.blobs) - set(have) | damaged
    todo = [b for b in payload.blobs if b in lacking]
    _copy(payload, store, todo, sink, adopt=adopt)
    return Imported(payload, store, sum(b.size for b in todo))


def import_evidence(payload: Payload, store: Store) -> None:
    """Take in the evidence alone, so that it can be judged before 140 GB are copied."""
    store.prepare()
    wanted = {e.sha256 for e in payload.approved.manifest.evidence}
    todo = [b for b in payload.blobs if b.sha256 in wanted and not store.has(b.sha256, b.size)]
    _copy(payload, store, todo, silent, adopt=False)


def _copy(payload: Payload, store: Store, todo: list[Blob], sink: Sink, *, adopt: bool) -> None:
    if not todo:
        return
    meter = Meter(sink, "import", sum(b.size for b in todo), len(todo))

    def take(blob: Blob) -> None:
        source = payload.blob_path(blob.sha256)
        if adopt:
            store.adopt(source, blob.sha256, blob.size, meter.advance)
        else:
            store.add_file(
                source,
                expect_sha256=blob.sha256,
                expect_size=blob.size,
                on_bytes=meter.advance,
                durable_name=False,
            )
        meter.file_done()

    each(sorted(todo, key=lambda b: -b.size), take)
    store.sync_names()
    meter.end()


def _recheck(store: Store, have: list[Blob], sink: Sink) -> set[Blob]:
    """Those of the store's blobs whose bytes are no longer right."""
    damaged: set[Blob] = set()
    if not have:
        return damaged
    meter = Meter(sink, "re-check", sum(b.size for b in have), len(have))

    def check(blob: Blob) -> None:
        if not _still_right(store.blob_path(blob.sha256), blob, meter.advance):
            damaged.add(blob)
            sink(Warn("store.damaged", f"blob {blob.sha256[:12]} changed in the store: replaced"))
        meter.file_done()

    each(have, check)
    meter.end()
    return damaged


def _still_right(path: Path, blob: Blob, on_bytes: OnBytes) -> bool:
    try:
        from blake3 import blake3
    except ImportError:
        return hash_file(path, on_bytes).sha256 == blob.sha256
    digest = blake3()
    with open_regular(path) as fd:
        for chunk in read_chunks(fd):
            digest.update(chunk)
            on_bytes(len(chunk))
    return bool(digest.hexdigest() == blob.blake3)


def check_space(root: Path, need: int) -> None:
    """Raise DiskError `disk.full` before a byte is written when `need` does not fit."""
    with fsio.disk_errors(f"reading the free space of {root}"):
        st = os.statvfs(root)
    free = st.f_bavail * st.f_frsize
    if free < need:
        raise DiskError(
            "disk.full",
            f"{root} has {free:,} bytes free, the import needs {need:,}",
            why="every blob is written once into the store",
            do=f"free {need - free:,} bytes there, or name another place with --root",
        )
