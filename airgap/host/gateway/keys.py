"""The keys that the gateway takes. A key is shown once, when it is made; the host keeps hashes.

A key is 256 random bits, so its plain SHA-256 cannot be turned back by trying.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from airgap import fsio, limits
from airgap.errors import FormatError, IntegrityError, UsageError
from airgap.format.codec import Document
from airgap.format.rules import Choice
from airgap.format.types import Name, Seconds, Sha256
from airgap.host import launch, ledger
from airgap.host.paths import HostPaths

PREFIX = "sk-airgap-"


@dataclass(frozen=True, kw_only=True)
class Key(Document):
    """Who may ask: a name for people and the SHA-256 of the key."""

    name: Name
    sha256: Sha256
    created: Seconds


@dataclass(frozen=True, kw_only=True)
class Keys(Document):
    """`keys.json`, mode 0600."""

    schema: Annotated[str, Choice(("sealift.keys/1",))] = "sealift.keys/1"
    keys: tuple[Key, ...] = ()


def load(path: Path) -> Keys:
    """All keys; none when there is no file. Raises IntegrityError `keys.damaged`."""
    data = fsio.read_if_there(path, limits.MAX_DOCUMENT_BYTES + 1)
    try:
        return Keys() if data is None else Keys.from_bytes(data)
    except FormatError as e:
        raise IntegrityError(
            "keys.damaged",
            f"{path} is not well-formed",
            why=e.why,
            do="move it away and make the keys anew with `airgap keys add NAME`",
        ) from e


def add(paths: HostPaths, name: str) -> str:
    """Make a key; returns it, and nobody can show it again. The caller holds the host's lock."""
    have = load(paths.keys)
    if any(k.name == name for k in have.keys):
        raise UsageError(
            "keys.name-taken",
            f"there is a key called {name} already",
            why="each key has its own name, so that one can be revoked",
            do=f"choose another name, or `airgap keys revoke {name}` first",
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    new = Key(name=name, sha256=_hash(secret), created=int(time.time()))
    ledger.append(paths.ledger, "key-added", {"name": name})
    _write(paths, (*have.keys, new))
    return secret


def revoke(paths: HostPaths, name: str) -> None:
    """The next request with that key is refused. The caller holds the host's lock."""
    have = load(paths.keys)
    if not any(k.name == name for k in have.keys):
        raise UsageError(
            "keys.unknown",
            f"there is no key called {name}",
            why=f"there are {', '.join(k.name for k in have.keys) or 'none'}",
            do="see `airgap keys list`",
        )
    _write(paths, tuple(k for k in have.keys if k.name != name))
    ledger.append(paths.ledger, "key-revoked", {"name": name})


def _write(paths: HostPaths, keys: tuple[Key, ...]) -> None:
    fsio.write(paths.keys, Keys(keys=keys).to_bytes(), 0o600)
    launch.give_to_door(paths, paths.keys)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class Ring:
    """The keys as a running door holds them: read again when the file is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys = Keys()

    def whose(self, secret: str) -> str | None:
        """The name of that key, or None. Raises SealiftError when the file cannot be read."""
        self._refresh()
        digest = _hash(secret)
        found = None
        for k in self._keys.keys:
            if hmac.compare_digest(k.sha256, digest):
                found = k.name
        return found

    def _refresh(self) -> None:
        try:
            st = self._path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, Keys()
            return
        now = (st.st_mtime_ns, st.st_ino, st.st_size)
        if now != self._seen:
            self._keys = load(self._path)
            self._seen = now
