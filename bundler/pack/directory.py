"""Writes a bundle as a folder. Signs nothing: it needs a manifest that is approved and published.

The folder appears under its name only when it is complete: it is built beside it under a temporary
name, so that a killed pack leaves nothing that looks like a bundle. Blobs are cloned
from the store where the file system allows it and copied otherwise, hashed on the way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio
from airgap.errors import IntegrityError, SealiftError, UsageError
from airgap.events import Sink, silent
from airgap.format import layout
from airgap.format.manifest import Blob, Manifest
from airgap.format.policy import STRICT
from airgap.meter import Meter
from airgap.parallel import each
from airgap.store import Store
from airgap.trust.decide import Approved, TrustFiles, decide
from airgap.trust.learn import root_of
from airgap.trust.metadata import is_solo
from airgap.trust.state import Remembered
from bundler.officers.repository import Published, TrustRepository


@dataclass(frozen=True)
class Ready:
    """An approved manifest with everything that goes beside its payload: path -> bytes."""

    approved: Approved
    trust: Mapping[str, bytes]
    documents: Mapping[str, bytes]
    generated: Mapping[str, bytes]


def prepare(repository: TrustRepository, manifest_sha256: str, clock: int) -> Ready:
    """Judge the published trust by the reader's own code, so that what a host would refuse is
    never packed. Raises TrustError below the threshold, when expired, or when revoked."""
    published = repository.published()
    folder = repository.approved(manifest_sha256)
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            "pack.not-approved",
            f"manifest {manifest_sha256[:16]} is not approved",
            why="no approval of it was published",
            do="`sealift review`, `sealift approve` by the officers, then `sealift collect`",
        )
    manifest = (folder / "manifest.json").read_bytes()
    statements = {p.name: p.read_bytes() for p in sorted((folder / "statements").glob("*.json"))}
    metadata = published.files()
    path = Manifest.from_bytes(manifest).target_path
    files = TrustFiles(metadata, tuple(statements.values()), path, manifest)
    approved = decide(_reader(published), files, clock, STRICT).approved()
    trust = {
        **{f"{layout.METADATA}/{n}": d for n, d in metadata.items()},
        **{f"{layout.STATEMENTS}/{n}": d for n, d in statements.items()},
        f"{layout.TARGETS}/{path}": manifest,
    }
    return _ready(approved, trust, (folder / "REVIEW.html").read_bytes())


def _reader(published: Published) -> Remembered:
    """A reader that knows only the newest root: as strict as a host that was set up today."""
    root = published.roots[max(published.roots)]
    state = Remembered("pack", root, None, 0, accept_solo=True)
    return Remembered("pack", root, None, 0, accept_solo=is_solo(root_of(state)))


def _ready(approved: Approved, trust: Mapping[str, bytes], report: bytes) -> Ready:
    if hashlib.sha256(report).hexdigest() != approved.verdicts.report_sha256:
        raise IntegrityError(
            "pack.report",
            "REVIEW.html is not the report that the officers read",
            why="its SHA-256 is not the one in their statements",
            do="restore the trust repository from its backup or from git",
        )
    made = layout.generate(approved.manifest)
    documents = {
        layout.README: layout.readme(approved.manifest, approved.digest),
        layout.REPORT: report,
        layout.OCI_LAYOUT: layout.OCI_LAYOUT_BYTES,
        layout.INDEX: made.index,
    }
    return Ready(approved, trust, documents, made.blobs)


def pack(ready: Ready, store: Store, out: Path, sink: Sink = silent) -> Path:
    """Write the bundle folder below `out`; returns it. An existing one is never changed."""
    manifest = ready.approved.manifest
    final = out / layout.bundle_folder(manifest)
    if final.exists():
        raise UsageError(
            "pack.exists",
            f"{final} exists already",
            why="a packed bundle is never overwritten",
            do="remove it yourself, or pack to another folder",
        )
    fsio.make_dirs(out)
    _drop_killed(out, final.name)
    work = out / f"{fsio.TEMP_PREFIX}{final.name}-{os.getpid()}"
    try:
        _write_all(ready, store, work, sink)
        with fsio.disk_errors(f"writing {final}"):
            os.rename(work, final)
            fsio.fsync_dir(out)
    except SealiftError:
        fsio.remove_tree(work)
        raise
    return final


def _drop_killed(out: Path, name: str) -> None:
    for left in out.glob(f"{fsio.TEMP_PREFIX}{name}-*"):
        fsio.remove_tree(left)


def _write_all(ready: Ready, store: Store, work: Path, sink: Sink) -> None:
    blobs = ready.approved.manifest.blobs()
    sums = {f"{layout.BLOBS}/{b.sha256}": b.sha256 for b in blobs}
    small = {f"{layout.TRUST}/{n}": d for n, d in ready.trust.items()}
    small |= ready.documents
    small |= {f"{layout.BLOBS}/{sha}": data for sha, data in ready.generated.items()}
    sums |= {n: hashlib.sha256(d).hexdigest() for n, d in small.items()}
    small[layout.SUMS] = layout.sums(sums)
    for name, data in small.items():
        fsio.write(work / name, data)
    _write_blobs(store, blobs, Store(work), sink)


def _write_blobs(store: Store, blobs: tuple[Blob, ...], target: Store, sink: Sink) -> None:
    meter = Meter(sink, "pack", sum(b.size for b in blobs), len(blobs))

    def put(blob: Blob) -> None:
        _check_there(store, blob)
        target.add_file(
            store.blob_path(blob.sha256),
            expect_sha256=blob.sha256,
            expect_size=blob.size,
            on_bytes=meter.advance,
            durable_name=False,
        )
        meter.file_done()

    target.prepare()
    each(sorted(blobs, key=lambda b: -b.size), put)
    target.sync_names()
    target.discard_incoming()
    meter.end()


def _check_there(store: Store, blob: Blob) -> None:
    if not store.has(blob.sha256, blob.size):
        raise UsageError(
            "pack.not-fetched",
            f"the store lacks blob {blob.sha256[:16]}",
            why="the manifest was reviewed, but this store was cleaned or is another one",
            do="run `sealift fetch` again, or name the right --home",
        )
