"""The connected side's steps, each from files in the workspace to files in the workspace.

Every step can be killed and run again; a step whose input did not change gives the same bytes. A
step imports what it needs when it runs: a fetch with nothing left to fetch is over in less time
than the imports of a review take.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airgap import fsio
from airgap.errors import FormatError, UsageError
from airgap.events import Line, Sink, silent
from airgap.format.artifacts import LockedArtifact, LockedImage, LockedWheels
from airgap.format.lock import Lock
from airgap.format.policy import Policy
from bundler.fetch.locked import fetch_locked
from bundler.fetch.options import Options
from bundler.request import read as read_request
from bundler.workspace import Build, Workspace

if TYPE_CHECKING:
    from bundler.moved import Compared
    from bundler.scan.ahead import Ahead
    from bundler.scan.interface import Stated
    from bundler.scan.memory import Task


def lock(
    path: Path,
    workspace: Workspace,
    now: int,
    sink: Sink = silent,
    options: Options | None = None,
) -> Lock:
    """Request file -> lock, written to its build folder."""
    from bundler.lock import make_lock

    request = read_request(path)
    release = _next_release(workspace, request.name)
    return make_lock(
        request,
        base=path.parent,
        workspace=workspace,
        now=now,
        release=release,
        sink=sink,
        options=options,
    )


def moved(path: Path, workspace: Workspace, sink: Sink, connections: int) -> Compared:
    """What the sources of a locked request mean today, held against its lock; plain files are asked
    for over `connections`."""
    from bundler.moved import find

    found = read_lock(path, workspace)
    request = read_request(path)
    return find(
        request,
        found,
        base=path.parent,
        workspace=workspace,
        sink=sink,
        connections=connections,
    )


def _next_release(workspace: Workspace, name: str) -> int:
    """One more than the newest approved release of that name; 1 for the first."""
    if not workspace.trust.exists():
        return 1
    from airgap.format.manifest import Manifest
    from bundler.officers.repository import TrustRepository

    repository = TrustRepository(workspace.trust)
    newest = 0
    if repository.exists():
        for path, info in repository.published().targets_signed.targets.items():
            if path.startswith(f"{name}/"):
                folder = repository.approved(info.hashes["sha256"])
                manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
                newest = max(newest, manifest.release)
    return newest + 1


def read_lock(path: Path, workspace: Workspace) -> Lock:
    """The lock that `sealift lock` made of this very request. Raises UsageError when there is
    none, or when the request changed since."""
    request = read_request(path)
    file = workspace.build(request.name, request.version).lock
    again = f"run `sealift lock {path}`"
    try:
        found = Lock.from_bytes(file.read_bytes())
    except FileNotFoundError as e:
        raise UsageError(
            "lock.missing", f"{path} is not locked", why=f"{file} does not exist", do=again
        ) from e
    except FormatError as e:
        raise UsageError(
            "lock.damaged", f"{file} cannot be read", why=f"{e.where}: {e.why}", do=again
        ) from e
    if found.request != hashlib.sha256(request.to_bytes()).hexdigest():
        raise UsageError(
            "lock.stale",
            f"{path} changed since it was locked",
            why="the lock was made of another content",
            do=again,
        )
    return found


def fetch(
    found: Lock, workspace: Workspace, sink: Sink = silent, options: Options | None = None
) -> None:
    """Bring every file of the lock into the store."""
    fetch_locked(found, workspace, sink, options)


def scan(
    found: Lock,
    workspace: Workspace,
    policy: Policy,
    sink: Sink = silent,
    *,
    advisories: Path | None = None,
    afresh: bool = False,
    ahead: Ahead | None = None,
) -> Build:
    """Look at every file; write findings, coverage, bill of materials, provenance and policy.

    `advisories`: a folder of OSV advisories that the wheels are held against. `afresh`: read again
    what these scanners found sound before.
    """
    from bundler.evidence.bom import make_bom
    from bundler.evidence.provenance import make_provenance
    from bundler.scan.advisories import read as read_advisories
    from bundler.scan.ahead import Ahead
    from bundler.scan.gate import ScanArtifact, ScanFile
    from bundler.scan.gate import scan as look
    from bundler.scan.memory import Memory

    known = None if advisories is None else read_advisories(advisories)

    store = workspace.store
    artifacts = [
        ScanArtifact(
            a.name,
            a.kind,
            tuple(ScanFile(f.path, f.sha256, f.size, store.blob_path(f.sha256)) for f in a.files),
            _stated(a),
        )
        for a in found.artifacts
    ]
    ahead = ahead or Ahead(Memory(workspace.memory), afresh=afresh)
    findings, coverage = look(artifacts, sink, known, image_keys=policy.image_keys, ahead=ahead)
    build = workspace.build(found.name, found.version)
    fsio.write(build.findings, findings.to_bytes())
    fsio.write(build.coverage, coverage.to_bytes())
    fsio.write(build.bom, make_bom(found))
    fsio.write(build.provenance, make_provenance(found, _tools()))
    fsio.write(build.policy, policy.to_bytes())
    covered = sum(c.verdict == "covered" for c in coverage.files)
    text = f"{len(findings.findings)} findings; {covered} of {len(coverage.files)} files covered"
    if ahead.remembered:
        text += f"; {ahead.remembered} wheels and layers as these scanners found them before"
    sink(Line("scan", text))
    return build


def fetch_and_scan(
    found: Lock,
    workspace: Workspace,
    policy: Policy,
    sink: Sink = silent,
    *,
    advisories: Path | None = None,
    afresh: bool = False,
    options: Options | None = None,
) -> Build:
    """As `fetch`, then `scan`; what is read whole (wheels, layers) is looked at as soon as it is
    there, while the rest still comes. The same bytes come out."""
    from bundler.scan.ahead import ahead as looking_ahead
    from bundler.scan.memory import Memory

    with looking_ahead(Memory(workspace.memory), afresh=afresh) as ahead:
        tasks = _early(found, workspace)

        def begin(sha256: str) -> None:
            for task in tasks.get(sha256, ()):
                ahead.begin(task)

        for sha256 in tasks:
            if workspace.store.blob_path(sha256).exists():
                begin(sha256)
        fetch_locked(found, workspace, sink, options, lambda _item, d: begin(d.sha256))
        return scan(found, workspace, policy, sink, advisories=advisories, ahead=ahead)


def _early(found: Lock, workspace: Workspace) -> dict[str, list[Task[Any]]]:
    """What can be found out about single files, by their SHA-256. An image's manifest came into the
    store when it was locked."""
    from bundler.scan import image, wheel

    store = workspace.store
    out: dict[str, list[Task[Any]]] = {}
    for a in found.artifacts:
        if isinstance(a, LockedWheels):
            for f in a.files:
                task = wheel.task(f.sha256, store.blob_path(f.sha256), f.path.name)
                out.setdefault(f.sha256, []).append(task)
        elif isinstance(a, LockedImage):
            for sha256, packing in image.packings(store.blob_path(a.digest)).items():
                layer = image.task(sha256, store.blob_path(sha256), packing)
                out.setdefault(sha256, []).append(layer)
    return out


def _stated(artifact: LockedArtifact) -> Stated:
    """What the lock says of where an artifact is from, for scanners that read its own word."""
    from bundler.scan.interface import Stated

    keys = ("source", "publisher", "licence", "base")
    return Stated(**{key: getattr(artifact, key, "") for key in keys})


def _tools() -> dict[str, str]:
    """Versions of what decides which bytes are fetched."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("sealift", "uv")}


def review(
    found: Lock, workspace: Workspace, now: int, sink: Sink = silent, *, replace: bool = False
) -> Path:
    """The gate, then the packet for the officers. Raises PolicyError when the gate refuses."""
    from airgap.format.evidence import Coverage, Findings
    from airgap.policy import judge_evidence, judge_manifest, refuse
    from bundler.evidence.report import render
    from bundler.manifest import make_manifest
    from bundler.officers import open_packet
    from bundler.officers.repository import TrustRepository

    build = workspace.build(found.name, found.version)
    documents = _read_evidence(build)
    findings = Findings.from_bytes(documents["findings"])
    coverage = Coverage.from_bytes(documents["coverage"])
    policy = Policy.from_bytes(documents["policy"])
    manifest = make_manifest(found, workspace.store, documents)
    # The audience is the receiving host's to judge, so it is not asked here.
    problems = [p for p in judge_manifest(policy, manifest) if p.id != "policy.audience"]
    problems += judge_evidence(policy, manifest, findings, coverage, now)
    refuse(policy, manifest, tuple(problems))
    data = manifest.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    report = render(manifest, digest, findings, coverage, policy)
    fsio.write(build.manifest, data)
    fsio.write(build.report, report)
    files = {f"evidence/{kind}.json": d for kind, d in documents.items()}
    repository = TrustRepository(workspace.trust)
    open_packet.open_manifest(
        repository, build.packet, data, {**files, "REVIEW.html": report}, now, replace=replace
    )
    sink(Line("manifest", f"{manifest.name} {manifest.version}  sha256 {digest}"))
    return build.packet


def _read_evidence(build: Build) -> dict[str, bytes]:
    files = {
        "bom": build.bom,
        "coverage": build.coverage,
        "findings": build.findings,
        "lock": build.lock,
        "policy": build.policy,
        "provenance": build.provenance,
    }
    try:
        return {kind: path.read_bytes() for kind, path in files.items()}
    except FileNotFoundError as e:
        raise UsageError(
            "scan.missing",
            "it was not scanned yet",
            why=f"{e.filename} does not exist",
            do="run `sealift scan` with the same request",
        ) from e
