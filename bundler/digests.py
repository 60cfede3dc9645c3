"""Other names of stored blobs, beside them: BLAKE3, and SHA-256 by git blob id.

Derived data: delete it at will. A power cut may lose an entry or leave an empty one, which reads as
none; so many small entries need no fsync of their own. A BLAKE3 is kept for large blobs only: a
small one is hashed in less time than a file of its own takes. The git blob id is the name of a
symbolic link to the blob: one call makes it, and it takes no block of the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from airgap import fsio, limits
from airgap.errors import IntegrityError
from airgap.store import Digests, Store, wrong_digest

# Up to this size, in bytes, a BLAKE3 is computed when it is asked for.
SMALL_BYTES = limits.MIB

BLAKE3 = "blake3"
GIT = "git"
_HEX = re.compile(r"[0-9a-f]{64}")


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


def keep_git(store: Store, key: str, sha256: str) -> None:
    """Remember which blob has the git blob id that `key` names."""
    place, target = store.root / GIT / key, f"../blobs/sha256/{sha256}"
    with fsio.disk_errors(f"writing {place}"):
        try:
            os.symlink(target, place)
        except FileNotFoundError:
            fsio.make_dirs(place.parent)
            os.symlink(target, place)
        except FileExistsError:
            temp = fsio.temp_name(place.parent)
            os.symlink(target, temp)
            os.rename(temp, place)


def git_target(place: Path) -> str | None:
    """The SHA-256 that an entry of the folder `git` stands for; None when it is none."""
    try:
        sha256 = os.path.basename(os.readlink(place))
    except OSError:
        return None
    return sha256 if _HEX.fullmatch(sha256) else None


def by_git(store: Store, key: str, size: int) -> Digests | None:
    """The stored blob that has that git blob id, if it is known and there."""
    sha256 = git_target(store.root / GIT / key)
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
