"""Lock and evidence become the manifest: a pure function of both, so the same lock, policy and tool
versions give the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath

from airgap.format.artifacts import LockedFile, LockedModel, LockedWheels, Model, Wheels
from airgap.format.lock import Lock
from airgap.format.manifest import Artifact, Evidence, Manifest
from airgap.format.types import FileEntry
from airgap.store import Store
from bundler.digests import blake3_of


def make_manifest(lock: Lock, store: Store, documents: Mapping[str, bytes]) -> Manifest:
    """The manifest over a lock whose files are all in the store.

    `documents`: evidence kind -> bytes; they are taken into the store, as ordinary blobs.
    """
    evidence = tuple(_evidence(kind, data, store) for kind, data in sorted(documents.items()))
    return Manifest(
        name=lock.name,
        version=lock.version,
        summary=lock.summary,
        release=lock.release,
        created=lock.created,
        not_after=lock.not_after,
        audience=lock.audience,
        handling=lock.handling,
        target=lock.target,
        artifacts=tuple(_artifact(a, store) for a in lock.artifacts),
        evidence=evidence,
        serve=lock.serve,
        waivers=lock.waivers,
    )


def _artifact(locked: LockedModel | LockedWheels, store: Store) -> Artifact:
    files = tuple(_entry(f, store) for f in locked.files)
    if isinstance(locked, LockedWheels):
        return Wheels(name=locked.name, requirements=locked.requirements, files=files)
    return Model(
        name=locked.name,
        source=locked.source,
        revision=locked.revision,
        format=locked.format,
        publisher=locked.publisher,
        licence=locked.licence,
        files=files,
    )


def _entry(f: LockedFile, store: Store) -> FileEntry:
    return FileEntry(
        path=PurePosixPath(f.path), sha256=f.sha256, blake3=blake3_of(store, f.sha256), size=f.size
    )


def _evidence(kind: str, data: bytes, store: Store) -> Evidence:
    sha256 = hashlib.sha256(data).hexdigest()
    if not store.has(sha256, len(data)):
        store.add_bytes(data)
    return Evidence(kind=kind, sha256=sha256, blake3=blake3_of(store, sha256), size=len(data))
