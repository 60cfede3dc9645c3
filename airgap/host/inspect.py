"""Looks at a bundle with this host's eyes: its trust, its policy, its clock."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from airgap import carrier, policy, verify
from airgap.errors import TrustError
from airgap.events import Line, Sink, Warn
from airgap.format import layout
from airgap.format.artifacts import Model, Wheels
from airgap.format.manifest import Manifest
from airgap.host import ledger
from airgap.host.paths import HostPaths
from airgap.store import wrong_digest
from airgap.trust import state as trust_state
from airgap.trust.decide import Approved, Decision, day, listed_as
from airgap.trust.learn import targets_of
from airgap.trust.state import Remembered
from airgap.verify import Payload


def clock() -> int:
    """The host's UTC time in seconds."""
    return int(time.time())


def verify_bundle(paths: HostPaths, bundle: Path, sink: Sink) -> Payload:
    """All checks of an install, reading every byte, remembering nothing."""
    bundle = carrier.find_bundle(bundle)
    rules = policy.load(paths.policy)
    state = trust_state.load(paths.trust)
    found, decision = verify.read_trust(bundle, state, rules, clock())
    approved = decision.approved()
    warn_grace(approved, sink)
    verify.check_policy(rules, approved.manifest)
    payload = verify.check_shape(found, bundle, approved)
    verify.hash_payload(payload, sink)
    now = max(clock(), decision.learned.clock_floor)
    verify.check_evidence(rules, approved.manifest, bundle / layout.BLOBS, now)
    return payload


def inspect_bundle(paths: HostPaths, bundle: Path, sink: Sink) -> Payload:
    """Approval, policy, exact names and sizes: what can be said without reading the payload."""
    bundle = carrier.find_bundle(bundle)
    rules = policy.load(paths.policy)
    state = trust_state.load(paths.trust)
    found, decision = verify.read_trust(bundle, state, rules, clock())
    approved = decision.approved()
    warn_grace(approved, sink)
    verify.check_policy(rules, approved.manifest)
    return verify.check_shape(found, bundle, approved)


def learn(paths: HostPaths, bundle: Path, sink: Sink) -> tuple[Payload, Decision]:
    """As far as shape: what the officers signed is kept even when the bundle is refused."""
    rules = policy.load(paths.policy)
    state = trust_state.load(paths.trust)
    found, decision = verify.read_trust(bundle, state, rules, clock())
    keep(paths, state, decision.learned)
    approved = decision.approved()
    warn_grace(approved, sink)
    if approved.in_grace:
        ledger.append(paths.ledger, "grace-used", {"manifest": approved.digest})
    verify.check_policy(rules, approved.manifest)
    return verify.check_shape(found, bundle, approved), decision


def keep(paths: HostPaths, before: Remembered, after: Remembered) -> None:
    """Remember newer officer-signed state, with a line in the ledger before."""
    if after == before:
        return
    targets = targets_of(after)
    entry = {"targets": str(targets.version if targets else 0), "floor": str(after.clock_floor)}
    ledger.append(paths.ledger, "trust-learned", entry)
    trust_state.save(paths.trust, after)


def warn_grace(approved: Approved, sink: Sink) -> None:
    """Say it when only the policy's grace period still admits a bundle."""
    if approved.in_grace:
        text = "the builder's transit time is over; this host's policy grants grace"
        sink(Warn("trust.grace", text))


def still_approved(paths: HostPaths, manifest: Manifest, digest: str) -> None:
    """Raise TrustError when the officers' newest list, as this host knows it, no longer has it.

    The manifest's own end and the metadata's expiry bound installing, not running.
    """
    data = manifest.to_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise wrong_digest(manifest.target_path, hashlib.sha256(data).hexdigest(), digest)
    state = trust_state.load(paths.trust)
    targets = targets_of(state)
    if targets is None:
        raise TrustError(
            "trust.not-listed",
            f"{manifest.target_path} is not approved",
            why="this host has seen no list of approved manifests",
            do="install from a bundle",
        )
    listed_as(targets, manifest.target_path, data)


def describe(approved: Approved) -> tuple[Line, ...]:
    """Trust and bundle in two lines, for people."""
    v, m = approved.verdicts, approved.manifest
    when = max(s.predicate.time_verified[:10] for s in v.passed.values())
    against = f"; refused by {', '.join(sorted(v.failed))}" if v.failed else ""
    trust = (
        f"root {approved.root_version}; approved by {', '.join(sorted(v.passed))} "
        f"({len(v.passed)} of {len(v.officers)}, need {v.threshold}) on {when}{against}, "
        f"good until {day(approved.valid_until)}"
    )
    models = sum(isinstance(a, Model) for a in m.artifacts)
    wheels = sum(len(a.files) for a in m.artifacts if isinstance(a, Wheels))
    files = sum(len(a.files) for a in m.artifacts)
    size = sum(b.size for b in m.blobs())
    text = (
        f"{m.name} {m.version}, {files} files, {size:,} bytes, "
        f"{models} {'model' if models == 1 else 'models'}, {wheels} wheels"
    )
    lines = [Line("trust", trust), Line("bundle", text)]
    if m.handling:
        lines.append(Line("handling", m.handling))
    return tuple(lines)
