"""Other names of stored blobs, beside them: BLAKE3, and SHA-256 by git blob id.

Derived data: delete it at will. A power cut may lose an entry or leave an empty one, which reads as
none; so many small entries need no fsync of their own. A BLAKE3 is kept for large blobs only: a
small one is hashed in less time than a file of its own takes. All git blob ids stand in one file, a
line each, `KEY SHA256`; lines are only ever added, and what is no such line is none.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from airgap import fsio, limits
from airgap.errors import IntegrityError
from airgap.store import Store, wrong_digest

# Up to this size, in bytes, a BLAKE3 is computed when it is asked for.
SMALL_BYTES = limits.MIB

BLAKE3 = "blake3"
GIT = "git"
_NAMES = "names"
# A million lines; what lies beyond is fetched anew.
_MAX_NAMES_BYTES = 128 * limits.MIB
_HEX = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(rb"^(git-[0-9a-f]{40}-[0-9]{1,16}) ([0-9a-f]{64})$", re.MULTILINE)


def blake3_of(store: Store, sha256: str) -> str:
    """BLAKE3 (64 hex digits) of the blob `sha256`, which must be in the store.

    Raises IntegrityError `store.missing` when it is not.
    """
    known = _read(store.root / BLAKE3 / sha256)
    if known is not None:
        return known
    blob = store.blob_path(sha256)
    if not blob.is_file():
        raise _missing(sha256)
    if blob.stat().st_size <= SMALL_BYTES:
        return _of_small(blob)
    computed = _compute(blob)
    keep_blake3(store, sha256, computed)
    return computed


def keep_blake3(store: Store, sha256: str, blake3: str) -> None:
    """Remember the BLAKE3 of a blob that was hashed on its way into the store."""
    _keep(store.root / BLAKE3 / sha256, blake3)


def keep_git(store: Store, sha256: Mapping[str, str]) -> None:
    """Remember which blobs have the git blob ids that the keys name. Under the fetch's lock."""
    if not sha256:
        return
    # A new line first: what a power cut left of the last one spoils no other.
    text = "\n" + "".join(f"{key} {name}\n" for key, name in sha256.items())
    file = git_file(store)
    fsio.make_dirs(file.parent)
    with fsio.disk_errors(f"writing {file}"), open(file, "ab") as f:
        f.write(text.encode("ascii"))


def git_file(store: Store) -> Path:
    """Where the git blob ids stand."""
    return store.root / GIT / _NAMES


def git_names(store: Store) -> dict[str, str]:
    """SHA-256 by key, of every git blob id that is known; whether the blobs are there is another
    question."""
    data = fsio.read_if_there(git_file(store), _MAX_NAMES_BYTES) or b""
    return {key.decode(): name.decode() for key, name in _NAME.findall(data)}


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


def _of_small(blob: Path) -> str:
    """In one pass with its SHA-256: what is computed late must not be of other bytes."""
    import blake3

    with fsio.disk_errors(f"reading {blob}"):
        data = blob.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != blob.name:
        raise wrong_digest("a blob of the store", sha256, blob.name)
    return blake3.blake3(data).hexdigest()


def _compute(blob: Path) -> str:
    import blake3

    digest = blake3.blake3(max_threads=blake3.blake3.AUTO)
    with fsio.disk_errors(f"reading {blob}"):
        digest.update_mmap(blob)
    return digest.hexdigest()


def _missing(sha256: str) -> IntegrityError:
    return IntegrityError(
        "store.missing",
        f"the blob {sha256} is not in the store",
        why="it was never fetched, or it was removed",
        do="run `sealift fetch` again",
    )
