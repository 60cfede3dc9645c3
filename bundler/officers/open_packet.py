"""Opens packets: one at a time, each exactly one change to what is published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Metadata, Root, Targets

from airgap.errors import TrustError, UsageError
from airgap.format.manifest import Manifest
from bundler.officers import packet as packets
from bundler.officers.packet import PacketFile, Staged
from bundler.officers.repository import Pending, Published, TrustRepository
from bundler.officers.staging import (
    ROOT_DAYS,
    TARGETS_DAYS,
    Roles,
    approve_manifest,
    first_targets,
    make_root,
    next_targets,
    revoke_manifest,
    to_bytes,
)


@dataclass(frozen=True)
class Change:
    """One change in words and in staged roles; `documents` are further files of the packet."""

    kind: str
    summary: str
    root: Root | None = None
    targets: Targets | None = None
    manifest: str | None = None
    report: str | None = None
    revokes: str | None = None


def open_init(repository: TrustRepository, folder: Path, roles: Roles, now: int) -> str:
    """Root 1 and empty targets 1, for the officers to sign."""
    if repository.exists():
        raise TrustError(
            "trust.exists",
            f"{repository.path} holds a published trust already",
            why="starting again would cut off every host that trusts it",
            do="use `sealift trust rotate` to change officers, or another --home",
        )
    change = Change(
        "init",
        f"new trust: {roles.threshold} of {len(roles.officers)} officers",
        root=make_root(1, roles, now),
        targets=first_targets(now),
    )
    return _open(repository, folder, change, None, {}, replace=True)


def open_manifest(
    repository: TrustRepository,
    folder: Path,
    manifest: bytes,
    documents: Mapping[str, bytes],
    now: int,
    *,
    replace: bool,
    days: int = TARGETS_DAYS,
) -> str:
    """Approve one manifest. `documents`: REVIEW.html and evidence/KIND.json."""
    parsed = Manifest.from_bytes(manifest)
    published = repository.published()
    targets = _next(repository, published, now, days)
    approve_manifest(targets, parsed.target_path, manifest)
    change = Change(
        "manifest",
        f"approve {parsed.name} {parsed.version}",
        targets=targets,
        manifest=hashlib.sha256(manifest).hexdigest(),
        report=hashlib.sha256(documents["REVIEW.html"]).hexdigest(),
    )
    files = {**documents, "manifest.json": manifest}
    return _open(repository, folder, change, published, files, replace=replace)


def open_revoke(
    repository: TrustRepository, folder: Path, sha256: str, now: int, *, replace: bool
) -> str:
    """Take one approved manifest back, for ever."""
    published = repository.published()
    targets = _next(repository, published, now, TARGETS_DAYS)
    revoke_manifest(targets, sha256)
    change = Change("revoke", f"revoke manifest {sha256[:16]}", targets=targets, revokes=sha256)
    return _open(repository, folder, change, published, {}, replace=replace)


def open_renew(repository: TrustRepository, folder: Path, now: int, *, replace: bool) -> str:
    """The same list with a new date."""
    published = repository.published()
    change = Change(
        "renew", "renew the list's date", targets=_next(repository, published, now, TARGETS_DAYS)
    )
    return _open(repository, folder, change, published, {}, replace=replace)


def open_rotate(
    repository: TrustRepository, folder: Path, roles: Roles, now: int, *, replace: bool
) -> str:
    """The next root, and the same list signed by its officers."""
    published = repository.published()
    change = Change(
        "rotate",
        f"officers become {roles.threshold} of {len(roles.officers)}",
        root=make_root(published.root.version + 1, roles, now, ROOT_DAYS),
        targets=_next(repository, published, now, TARGETS_DAYS),
    )
    return _open(repository, folder, change, published, {}, replace=replace)


def _next(repository: TrustRepository, published: Published, now: int, days: int) -> Targets:
    base = published.targets_signed
    version = base.version + 1
    pending = repository.pending()
    taken = {*pending.abandoned, *([pending.targets_version] if pending.packet else [])}
    while version in taken:
        version += 1
    return next_targets(base, version, now, days)


def _open(
    repository: TrustRepository,
    folder: Path,
    change: Change,
    published: Published | None,
    documents: Mapping[str, bytes],
    *,
    replace: bool,
) -> str:
    """Write the packet and remember that it is open. Returns its SHA-256."""
    pending = repository.pending()
    if pending.packet is not None and not replace:
        raise UsageError(
            "trust.packet-open",
            "another packet is open",
            why=f"packet {pending.packet[:12]} stages targets {pending.targets_version}",
            do="collect it first, or give it up with --replace: its version is then never used",
        )
    abandoned = tuple(sorted({*pending.abandoned, *_given_up(pending)}))
    staged: dict[str, bytes] = {}
    if change.root is not None:
        staged["root"] = to_bytes(Metadata(change.root))
    if change.targets is not None:
        staged["targets"] = to_bytes(Metadata(change.targets))
    file = PacketFile(
        kind=change.kind,
        summary=change.summary,
        staged=tuple(_staged(role, data, change) for role, data in sorted(staged.items())),
        abandoned=abandoned if published else (),
        base_targets=hashlib.sha256(published.targets).hexdigest() if published else None,
        manifest=change.manifest,
        report=change.report,
        revokes=change.revokes,
    )
    base = published.files() if published else {}
    digest = packets.write(folder, file, base, staged, documents)
    version = change.targets.version if change.targets else None
    repository.set_pending(Pending(packet=digest, targets_version=version, abandoned=abandoned))
    return digest


def _given_up(pending: Pending) -> tuple[int, ...]:
    return () if pending.targets_version is None else (pending.targets_version,)


def _staged(role: str, data: bytes, change: Change) -> Staged:
    signed = change.root if role == "root" else change.targets
    version = signed.version if signed else 0
    return Staged(role=role, version=version, sha256=hashlib.sha256(data).hexdigest())
