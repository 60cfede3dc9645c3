"""Lock and evidence become the manifest: a pure function of both, so the same lock, policy and tool
versions give the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from airgap import fsio, limits
from airgap.format import chat_template
from airgap.format.artifacts import (
    Adapter,
    Artifact,
    Image,
    LockedAdapter,
    LockedArtifact,
    LockedFile,
    LockedImage,
    LockedModel,
    LockedPlainFiles,
    LockedWheels,
    Model,
    PlainFiles,
    Wheels,
)
from airgap.format.lock import Lock
from airgap.format.manifest import Evidence, Manifest
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


def _artifact(locked: LockedArtifact, store: Store) -> Artifact:
    """The manifest's artifact has the lock's fields, but for what only the files themselves say."""
    files = tuple(_entry(f, store) for f in locked.files)
    shared = {
        f.name: getattr(locked, f.name) for f in dataclasses.fields(locked) if f.name != "files"
    }
    if isinstance(locked, LockedModel):
        return Model(**shared, files=files, chat_template=_chat_template(files, store))
    if isinstance(locked, LockedWheels):
        return Wheels(**shared, files=files, newest=_newest(locked))
    same: Artifact = _SAME_FIELDS[type(locked)](**shared, files=files)
    return same


_SAME_FIELDS: dict[type, Any] = {
    LockedAdapter: Adapter,
    LockedImage: Image,
    LockedPlainFiles: PlainFiles,
}


def _newest(wheels: LockedWheels) -> int | None:
    """Upload time of the youngest wheel whose index tells one, None where none tells: a local wheel
    beside it must not hide a release of yesterday."""
    return max((f.uploaded for f in wheels.files if f.uploaded is not None), default=None)


def _chat_template(files: tuple[FileEntry, ...], store: Store) -> str | None:
    """SHA-256 of the model's chat template, where it has one."""
    sources = {
        str(f.path): _small(store.blob_path(f.sha256))
        for f in files
        if str(f.path) in chat_template.SOURCES
    }
    text = chat_template.find(sources)
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def _small(blob: Path) -> bytes:
    with fsio.disk_errors(f"reading {blob}"), open(blob, "rb") as f:
        return f.read(limits.MAX_DOCUMENT_BYTES)


def _entry(f: LockedFile, store: Store) -> FileEntry:
    return FileEntry(
        path=PurePosixPath(f.path), sha256=f.sha256, blake3=blake3_of(store, f.sha256), size=f.size
    )


def _evidence(kind: str, data: bytes, store: Store) -> Evidence:
    sha256 = hashlib.sha256(data).hexdigest()
    if not store.has(sha256, len(data)):
        store.add_bytes(data)
    return Evidence(kind=kind, sha256=sha256, blake3=blake3_of(store, sha256), size=len(data))
