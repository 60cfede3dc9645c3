"""BLAKE3 of stored blobs, computed once and kept beside them. Derived data: delete it at will."""

from __future__ import annotations

import re
from pathlib import Path

from airgap import fsio
from airgap.errors import IntegrityError
from airgap.store import Store

_HEX = re.compile(r"[0-9a-f]{64}")


def blake3_of(store: Store, sha256: str) -> str:
    """BLAKE3 (64 hex digits) of the blob `sha256`, which must be in the store.

    Raises IntegrityError `store.missing` when it is not.
    """
    kept = store.root / "blake3" / sha256
    known = _read(kept)
    if known is None:
        known = _compute(store.blob_path(sha256))
        fsio.write(kept, known.encode("ascii"))
    return known


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
