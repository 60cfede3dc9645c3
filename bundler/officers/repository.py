"""The trust repository: a plain folder, fit for git, with one publisher.

    metadata/   N.root.json N.targets.json N.snapshot.json timestamp.json (TUF 1.0)
    approved/SHA256-OF-MANIFEST/   manifest.json REVIEW.html statements/*.dsse.json
    pending.json    which versions are staged or were abandoned

timestamp.json is written last: until then a reader sees the state before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tuf.api.metadata import Metadata, Root, Targets

from airgap import fsio, limits
from airgap.errors import TrustError, UsageError
from airgap.format.codec import Document
from airgap.format.rules import Choice, Range
from airgap.format.types import Sha256
from airgap.trust.metadata import parse

_NAME = re.compile(r"([1-9][0-9]{0,9})\.(root|targets|snapshot)\.json")


@dataclass(frozen=True, kw_only=True)
class Pending(Document):
    """The open packet, and versions of targets that were staged and abandoned: an officer may
    have signed those, so their numbers are never used again."""

    schema: Annotated[str, Choice(("sealift.pending/1",))] = "sealift.pending/1"
    packet: Sha256 | None = None
    targets_version: Annotated[int, Range(1)] | None = None
    abandoned: tuple[int, ...] = ()


@dataclass(frozen=True)
class Published:
    """What the repository publishes now: bytes as they lie there."""

    roots: dict[int, bytes]
    targets: bytes
    snapshot: bytes
    timestamp: bytes

    @property
    def root(self) -> Root:
        """The newest root."""
        return parse(self.roots[max(self.roots)], Root, limits.MAX_ROOT_BYTES).signed

    @property
    def targets_signed(self) -> Targets:
        """The newest targets."""
        return parse(self.targets, Targets, limits.MAX_TARGETS_BYTES).signed

    def files(self) -> dict[str, bytes]:
        """File name -> bytes of everything a bundle carries: the whole root chain, and the
        newest of each other role."""
        out = {f"{v}.root.json": d for v, d in self.roots.items()}
        out[f"{self.targets_signed.version}.targets.json"] = self.targets
        snapshot = Metadata.from_bytes(self.snapshot).signed
        out[f"{snapshot.version}.snapshot.json"] = self.snapshot
        out["timestamp.json"] = self.timestamp
        return out


class TrustRepository:
    """The folder at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = path / "metadata"

    def exists(self) -> bool:
        """Whether something was published."""
        return (self.metadata / "timestamp.json").exists()

    def published(self) -> Published:
        """Read the current state. Raises UsageError `trust.not-set-up` when there is none."""
        if not self.exists():
            raise UsageError(
                "trust.not-set-up",
                f"{self.path} holds no published trust",
                why="no root was signed by enough officers and collected yet",
                do="`sealift trust init`, then `sealift approve` by the officers and "
                "`sealift collect`; alone: `sealift trust init --solo`",
            )
        newest: dict[str, int] = {}
        roots: dict[int, bytes] = {}
        for version, role, path in self._versions():
            newest[role] = max(version, newest.get(role, 0))
            if role == "root":
                roots[version] = path.read_bytes()
        timestamp = (self.metadata / "timestamp.json").read_bytes()
        snapshot_version = Metadata.from_bytes(timestamp).signed.snapshot_meta.version  # type: ignore[attr-defined]
        snapshot = self._read(snapshot_version, "snapshot")
        targets_version = Metadata.from_bytes(snapshot).signed.meta["targets.json"].version  # type: ignore[attr-defined]
        return Published(roots, self._read(targets_version, "targets"), snapshot, timestamp)

    def _read(self, version: int, role: str) -> bytes:
        path = self.metadata / f"{version}.{role}.json"
        try:
            return path.read_bytes()
        except OSError as e:
            raise TrustError(
                "trust.repository-damaged",
                "the trust repository is damaged",
                why=f"{path} cannot be read ({e.strerror})",
                do="restore the folder from its backup or from git",
            ) from e

    def _versions(self) -> Iterator[tuple[int, str, Path]]:
        for path in sorted(self.metadata.iterdir()):
            m = _NAME.fullmatch(path.name)
            if m:
                yield int(m[1]), m[2], path

    def publish(self, files: dict[str, bytes]) -> None:
        """Write metadata files; timestamp.json last, as the point where they become current."""
        fsio.sweep(self.metadata)
        for name in sorted(files, key=lambda n: n == "timestamp.json"):
            fsio.write(self.metadata / name, files[name])

    def approved(self, manifest_sha256: str) -> Path:
        """The folder of an approved manifest."""
        return self.path / "approved" / manifest_sha256

    def keep_approved(self, manifest: bytes, report: bytes, statements: dict[str, bytes]) -> None:
        """Keep what a later pack needs: manifest, report, and every officer's statement.

        Exactly these: a killed run may have kept a statement that its officer made anew since, and
        nobody may make two.
        """
        folder = self.approved(hashlib.sha256(manifest).hexdigest())
        for old in (folder / "statements").glob("*.json"):
            if old.name not in statements:
                old.unlink()
        for place in (folder, folder / "statements"):
            fsio.sweep(place)
        fsio.write(folder / "manifest.json", manifest)
        fsio.write(folder / "REVIEW.html", report)
        for name, data in statements.items():
            fsio.write(folder / "statements" / name, data)

    def pending(self) -> Pending:
        """The open packet, if any."""
        try:
            return Pending.from_bytes((self.path / "pending.json").read_bytes())
        except FileNotFoundError:
            return Pending()

    def set_pending(self, pending: Pending) -> None:
        """Remember what is staged."""
        fsio.sweep(self.path)
        fsio.write(self.path / "pending.json", pending.to_bytes())
