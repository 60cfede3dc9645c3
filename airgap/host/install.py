"""Install: check, fit, take in, stage, start beside, smoke-test, switch, receipt.

Kill it anywhere and run it again. A refusal leaves what served serving, and of the bundle nothing
but what the officers signed (docs/bundle-format.md section 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airgap import carrier, fsio, limits, policy, verify
from airgap.errors import SealiftError, TrustError
from airgap.events import Line, Sink, Warn, silent
from airgap.format.manifest import Manifest
from airgap.format.receipt import CheckResult, Receipt
from airgap.host import launch, ledger, receipts
from airgap.host.activate import activate, versions
from airgap.host.deployment import load
from airgap.host.inspect import clock, describe, learn, still_approved, verify_bundle
from airgap.host.paths import HostPaths
from airgap.host.preflight import preflight
from airgap.host.stage import stage
from airgap.importer import import_blobs, import_evidence
from airgap.store import Store
from airgap.trust import state as trust_state
from airgap.verify import Installed, Payload


@dataclass(frozen=True)
class Options:
    """What the person asked for. `uv`: the installer to use; `kit`: a folder that may hold one.
    `supervisor`, `usual_root`: see airgap.host.launch.choose."""

    downgrade: bool = False
    adopt: bool = False
    uv: Path | None = None
    kit: Path | None = None
    probation_seconds: int = limits.PROBATION_SECONDS
    supervisor: str | None = None
    usual_root: bool = False


def dry_run(paths: HostPaths, bundle: Path, options: Options, sink: Sink = silent) -> Payload:
    """Everything that install checks, every byte read, nothing written."""
    payload = verify_bundle(paths, bundle, sink)
    _say_what(payload, sink)
    _check_release(paths, payload.approved.manifest, options)
    preflight(paths, payload.approved.manifest, sink)
    return payload


def install(
    paths: HostPaths, bundle: Path, options: Options = Options(), sink: Sink = silent
) -> Receipt:
    """Install a bundle and serve it. Raises the SealiftError of the step that refused."""
    if not paths.root.is_dir():
        trust_state.load(paths.trust)  # says that this host trusts nobody yet; makes no folder
    with paths.exclusive("airgap install"):
        bundle = carrier.find_bundle(bundle)
        payload, decision = learn(paths, bundle, sink)
        manifest = payload.approved.manifest
        _say_what(payload, sink)
        _check_release(paths, manifest, options)
        preflight(paths, manifest, sink)
        _note_approval(paths, payload)
        _take_in(paths, payload, decision.learned.clock_floor, options, sink)
        checks = _bring_up(paths, payload, options, sink)
        judge_all(paths, sink)
        receipt = receipts.write(paths, manifest, payload.approved.digest, checks, clock())
        sink(Line("receipt", receipt.code))
        return receipt


def _note_approval(paths: HostPaths, payload: Payload) -> None:
    """Who approved it, for `airgap status`: the statements themselves stay in the bundle."""
    approved = payload.approved
    data = {"manifest": approved.digest, "by": ", ".join(sorted(approved.verdicts.passed))[:300]}
    if ledger.last(ledger.read(paths.ledger), "approved", **data) is None:
        ledger.append(paths.ledger, "approved", data)


def _say_what(payload: Payload, sink: Sink) -> None:
    for line in describe(payload.approved):
        sink(line)


def _check_release(paths: HostPaths, manifest: Manifest, options: Options) -> None:
    installed = _installed(paths, manifest.name)
    rules = policy.load(paths.policy)
    verify.check_release(rules, manifest, installed, downgrade=options.downgrade)


def _installed(paths: HostPaths, name: str) -> Installed | None:
    version = paths.current_version(name)
    if version is None:
        return None
    manifest = load(paths, name, version).manifest
    return Installed(manifest.version, manifest.release)


def _take_in(paths: HostPaths, payload: Payload, floor: int, options: Options, sink: Sink) -> None:
    """Small documents first, then evidence and the host's judgement of it, then everything."""
    store = Store(paths.store)
    manifest, digest = payload.approved.manifest, payload.approved.digest
    verify.hash_documents(payload)
    import_evidence(payload, store)
    rules = policy.load(paths.policy)
    verify.check_evidence(rules, manifest, store.blobs, max(clock(), floor))
    installed = _installed(paths, manifest.name)
    if installed is not None and manifest.release < installed.release:
        entry = {"from": installed.version, "to": manifest.version, "name": manifest.name}
        ledger.append(paths.ledger, "downgrade", entry)
    done = import_blobs(payload, store, sink, adopt=options.adopt)
    if done.copied:
        entry = {"manifest": digest, "bytes": str(done.copied)}
        ledger.append(paths.ledger, "imported", entry)
    store.discard_incoming()


def _bring_up(
    paths: HostPaths, payload: Payload, options: Options, sink: Sink
) -> tuple[CheckResult, ...]:
    manifest, digest = payload.approved.manifest, payload.approved.digest
    if manifest.serve is None:
        path = paths.stored / manifest.name / f"{manifest.version}.json"
        if not path.exists():
            fsio.write(path, manifest.to_bytes(), 0o444)
        sink(Line("stored", "the bundle has no serving plan; its files are in the store"))
        return ()
    stage(paths, manifest, digest, sink, uv=options.uv, kit=options.kit)
    launch.choose(paths, options.supervisor, usual_root=options.usual_root)
    seconds = options.probation_seconds
    done = activate(paths, manifest, digest, sink, probation_seconds=seconds)
    return done.smoke.checks


def judge_all(paths: HostPaths, sink: Sink = silent) -> tuple[str, ...]:
    """Judge every deployment again by the officers' newest list; returns those that lost their
    approval. They are flagged, in the ledger too; what serves is not cut off by it."""
    lost = []
    if not paths.deployments.is_dir():
        return ()
    for name in sorted(p.name for p in paths.deployments.iterdir()):
        for version in versions(paths, name):
            try:
                found = load(paths, name, version)
                still_approved(paths, found.manifest, found.digest)
            except TrustError as e:
                lost.append(f"{name} {version}")
                _flag(paths, name, version, e, sink)
            except SealiftError as e:
                sink(Warn(e.id, f"{name} {version}: {e.what}"))
    return tuple(lost)


def _flag(paths: HostPaths, name: str, version: str, e: SealiftError, sink: Sink) -> None:
    sink(Warn(e.id, f"{name} {version}: {e.what}"))
    entry = {"name": name, "version": version, "id": e.id}
    if ledger.last(ledger.read(paths.ledger), "approval-lost", **entry) is None:
        ledger.append(paths.ledger, "approval-lost", entry)
