"""What a host (or an officer's desk) remembers: officer-signed bytes only, in one file.

One file, replaced atomically, so that it is the old state or the new one and never half of each.
A damaged or missing file refuses; it is never taken for "nothing known yet".
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from airgap import fsio, limits
from airgap.errors import FormatError, TrustError
from airgap.format.codec import Document
from airgap.format.rules import Choice, Text
from airgap.format.statement import b64decode
from airgap.format.types import Seconds, Token

_B64 = Annotated[str, Text(r"[A-Za-z0-9+/]*={0,2}", 2 * limits.MAX_TARGETS_BYTES, "base64")]


@dataclass(frozen=True)
class Remembered:
    """The newest officer-signed root and targets that were ever valid here, as their bytes.

    `clock_floor`: the greatest `x-sealift-issued` ever seen, UTC seconds. `accept_solo`: a person
    on this host accepted solo mode; it lapses with the first root that is not solo.
    """

    holder: str
    root: bytes
    targets: bytes | None
    clock_floor: int
    accept_solo: bool = False

    def with_targets(self, data: bytes, issued: int) -> Remembered:
        """The same after newer targets."""
        return replace(self, targets=data, clock_floor=max(self.clock_floor, issued))

    def with_root(self, data: bytes, issued: int, *, solo: bool) -> Remembered:
        """The same after a newer root."""
        return replace(
            self,
            root=data,
            clock_floor=max(self.clock_floor, issued),
            accept_solo=self.accept_solo and solo,
        )


@dataclass(frozen=True, kw_only=True)
class _StateFile(Document):
    schema: Annotated[str, Choice(("sealift.trust-state/1",))] = "sealift.trust-state/1"
    holder: Token
    root: _B64
    targets: _B64 | None = None
    clock_floor: Seconds
    accept_solo: bool
    check: Annotated[str, Text(r"[0-9a-f]{64}", 64, "a SHA-256")]


def save(path: Path, state: Remembered) -> None:
    """Write durably."""
    targets = None if state.targets is None else base64.b64encode(state.targets).decode()
    fsio.write(
        path,
        _StateFile(
            holder=state.holder,
            root=base64.b64encode(state.root).decode(),
            targets=targets,
            clock_floor=state.clock_floor,
            accept_solo=state.accept_solo,
            check=_digest(state),
        ).to_bytes(),
        mode=0o600,
    )


def load(path: Path) -> Remembered:
    """Read and check. Raises TrustError `trust.none` (no file) or `trust.state-damaged`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as e:
        raise TrustError(
            "trust.none",
            "this place trusts nobody yet",
            why=f"{path} does not exist",
            do="compare root.json with the fingerprint sheet, then `airgap trust add root.json`; "
            "if trust had been added before, restore the file from a backup",
        ) from e
    except OSError as e:
        raise fsio.wrap_os_error(e, f"reading {path}") from e
    try:
        return _from_file(_StateFile.from_bytes(data))
    except FormatError as e:
        raise _damaged(path, e.why) from e


def _from_file(f: _StateFile) -> Remembered:
    targets = None if f.targets is None else b64decode(f.targets, "targets")
    state = Remembered(f.holder, b64decode(f.root, "root"), targets, f.clock_floor, f.accept_solo)
    if _digest(state) != f.check:
        raise FormatError("format.value", "check", "its own check sum does not match")
    return state


def _digest(s: Remembered) -> str:
    h = hashlib.sha256()
    for part in (s.holder.encode(), s.root, s.targets or b"", b"%d" % s.clock_floor):
        h.update(b"%d:" % len(part) + part)
    h.update(b"solo" if s.accept_solo else b"officers")
    return h.hexdigest()


def _damaged(path: Path, why: str) -> TrustError:
    return TrustError(
        "trust.state-damaged",
        "what this place remembers of its officers is damaged",
        why=f"{path}: {why}",
        do="restore the file from a backup; if there is none, set the host up again with a new "
        "--root, because an older state could bring back what was revoked",
    )
