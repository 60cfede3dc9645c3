"""The decision: is exactly this manifest approved, here and now?

Pure: bytes in, `Approved` or a TrustError out, and beside
either of them what was learned. The numbers follow docs/bundle-format.md section 6.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Root, Targets

from airgap.errors import SealiftError, TrustError
from airgap.format.manifest import Manifest
from airgap.format.policy import Policy
from airgap.trust.learn import learn_roots, learn_targets, root_of, targets_of
from airgap.trust.metadata import issued, revoked
from airgap.trust.refresh import Refreshed, refresh
from airgap.trust.state import Remembered
from airgap.trust.statements import Verdicts, count

DAY = 86_400


@dataclass(frozen=True)
class TrustFiles:
    """A bundle's trust folder in quarantine: memory, read once from the medium.

    `metadata`: TUF file name -> bytes; `statements`: envelopes; `target_path`, `target`: the one
    manifest and where it stood. `fault`: what is wrong with the folder itself; it refuses the
    bundle, but only after what the officers signed has been learned.
    """

    metadata: Mapping[str, bytes]
    statements: tuple[bytes, ...]
    target_path: str
    target: bytes
    fault: SealiftError | None = None


@dataclass(frozen=True)
class Approved:
    """A manifest that the officers approved. Only `decide` makes one."""

    manifest: Manifest
    digest: str
    verdicts: Verdicts
    root_version: int
    targets_version: int
    valid_until: int
    in_grace: bool


@dataclass(frozen=True)
class Decision:
    """What was learned (to be kept by `install`), and the outcome."""

    learned: Remembered
    outcome: Approved | SealiftError

    def approved(self) -> Approved:
        """The approval, or the error raised."""
        if isinstance(self.outcome, SealiftError):
            raise self.outcome
        return self.outcome


def decide(state: Remembered, files: TrustFiles, clock: int, policy: Policy) -> Decision:
    """Steps 3 to 6: judge a quarantined trust folder by what is remembered, the clock and the
    host's policy. What step 2 found wrong refuses after step 4.

    `clock` is the host's UTC time in seconds; the time used is never before the clock floor.
    """
    before = state
    state, stopped = learn_roots(state, files.metadata, policy.min_approvals)
    state, spoiled = learn_targets(state, files.metadata)
    refused = stopped or spoiled or files.fault
    if refused is not None:
        return Decision(state, refused)
    now = max(clock, state.clock_floor)
    try:
        return Decision(state, _judge(before, state, files, now, policy))
    except SealiftError as e:
        return Decision(state, e)


def _judge(
    before: Remembered,
    state: Remembered,
    files: TrustFiles,
    now: int,
    policy: Policy,
) -> Approved:
    # Grace covers the builder's timestamp and snapshot only: the officers' two are checked below
    # against the real time.
    found = refresh(before.root, files.metadata, now - policy.grace_days * DAY)
    root = root_of(state)
    if found.root.version != root.version:
        raise _mixed(f"the TUF client reached root {found.root.version}, we {root.version}")
    _check_nothing_else(files.metadata, found)
    targets = _judging_targets(state, found)
    valid_until = _check_validity(root, targets, found, now, policy)
    listed_as(targets, files.target_path, files.target)
    manifest = Manifest.from_bytes(files.target)
    if manifest.target_path != files.target_path:
        raise _mixed(f"the manifest at {files.target_path} says it is {manifest.target_path}")
    digest = hashlib.sha256(files.target).hexdigest()
    verdicts = count(root, digest, files.statements)
    check_not_after(manifest, now)
    in_grace = now >= min(_expiry(found.timestamp), _expiry(found.snapshot))
    return Approved(
        manifest=manifest,
        digest=digest,
        verdicts=verdicts,
        root_version=root.version,
        targets_version=targets.version,
        valid_until=min(valid_until, manifest.not_after),
        in_grace=in_grace,
    )


def _check_nothing_else(metadata: Mapping[str, bytes], found: Refreshed) -> None:
    """Step 5b: one unbroken root chain up to the newest, and one file of each other role.

    A root beyond a gap is a rotation that somebody keeps from this host.
    """
    newest = found.root.version
    known = {f"{v}.root.json" for v in range(1, newest + 1)}
    known |= {f"{s.version}.{s.type}.json" for s in (found.snapshot, found.targets)}
    extra = sorted(set(metadata) - known - {"timestamp.json"})
    if extra:
        raise _mixed(f"{extra[0]} belongs to nothing that root {newest} leads to")
    first = min((v for v in range(1, newest + 1) if f"{v}.root.json" in metadata), default=newest)
    for version in range(first, newest):
        if f"{version}.root.json" not in metadata:
            raise _mixed(f"{version}.root.json is missing from the root chain")


def _judging_targets(state: Remembered, found: Refreshed) -> Targets:
    """The newest officer-signed targets: the host's own when the bundle brings older ones."""
    own = targets_of(state)
    if own is None or own.version < found.targets.version:
        raise _mixed("the bundle's targets were not learned")
    return own


def listed_as(targets: Targets, path: str, data: bytes) -> None:
    """Step 6a: raise TrustError unless these bytes are the target `path`, listed and not
    revoked."""
    digest = hashlib.sha256(data).hexdigest()
    if digest in revoked(targets):
        raise TrustError(
            "trust.revoked",
            f"{path} was revoked by the officers (sha256 {digest[:12]})",
            why=f"targets {targets.version} revoke it",
            do="do not use this bundle; ask for a newer version",
        )
    info = targets.targets.get(path)
    if info is None:
        raise TrustError(
            "trust.not-listed",
            f"{path} is not approved",
            why=f"targets {targets.version} do not list it (sha256 {digest[:12]})",
            do="bring the bundle after `sealift collect` published its approval",
        )
    try:
        info.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as e:
        raise TrustError(
            "trust.not-listed",
            f"{path} is not the manifest that was approved",
            why=f"it has sha256 {digest[:12]}, targets {targets.version} list "
            f"{info.hashes.get('sha256', '?')[:12]}",
            do="copy the bundle again; if it is refused again, ask the builder for a new one",
        ) from e
    if "sha256" not in info.hashes:
        raise _mixed("targets list the manifest without a SHA-256")


def _check_validity(
    root: Root, targets: Targets, found: Refreshed, now: int, policy: Policy
) -> int:
    """Step 5c: the least of all ends, UTC seconds; officers' metadata has no grace."""
    grace = policy.grace_days * DAY
    ends = {
        f"root {root.version}": _expiry(root),
        f"targets {targets.version}": _expiry(targets),
        "the transit time set by the builder": min(
            _expiry(found.timestamp), _expiry(found.snapshot)
        )
        + grace,
        f"this host's limit of {policy.max_trust_age_days} days since officers last signed": issued(
            targets
        )
        + policy.max_trust_age_days * DAY,
    }
    first = min(ends, key=lambda k: ends[k])
    if now >= ends[first]:
        raise TrustError(
            "trust.expired",
            f"the approval is too old: {first} ended on {day(ends[first])}",
            why=f"the time here is {day(now)} (never earlier than the newest officers' signature)",
            do="ask the officers to sign again and the builder to pack again; "
            "check the host's clock too",
        )
    return ends[first]


def check_not_after(manifest: Manifest, now: int) -> None:
    """Step 6d: raise TrustError `trust.expired` when the manifest's own end is over."""
    if now >= manifest.not_after:
        raise TrustError(
            "trust.expired",
            f"{manifest.name} {manifest.version} may not be installed after "
            f"{day(manifest.not_after)}",
            why=f"the time here is {day(now)}",
            do="ask the builder for a newer version; check the host's clock too",
        )


def _expiry(signed: object) -> int:
    expires: datetime.datetime = signed.expires  # type: ignore[attr-defined]
    return int(expires.replace(tzinfo=datetime.timezone.utc).timestamp())


def day(seconds: int) -> str:
    """UTC seconds as a day, for people."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d")


def _mixed(why: str) -> TrustError:
    return TrustError(
        "trust.mixed",
        "the bundle's trust metadata does not belong together",
        why=why,
        do="copy the bundle again; if it is refused again, ask the builder for a new one",
    )
