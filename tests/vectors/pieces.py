"""What vectors are made of: fixed keys, fixed times, and an attacker's freedom to put the parts
together in any way. Nothing here asks the clock, the disk or a random number."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from blake3 import blake3
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Signed, Targets
from tuf.api.serialization.json import JSONSerializer

from airgap.format import layout
from airgap.format.artifacts import Artifact, Model
from airgap.format.evidence import Coverage, Covered, Finding, Findings
from airgap.format.manifest import Evidence, Manifest
from airgap.format.statement import (
    Digest,
    Envelope,
    EnvelopeSignature,
    PolicyRef,
    Resource,
    Statement,
    Summary,
    Verifier,
    pre_auth,
    rfc3339,
)
from airgap.format.types import FileEntry, Target
from airgap.trust.statements import envelope_name
from bundler.officers.keys import BUILDER
from bundler.officers.staging import (
    Roles,
    approve_manifest,
    first_targets,
    make_root,
    make_snapshot,
    make_timestamp,
    next_targets,
)
from tests.lab import fixed_key

DAY = 86_400
NOW = 1_790_000_000  # 2026-09-21T14:13:20Z, the present of every vector that does not say otherwise
OFFICERS = ("alice", "bob", "carol")
REPORT = b"<!doctype html>\n<title>tiny 1.0</title>\n<p>What the officers read.\n"
CONFIG, WEIGHTS = b'{"architectures":["Tiny"]}\n', b"GGUF" + bytes(range(256)) * 4


@dataclass(frozen=True)
class Link:
    """A symbolic link on the medium."""

    to: str


@dataclass(frozen=True)
class Hole:
    """A file of `size` bytes that are all zero and take no space."""

    size: int


Item = bytes | Link | Hole


def signers(*names: str) -> list[CryptoSigner]:
    """Key pairs that are the same in every run: the seed is the owner's name."""
    return [fixed_key(n) for n in names]


def sign(signed: Signed, *names: str) -> bytes:
    """A metadata file with exactly these people's signatures."""
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers(*names):
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def root(version: int = 1, threshold: int = 2, **changes: Any) -> Root:
    """Root `version`: two of three officers, made ten days ago and a second later each time."""
    names = changes.pop("names", OFFICERS)
    keys: Any = [s.public_key for s in signers(*names)]
    builder: Any = fixed_key(BUILDER).public_key
    roles = Roles(keys, builder, threshold, **changes)
    return make_root(version, roles, NOW - 10 * DAY + version)


def solo_root() -> Root:
    """One person is officer and builder."""
    key: Any = fixed_key("alice").public_key
    return make_root(1, Roles([key], key, 1, solo=True), NOW - 10 * DAY)


def targets_of(listed: Mapping[str, bytes], version: int = 2, at: int = NOW) -> Targets:
    """Targets that list exactly these manifests."""
    made = next_targets(first_targets(NOW - 10 * DAY), version, at)
    for path, data in listed.items():
        approve_manifest(made, path, data)
    return made


def file(path: str, data: bytes) -> FileEntry:
    """A file as a manifest names it."""
    sha256 = hashlib.sha256(data).hexdigest()
    return FileEntry(
        path=PurePosixPath(path), sha256=sha256, blake3=blake3(data).hexdigest(), size=len(data)
    )


def model(files: Mapping[str, bytes]) -> Model:
    """A model of these files."""
    return Model(
        name="model",
        source="vectors",
        revision="1",
        format="gguf",
        publisher="",
        licence="apache-2.0",
        files=tuple(file(p, d) for p, d in sorted(files.items())),
    )


def coverage(artifacts: Iterable[Artifact], lacking: str = "") -> bytes:
    """The ledger: every file covered, but the one at `lacking`."""
    lines = []
    for a in artifacts:
        for f in a.files:
            base = {"artifact": a.name, "path": f.path, "sha256": f.sha256, "kind": "unknown"}
            if str(f.path) == lacking:
                base |= {"verdict": "not-covered", "reason": "it timed out"}
            else:
                base |= {"verdict": "covered", "scanners": ("sniff",)}
            lines.append(Covered(**base))
    return Coverage(files=tuple(lines)).to_bytes()


def findings(*found: Finding) -> bytes:
    """The findings of one tool."""
    return Findings(tools=("vectors 1",), findings=found).to_bytes()


@dataclass(frozen=True)
class Content:
    """A manifest's payload: artifacts with their bytes, and evidence kind -> bytes."""

    artifacts: tuple[Artifact, ...]
    blobs: tuple[bytes, ...]
    evidence: Mapping[str, bytes]

    def manifest(self, **changes: Any) -> bytes:
        """The manifest over it."""
        made = Manifest(
            **{
                "name": "tiny",
                "version": "1.0",
                "summary": "a vector",
                "release": 1,
                "created": NOW - DAY,
                "not_after": NOW + 300 * DAY,
                "audience": (),
                "handling": "",
                "target": Target(
                    python="3.11", platform="x86_64-manylinux_2_35", accelerator="cpu"
                ),
                "artifacts": self.artifacts,
                "evidence": tuple(_evidence(k, d) for k, d in sorted(self.evidence.items())),
                **changes,
            }
        )
        return made.to_bytes()

    def by_digest(self) -> dict[str, bytes]:
        """Every payload blob."""
        return {hashlib.sha256(d).hexdigest(): d for d in (*self.blobs, *self.evidence.values())}


def _evidence(kind: str, data: bytes) -> Evidence:
    f = file("x", data)
    return Evidence(kind=kind, sha256=f.sha256, blake3=f.blake3, size=f.size)


def content(
    artifacts: tuple[Artifact, ...] | None = None, blobs: tuple[bytes, ...] = (), **evidence: bytes
) -> Content:
    """A small model, or other artifacts with their blobs; evidence may be replaced."""
    if artifacts is None:
        files = {"config.json": CONFIG, "model.gguf": WEIGHTS}
        artifacts, blobs = (model(files),), tuple(files.values())
    made = {
        "findings": findings(),
        "coverage": coverage(artifacts),
        "policy": b'{"schema":"sealift.policy/1"}\n',
        **evidence,
    }
    return Content(artifacts, blobs, made)


def statement(
    officer: str,
    manifest: bytes,
    *,
    by: str | None = None,
    report: bytes = REPORT,
    result: str = "PASSED",
    comment: str = "",
) -> bytes:
    """An officer's DSSE envelope; `by` signs it where that is somebody else."""
    parsed = Manifest.from_bytes(manifest)
    digests = {e.kind: e.sha256 for e in parsed.evidence}
    inputs = {"report": _digest(report), "findings": Digest(sha256=digests["findings"])}
    made = Statement(
        subject=(Resource(name=parsed.target_path, digest=_digest(manifest)),),
        predicate=Summary(
            verifier=Verifier(id=officer),
            time_verified=rfc3339(NOW - 3600),
            resource_uri=parsed.target_path,
            policy=PolicyRef(digest=Digest(sha256=digests["policy"])),
            input_attestations=tuple(Resource(name=n, digest=d) for n, d in inputs.items()),
            verification_result=result,
            comment=comment,
        ),
    )
    payload = made.to_bytes()
    (signer,) = signers(by or officer)
    found = signer.sign(pre_auth(payload))
    return Envelope(
        payload=base64.b64encode(payload).decode(),
        signatures=(
            EnvelopeSignature(
                keyid=found.keyid, sig=base64.b64encode(bytes.fromhex(found.signature)).decode()
            ),
        ),
    ).to_bytes()


def _digest(data: bytes) -> Digest:
    return Digest(sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Medium:
    """A bundle in parts. Whatever is not replaced is what an honest builder would write."""

    content: Content
    manifest: bytes
    path: str
    roots: Mapping[int, bytes]
    targets: Mapping[int, bytes]
    statements: tuple[bytes, ...]
    report: bytes = REPORT
    builder: str = BUILDER
    expires: int = NOW + 60 * DAY
    snapshot_version: int = 2
    over: bytes | None = None
    extra: Mapping[str, Item] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """Version of the newest targets."""
        return max(self.targets)

    def with_targets(self, signed: Targets, *by: str) -> Medium:
        """The same over other targets and no older ones."""
        return replace(self, targets={signed.version: sign(signed, *by)})

    def with_manifest(self, data: bytes, *officers: str, at: str | None = None) -> Medium:
        """The same for another manifest, properly listed and approved by these officers."""
        path = at or Manifest.from_bytes(data).target_path
        made = replace(
            self,
            manifest=data,
            path=path,
            statements=tuple(statement(o, data) for o in officers or ("alice", "bob")),
        )
        return made.with_targets(targets_of({path: data}), "alice", "bob")

    def metadata(self) -> dict[str, bytes]:
        """TUF file name -> bytes. The builder's files are made over the newest targets, or over
        the bytes `over` where the builder saw others."""
        data = self.targets[self.newest] if self.over is None else self.over
        snapshot = sign(
            make_snapshot(data, self.newest, self.snapshot_version, self.expires), self.builder
        )
        timestamp = make_timestamp(snapshot, self.snapshot_version, 2, self.expires)
        return {
            **{f"{v}.root.json": d for v, d in self.roots.items()},
            **{f"{v}.targets.json": d for v, d in self.targets.items()},
            f"{self.snapshot_version}.snapshot.json": snapshot,
            "timestamp.json": sign(timestamp, self.builder),
        }

    def tree(self) -> dict[str, Item]:
        """Path -> what lies there."""
        manifest = Manifest.from_bytes(self.manifest)
        digest = hashlib.sha256(self.manifest).hexdigest()
        made = layout.generate(manifest)
        files: dict[str, bytes] = {
            layout.README: layout.readme(manifest, digest),
            layout.REPORT: self.report,
            layout.OCI_LAYOUT: layout.OCI_LAYOUT_BYTES,
            layout.INDEX: made.index,
            f"{layout.TRUST}/{layout.TARGETS}/{self.path}": self.manifest,
        }
        files |= {f"{layout.BLOBS}/{s}": d for s, d in made.blobs.items()}
        files |= {f"{layout.BLOBS}/{s}": d for s, d in self.content.by_digest().items()}
        files |= {f"{layout.TRUST}/{layout.METADATA}/{n}": d for n, d in self.metadata().items()}
        for data in self.statements:
            files[f"{layout.TRUST}/{layout.STATEMENTS}/{envelope_name(data)}"] = data
        sums = layout.sums({n: hashlib.sha256(d).hexdigest() for n, d in files.items()})
        return {**files, layout.SUMS: sums, **self.extra}


def medium(**changes: Any) -> Medium:
    """tiny 1.0, approved by alice and bob (2 of 3), in a bundle as it should be."""
    made = content()
    manifest = made.manifest()
    path = Manifest.from_bytes(manifest).target_path
    return replace(
        Medium(
            content=made,
            manifest=manifest,
            path=path,
            roots={1: sign(root(), "alice", "bob")},
            targets={2: sign(targets_of({path: manifest}), "alice", "bob")},
            statements=(statement("alice", manifest), statement("bob", manifest)),
        ),
        **changes,
    )
