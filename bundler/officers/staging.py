"""Makes the next root or targets, unsigned, from the published one and one change."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from securesystemslib.signer import SSlibKey
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from airgap.errors import UsageError
from airgap.trust.decide import DAY
from airgap.trust.metadata import ISSUED, REVOKED, SOLO, issued, revoked

# Days that signed metadata is valid unless the command says otherwise.
ROOT_DAYS = 365
TARGETS_DAYS = 180
TRANSIT_DAYS = 60


@dataclass(frozen=True)
class Roles:
    """Who is in a root: officers decide by `threshold`, the builder keeps time."""

    officers: Sequence[SSlibKey]
    builder: SSlibKey
    threshold: int
    solo: bool = False


def when(seconds: int) -> datetime.datetime:
    """UTC seconds as TUF wants them."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def to_bytes(metadata: Metadata[Root] | Metadata[Targets]) -> bytes:
    """The file's bytes: compact JSON with sorted keys."""
    return metadata.to_bytes(JSONSerializer(compact=True))


def make_root(version: int, roles: Roles, now: int, days: int = ROOT_DAYS) -> Root:
    """A root with our fields. Its rules are checked when officers see it."""
    if roles.threshold > len(roles.officers):
        raise UsageError(
            "trust.threshold-too-high",
            f"a threshold of {roles.threshold} cannot be met",
            why=f"there are {len(roles.officers)} officers",
            do="name more officers or a lower --threshold",
        )
    ids = [k.keyid for k in roles.officers]
    fields: dict[str, object] = {ISSUED: now}
    if roles.solo:
        fields[SOLO] = True
    return Root(
        version=version,
        expires=when(now + days * DAY),
        keys={k.keyid: k for k in (roles.builder, *roles.officers)},
        roles={
            "root": Role(list(ids), roles.threshold),
            "targets": Role(list(ids), roles.threshold),
            "snapshot": Role([roles.builder.keyid], 1),
            "timestamp": Role([roles.builder.keyid], 1),
        },
        consistent_snapshot=True,
        unrecognized_fields=fields,
    )


def first_targets(now: int, days: int = TARGETS_DAYS) -> Targets:
    """Targets 1: nothing is approved, nothing revoked."""
    return Targets(
        version=1, expires=when(now + days * DAY), unrecognized_fields={ISSUED: now, REVOKED: []}
    )


def next_targets(base: Targets, version: int, now: int, days: int = TARGETS_DAYS) -> Targets:
    """The published targets under a new version, issue time and expiry; nothing else changed."""
    out = copy.deepcopy(base)
    out.version = version
    out.expires = when(now + days * DAY)
    out.unrecognized_fields[ISSUED] = max(now, issued(base) + 1)
    return out


def approve_manifest(targets: Targets, path: str, data: bytes) -> None:
    """List a manifest. A path is never given a second content: that needs a new version."""
    new = TargetFile.from_data(path, data, ["sha256"])
    old = targets.targets.get(path)
    if old is not None and old.hashes != new.hashes:
        raise UsageError(
            "trust.version-taken",
            f"{path} is approved already, with another content",
            why=f"sha256 {old.hashes.get('sha256', '?')[:12]} is listed, this is "
            f"{new.hashes['sha256'][:12]}",
            do="give the request a new `version`",
        )
    if new.hashes["sha256"] in revoked(targets):
        raise UsageError(
            "trust.revoked",
            f"{path} was revoked and cannot be approved again",
            why="a revocation is never taken back",
            do="give the request a new `version`",
        )
    targets.targets[path] = new


def revoke_manifest(targets: Targets, sha256: str) -> None:
    """Take a manifest off the list and put it on the revoked list, for ever."""
    paths = [p for p, t in targets.targets.items() if t.hashes.get("sha256") == sha256]
    if not paths and sha256 not in revoked(targets):
        raise UsageError(
            "trust.not-listed",
            f"no approved manifest has sha256 {sha256[:16]}",
            why="only what was approved can be revoked",
            do="see `sealift trust show`",
        )
    for path in paths:
        del targets.targets[path]
    targets.unrecognized_fields[REVOKED] = sorted(revoked(targets) | {sha256})


def make_snapshot(targets: bytes, targets_version: int, version: int, expires: int) -> Snapshot:
    """The builder's snapshot over exactly these targets."""
    meta = MetaFile.from_data(targets_version, targets, ["sha256"])
    return Snapshot(version=version, expires=when(expires), meta={"targets.json": meta})


def make_timestamp(snapshot: bytes, snapshot_version: int, version: int, expires: int) -> Timestamp:
    """The builder's timestamp over exactly this snapshot."""
    meta = MetaFile.from_data(snapshot_version, snapshot, ["sha256"])
    return Timestamp(version=version, expires=when(expires), snapshot_meta=meta)
