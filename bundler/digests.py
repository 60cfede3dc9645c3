"""Other names of stored blobs, beside them: BLAKE3, and SHA-256 by git blob id.

Derived data: delete it at will. A power cut may lose an entry or leave an empty one, which reads as
none; so many small entries need no fsync of their own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from airgap import fsio
from airgap.errors import IntegrityError
from airgap.store import Digests, Store

BLAKE3 = "blake3"
GIT = "git"
_HEX = re.compile(r"[0-9a-f]{64}")


def blake3_of(store: Store, sha256: str) -> str:
    """BLAKE3 (64 hex digits) of the blob `sha256`, which must be in the store.

    Raises IntegrityError `store.missing` when it is not.
    """
    known = _read(store.root / BLAKE3 / sha256)
    if known is None:
        known = _compute(store.blob_path(sha256))
        keep_blake3(store, sha256, known)
    return known


def keep_blake3(store: Store, sha256: str, blake3: str) -> None:
    """Remember the BLAKE3 of a blob that was hashed on its way into the store."""
    _keep(store.root / BLAKE3 / sha256, blake3)


def keep_git(store: Store, key: str, sha256: str) -> None:
    """Remember which blob has the git blob id that `key` names."""
    _keep(store.root / GIT / key, sha256)


def by_git(store: Store, key: str, size: int) -> Digests | None:
    """The stored blob that has that git blob id, if it is known and there."""
    sha256 = _read(store.root / GIT / key)
    if sha256 is None or not store.has(sha256, size):
        return None
    return Digests(sha256, size)


def _keep(place: Path, text: str) -> None:
    fsio.make_dirs(place.parent)
    temp = fsio.temp_name(place.parent)
    with fsio.disk_errors(f"writing {place}"):
        temp.write_text(text, "ascii")
        os.rename(temp, place)


def _read(kept: Path) -> str | None:
    try:
        text = kept.read_text("ascii", errors="replace")
    except FileNotFoundError:
        return None
    return text if _HEX.fullmatch(text) else None


def _compute(blob: Path) -> str:
    import blake3

    if not blob.is_file():
        raise IntegrityError(
            "store.missing",
            f"the blob {blob.name} is not in the store",
            why="it was never fetched, or it was removed",
            do="run `sealift fetch` again",
        )
    digest = blake3.blake3(max_threads=blake3.blake3.AUTO)
    with fsio.disk_errors(f"reading {blob}"):
        digest.update_mmap(blob)
    return digest.hexdigest()
